"""What a network costs and sees: output sizes, parameters, FLOPs (a multiply-add counts as 2) and receptive fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from yolite.models.blocks import Upsample
from yolite.models.detector import Detector
from yolite.structures import Size


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        index, name, block: As in its record.
        inputs: Indices of the layers it reads, −1 the picture.
        output: (channels, H, W).
        parameters: Learned numbers.
        flops: For one picture; a multiply-add counts as 2, as torch's FlopCounterMode counts; BN, activations and
            pools are not counted.
        receptive: Side, in input px, of the square that one output cell can see (theoretical).
    """

    index: int
    name: str
    block: str
    inputs: tuple[int, ...]
    output: tuple[int, int, int]
    parameters: int
    flops: int
    receptive: int


def _grow(receptive: float, jump: float, path: list[nn.Module]) -> tuple[float, float]:
    """Follow a chain of modules: r ← r + (k − 1) · d · jump; jump ← jump · stride (Araujo et al. 2019, eq. 2)."""
    for module in path:
        if isinstance(module, Upsample):
            jump /= module.scale
        elif isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            kernel, stride, dilation = (
                v if isinstance(v, int) else v[0]
                for v in (module.kernel_size, module.stride, getattr(module, "dilation", 1))
            )
            receptive += (kernel - 1) * dilation * jump
            jump *= stride
        elif isinstance(module, nn.ConvTranspose2d):  # an output cell has at most ⌈k / s⌉ taps a side
            receptive += (math.ceil(module.kernel_size[0] / module.stride[0]) - 1) * jump
            jump /= module.stride[0]
        else:
            receptive, jump = _grow(receptive, jump, module.longest_path())  # type: ignore[operator]
    return receptive, jump


def summarise(model: Detector, size: Size) -> list[LayerSummary]:
    """Run one picture of ``size`` (H, W) through the network and describe every layer."""
    model = model.eval()
    kept: dict[int, torch.Tensor] = {-1: torch.zeros(1, 3, *size)}
    fields: dict[int, tuple[float, float]] = {-1: (1.0, 1.0)}
    out = []
    with torch.inference_mode():
        for index, (record, layer) in enumerate(zip(model.graph.records, model.graph.layers, strict=True)):
            with FlopCounterMode(display=False) as counter:
                kept[index] = layer(*[kept[i] for i in record.inputs])
            seen = [fields[i] for i in record.inputs]
            fields[index] = _grow(max(r for r, _ in seen), seen[0][1], layer.longest_path())  # type: ignore[operator]
            channels, height, width = kept[index].shape[1:]
            parameters = sum(p.numel() for p in layer.parameters())
            out.append(LayerSummary(index, record.name, record.block, record.inputs, (channels, height, width),
                                    parameters, counter.get_total_flops(), round(fields[index][0])))  # fmt: skip
    return out
