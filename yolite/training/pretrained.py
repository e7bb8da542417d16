"""Backbones that torchvision trained: finding the file and copying its numbers. Nothing is downloaded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolite.console import Console
from yolite.errors import UserError
from yolite.models.backbones import NETS, Stage
from yolite.structures import Preprocess

CACHE = "cache"
"""The word for torchvision's own cache folder."""


def find_pretrained(rows: Sequence[Mapping[str, Any]], where: str) -> dict[str, Path]:
    """Return the file of each torchvision network among the rows of a backbone.

    Args:
        rows: As in the config.
        where: A file, or `CACHE`.

    Raises:
        UserError: no such file, or no row that it could be for.
    """
    nets = dict.fromkeys(str(row.get("net")) for row in rows if row.get("block") == "torchvision")
    if not nets:
        raise UserError(
            f"model.pretrained={where}: this model has no torchvision block: leave it out, or give one that has, e.g. "
            "--model yolite-resnet18"
        )
    return {net: _in_cache(net) if where == CACHE else _given(where) for net in nets if net in NETS}


def _given(where: str) -> Path:
    if not Path(where).is_file():
        raise UserError(f"model.pretrained: {where} is no file: give torchvision's .pth file, or {CACHE}")
    return Path(where)


def _in_cache(net: str) -> Path:
    """Return the newest weights of this network that torchvision would take without a download."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    kinds = NETS[net].weights
    names = [kind.url.rpartition("/")[2] for kind in dict.fromkeys((kinds.DEFAULT, kinds.IMAGENET1K_V1))]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"model.pretrained={CACHE}: {folder} holds no weights of {net}, and nothing is downloaded: put torchvision's "
        f"file {' or '.join(names)} there, or give its place as model.pretrained=FILE"
    )


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read a file of named tensors without running anything in it.

    Raises:
        UserError: it is damaged or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        raise UserError(f"model.pretrained: {path} is damaged or no file of weights: give torchvision's .pth") from None
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"model.pretrained: {path} holds no table of weights alone: give torchvision's .pth file")
    return content


def load_pretrained(model: nn.Module, files: Mapping[str, Path], preprocess: Preprocess, console: Console) -> None:
    """Copy torchvision's weights into the stages of each network, and say what was copied and how pictures look to it.

    Raises:
        UserError: a file is not that of the network.
    """
    for net, path in files.items():
        weights, source = read_weights(path), NETS[net]
        stages = [module for module in model.modules() if isinstance(module, Stage) and module.net is source]
        try:
            count = sum(stage.load(weights) for stage in stages)
        except ValueError as error:
            raise UserError(f"model.pretrained: {path} is not of {net}: {error}") from None
        console.say(f"{net}: {count} tensors from {path}; everything else is drawn")
        wanted = f"preprocess.mean={list(source.mean)} preprocess.std={list(source.std)}"
        if (tuple(preprocess.mean), tuple(preprocess.std)) == (source.mean, source.std):
            console.say(f"{net}: pictures are normalised as its weights want it; the checkpoint says so: {wanted}")
        else:
            console.warn(f"{net}: these weights want pictures normalised otherwise: give {wanted}")
