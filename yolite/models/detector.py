"""The detector: a graph whose outputs are raw maps, each described by a HeadSpec. It never sees targets or the loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yolite.models.backbones import Stage
from yolite.models.conv import ConvNormAct
from yolite.models.graph import Graph, LayerRecord
from yolite.models.plain import CellHead, Connected, Local
from yolite.structures import HeadSpec, Size


class Detector(nn.Module):
    """A network that answers a picture with raw maps, in train and eval mode alike.

    Args:
        records: The layers; those named in ``outputs`` give the raw maps.
        specs: One `HeadSpec` an output: how to read it.
        outputs: Indices of the output layers, finest level first.

    Raises:
        ValueError: if an output has other channels than its spec.
    """

    def __init__(self, records: Sequence[LayerRecord], specs: Sequence[HeadSpec], outputs: Sequence[int]) -> None:
        super().__init__()
        self.graph = Graph(records, outputs)
        self.specs = tuple(specs)
        for index, spec in zip(outputs, self.specs, strict=True):
            if self.graph.channels[index] != spec.channels:
                raise ValueError(
                    f"layer {index} gives {self.graph.channels[index]} channels, its HeadSpec needs {spec.channels}"
                )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.specs[0].classes

    @property
    def max_stride(self) -> int:
        """The input's height and width must be multiples of this."""
        return max(spec.stride for spec in self.specs)

    @property
    def fixed_size(self) -> Size | None:
        """The only input (H, W) in px of a network with a fully connected head; None: any multiple of its strides."""
        for index, spec in zip(self.graph.outputs, self.specs, strict=True):
            layer = self.graph.layers[index]
            if isinstance(layer, CellHead):
                return layer.grid[0] * spec.stride, layer.grid[1] * spec.stride
        return None

    @property
    def fixed(self) -> bool:
        """Whether a layer has a weight for each place of its map, so that inputs of one size alone can be read."""
        return any(isinstance(layer, (Connected, Local)) for layer in self.modules())

    def check_size(self, size: Size) -> None:
        """Raise ValueError if the network cannot read an input of ``size`` (H, W) in px."""
        only, stride = self.fixed_size, self.max_stride
        if only is not None and tuple(size) != only:
            raise ValueError(
                f"its head is fully connected, so its input size is fixed to {only[0]}x{only[1]}, and cannot be "
                f"{size[0]}x{size[1]}: leave imgsz out"
            )
        if any(side % stride for side in size):
            raise ValueError(
                f"its coarsest cells have {stride} px, so its input has whole multiples of that, and cannot be "
                f"{size[0]}x{size[1]}"
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised → one raw map [B, A·(5 + classes), H / stride, W / stride] a spec."""
        maps: list[Tensor] = self.graph(images)
        return maps


INITS = ("he_fan_out", "he_fan_in", "xavier")


def _fan(conv: nn.Conv2d | nn.ConvTranspose2d, init: str) -> float:
    """Return n of the variance 2 / n: numbers that one number goes to, comes from, or both together.

    He et al. 2015 (arXiv 1502.01852), eq. 10 (fan-in) and 14 (fan-out); Glorot & Bengio 2010, eq. 12, for Xavier.
    """
    taps = conv.weight[0, 0].numel() / conv.groups
    to, come = conv.out_channels * taps, conv.in_channels * taps
    if isinstance(conv, nn.ConvTranspose2d):  # its taps are shared out among stride² output cells
        come /= conv.stride[0] * conv.stride[1]
    return {"he_fan_out": to, "he_fan_in": come, "xavier": to + come}[init]


def initialise(model: nn.Module, seed: int, init: str = "he_fan_out") -> None:
    """Draw the weights of every convolution anew from ``seed``, normally distributed; biases stay.

    A bare one, with neither norm nor activation after it, gives raw numbers: it starts near 0 whatever ``init`` says.

    Args:
        model: The network.
        seed: Decides every number.
        init: A name in `INITS`.
    """
    generator = torch.Generator().manual_seed(seed)
    inner: set[nn.Module] = {m.conv for m in model.modules() if isinstance(m, ConvNormAct) and not m.bare}
    inner |= {module for stage in model.modules() if isinstance(stage, Stage) for module in stage.modules()}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            hidden = module in inner or module.bias is None
            std = math.sqrt(2) / math.sqrt(_fan(module, init)) if hidden else 0.01
            nn.init.normal_(module.weight, std=std, generator=generator)


def fused(model: Detector) -> Detector:
    """Return a copy for inference with each BN folded into the convolution before it (equal up to rounding).

    In every block, torchvision's too, a BN comes after the convolution that stands before it among the children. Group
    norm depends on the picture and stays as it is.
    """
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        for (name, conv), (after, bn) in pairwise(parent.named_children()):
            if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(bn, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, bn, isinstance(conv, nn.ConvTranspose2d)))
                setattr(parent, after, nn.Identity())
    return model
