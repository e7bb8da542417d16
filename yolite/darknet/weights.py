"""A .weights file: a header, then the numbers of each layer in the order of the .cfg, float32, little-endian.

The order within a layer (github.com/AlexeyAB/darknet, src/parser.c, load_*_weights): convolution: bias, (scale, mean,
variance), weights; connected: bias, weights, (scale, mean, variance); local: bias, weights. With batch norm its shift
stands in the bias's place.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from yolite.errors import UserError
from yolite.files import write_atomically
from yolite.models.conv import ConvNormAct
from yolite.models.plain import CellHead, Connected, ConvHead, Local


@dataclass(frozen=True)
class Header:
    """The first bytes of the file.

    Attributes:
        major, minor, revision: Version; from 0.2 on ``seen`` takes 8 bytes, before that 4.
        seen: Pictures the network was trained on.
    """

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def format(self) -> str:
        """Layout for `struct`."""
        return "<iiiQ" if self.major * 10 + self.minor >= 2 else "<iiiI"

    @property
    def size(self) -> int:
        """Bytes."""
        return struct.calcsize(self.format)

    @property
    def transposed(self) -> bool:
        """Whether the weights of connected layers stand the other way round."""
        return self.major > 1000 or self.minor > 1000


def _tensors(layer: nn.Module) -> list[Tensor]:
    """Return the numbers of a layer as the file orders them.

    Raises:
        ValueError: Darknet has no such layer.
    """
    if isinstance(layer, CellHead):
        layer = layer.vector
    if isinstance(layer, Local):
        return [layer.bias, layer.weight]
    if isinstance(layer, ConvHead):
        return [layer.conv.bias, layer.conv.weight]  # type: ignore[list-item]
    if not isinstance(layer, ConvNormAct) or not isinstance(layer.conv, nn.Conv2d):
        raise ValueError(f"a .weights file cannot hold the numbers of a {type(layer).__name__}")
    if not isinstance(layer.bn, nn.BatchNorm2d):
        return [layer.conv.bias, layer.conv.weight]  # type: ignore[list-item]
    rest: list[Tensor] = [layer.bn.weight, layer.bn.running_mean, layer.bn.running_var]  # type: ignore[list-item]
    return [layer.bn.bias, layer.conv.weight, *rest] if isinstance(layer, Connected) else [
        layer.bn.bias, *rest, layer.conv.weight,
    ]  # fmt: skip


def _is_matrix(layer: nn.Module, tensor: Tensor) -> bool:
    """Whether this is the weight matrix of a connected layer, which old files hold transposed."""
    return isinstance(layer, (Connected, CellHead)) and tensor.ndim > 1


def read_header(path: Path) -> Header:
    """Read the first bytes.

    Raises:
        UserError: the file is not there, or shorter than a header.
    """
    try:
        with path.open("rb") as file:
            start = file.read(20)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    if len(start) < 12:
        raise UserError(f"{path} has {len(start)} bytes: that is no .weights file (its header alone has 16 or 20)")
    header = Header(*struct.unpack("<iii", start[:12]))
    if len(start) < header.size:
        raise UserError(f"{path} ends in its header: {header.size} bytes expected, {len(start)} found")
    return Header(*struct.unpack(header.format, start[: header.size]))


def read_weights(path: Path, layers: Sequence[tuple[str, nn.Module]]) -> Header:
    """Fill layers from a .weights file.

    Args:
        path: The file.
        layers: Name and module of each layer that has numbers, in the file's order.

    Raises:
        UserError: the file has another number of bytes than the layers need, or numbers that are not finite.
    """
    header = read_header(path)
    needed = [sum(tensor.numel() for tensor in _tensors(layer)) for _, layer in layers]
    expected, found = header.size + 4 * sum(needed), path.stat().st_size
    if found != expected:
        raise UserError(f"{path}: {expected:,} bytes expected, {found:,} found{_where(layers, needed, header, found)}")
    numbers = np.fromfile(path, "<f4", offset=header.size)
    at = 0
    for name, layer in layers:
        for tensor in _tensors(layer):
            part = numbers[at : at + tensor.numel()]
            at += tensor.numel()
            if not np.isfinite(part).all():
                raise UserError(f"{path}: {name} has numbers that are not finite: the file is damaged")
            if header.transposed and _is_matrix(layer, tensor):
                part = part.reshape(-1, len(tensor)).T
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(part, np.float32)).reshape(tensor.shape))
    return header


def _where(layers: Sequence[tuple[str, nn.Module]], needed: Sequence[int], header: Header, found: int) -> str:
    """Say in which layer a file ends that is too short."""
    end = header.size
    for (name, _), numbers in zip(layers, needed, strict=True):
        end += 4 * numbers
        if end > found:
            return f": it ends in {name}; it is cut off, or belongs to another .cfg"
    return ": it belongs to another .cfg"


def write_weights(path: Path, layers: Sequence[tuple[str, nn.Module]], header: Header | None = None) -> None:
    """Write the numbers of layers as a .weights file, whole or not at all; `read_weights` gives back the same bits.

    Raises:
        UserError: it cannot be written.
    """
    header = header or Header()

    def write(file: object) -> None:
        file.write(struct.pack(header.format, header.major, header.minor, header.revision, header.seen))  # type: ignore[attr-defined]
        for _, layer in layers:
            for tensor in _tensors(layer):
                part = tensor.detach().cpu().float()
                part = part.flatten(1).T if header.transposed and _is_matrix(layer, tensor) else part
                file.write(np.ascontiguousarray(part.numpy(), "<f4").tobytes())  # type: ignore[attr-defined]

    write_atomically(path, write)
