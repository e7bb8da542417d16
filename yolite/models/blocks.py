"""The building blocks of the networks. Each is a plain nn.Module; `BLOCKS` maps the names used in configs to them.

A block is made by ``Block(in_channels, **arguments)`` with ``in_channels`` a list (one entry an input) and says two
things about itself: ``out_channels``, and, through `longest_path`, the chain of modules with the largest receptive
field, from which `yolite.models.summary` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from yolite.models.attention import CBAM, SqueezeExcitation
from yolite.models.backbones import Stage
from yolite.models.conv import Conv, Transposed


class Bottleneck(nn.Module):
    """Two 3×3 convolutions with a shortcut (ResNet; YOLOv3's residual block with both kernels 3×3)."""

    def __init__(self, channels: int, shortcut: bool, act: str, norm: str) -> None:
        super().__init__()
        self.first = Conv([channels], channels, 3, act=act, norm=norm)
        self.second = Conv([channels], channels, 3, act=act, norm=norm)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        y: Tensor = self.second(self.first(x))
        return x + y if self.shortcut else y


class CSP(nn.Module):
    """Cross-stage partial block (arXiv 1911.11929): half of the channels go through the bottlenecks, all are joined.

    Every bottleneck's output joins the result, so that the gradient reaches each of them directly.

    Args:
        in_channels: One entry.
        out: Output channels.
        n: Number of bottlenecks.
        shortcut: Whether the bottlenecks are residual.
        act, norm: As in `Conv`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out: int,
        n: int = 1,
        shortcut: bool = True,
        act: str = "silu",
        norm: str = "bn",
    ) -> None:
        super().__init__()
        self.out_channels = out
        self.width = out // 2
        self.split = Conv(in_channels, 2 * self.width, 1, act=act, norm=norm)
        self.blocks = nn.ModuleList(Bottleneck(self.width, shortcut, act, norm) for _ in range(n))
        self.join = Conv([(2 + n) * self.width], out, 1, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, out, H, W]."""
        parts = list(self.split(x).split(self.width, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        out: Tensor = self.join(torch.cat(parts, 1))
        return out

    def longest_path(self) -> list[nn.Module]:
        """Through every bottleneck."""
        chain = [conv for block in self.blocks for conv in block.children()]
        return [self.split, *chain, self.join]


class SPPF(nn.Module):
    """Spatial pyramid pooling: three 5×5 max pools in a row stand for pools of 5, 9 and 13 (arXiv 1406.4729)."""

    def __init__(self, in_channels: Sequence[int], out: int, act: str = "silu", norm: str = "bn") -> None:
        super().__init__()
        (cin,) = in_channels
        self.out_channels = out
        self.squeeze = Conv([cin], cin // 2, 1, act=act, norm=norm)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = Conv([4 * (cin // 2)], out, 1, act=act, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, out, H, W]."""
        parts = [self.squeeze(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        out: Tensor = self.join(torch.cat(parts, 1))
        return out

    def longest_path(self) -> list[nn.Module]:
        """Through the three pools."""
        return [self.squeeze, self.pool, self.pool, self.pool, self.join]


class Upsample(nn.Module):
    """Nearest-neighbour upsampling: each cell of a coarse map is repeated, so that a finer map can be joined to it."""

    def __init__(self, in_channels: Sequence[int], scale: int = 2) -> None:
        super().__init__()
        (self.out_channels,) = in_channels
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H·scale, W·scale]."""
        return nn.functional.interpolate(x, scale_factor=float(self.scale), mode="nearest")

    def longest_path(self) -> list[nn.Module]:
        """Upsampling adds nothing; the summary divides the step by ``scale``."""
        return [self]


class Concat(nn.Module):
    """Join maps of one size along the channels: low-level features beside high-level ones."""

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.out_channels = sum(in_channels)

    def forward(self, *maps: Tensor) -> Tensor:
        """Several [B, C_i, H, W] → [B, ΣC_i, H, W]."""
        return torch.cat(maps, 1)

    def longest_path(self) -> list[nn.Module]:
        """Joining adds nothing."""
        return []


class GridHead(nn.Module):
    """One level of the detector: for each anchor of each cell 4 box numbers, 1 objectness and the class scores.

    Box + objectness and classes come from branches of their own (YOLOX, arXiv 2107.08430, section 2: they want
    different features); the last convolution of each has a bias and neither BN nor activation.

    Args:
        in_channels: One entry.
        anchors: Number of anchors a cell, A.
        classes: Number of classes.
        hidden: Channels of the branches.
        depth: 3×3 convolutions a branch.
        prior: Chance that a prediction is an object before training; sets the objectness bias, so that the first
            steps are not spent on calming a hundred thousand false alarms (arXiv 1708.02002, section 4.1).
        act, norm: As in `Conv`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        anchors: int,
        classes: int,
        hidden: int = 64,
        depth: int = 1,
        prior: float = 0.01,
        act: str = "silu",
        norm: str = "bn",
    ) -> None:
        super().__init__()
        (cin,) = in_channels
        self.anchors, self.classes = anchors, classes
        self.out_channels = anchors * (5 + classes)
        widths = [cin, *[hidden] * depth]
        self.box_branch = nn.Sequential(*(Conv([a], b, 3, act=act, norm=norm) for a, b in pairwise(widths)))
        self.class_branch = nn.Sequential(*(Conv([a], b, 3, act=act, norm=norm) for a, b in pairwise(widths)))
        self.box_out = nn.Conv2d(hidden, anchors * 5, 1)
        self.class_out = nn.Conv2d(hidden, anchors * classes, 1)
        with torch.no_grad():
            self.box_out.bias.zero_()  # type: ignore[union-attr]
            self.box_out.bias.view(anchors, 5)[:, 4] = math.log(prior / (1 - prior))  # type: ignore[union-attr]
            self.class_out.bias.fill_(-math.log(max(classes - 0.99, 0.01)))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → raw map [B, A·(5 + classes), H, W], read by `yolite.codec.split`."""
        batch, _, height, width = x.shape
        box = self.box_out(self.box_branch(x)).view(batch, self.anchors, 5, height, width)
        classes = self.class_out(self.class_branch(x)).view(batch, self.anchors, self.classes, height, width)
        return torch.cat((box, classes), 2).view(batch, self.out_channels, height, width)

    def longest_path(self) -> list[nn.Module]:
        """Both branches reach equally far."""
        return [*self.box_branch, self.box_out]


BLOCKS: dict[str, type[nn.Module]] = {
    "conv": Conv,
    "transposed": Transposed,
    "csp": CSP,
    "sppf": SPPF,
    "upsample": Upsample,
    "concat": Concat,
    "se": SqueezeExcitation,
    "cbam": CBAM,
    "torchvision": Stage,
    "grid_head": GridHead,
}
