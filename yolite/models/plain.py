"""The plain layers of YOLOv1 to v4 and of Darknet's files: pools, reorg, shortcuts, fully connected ones, bare heads.

Made and described like the blocks of `yolite.models.blocks`. What a layer computes is what Darknet computes
(github.com/AlexeyAB/darknet, src/*_layer.c); benchmarks/darknet_parity.py compares it with OpenCV's own reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolite.models.conv import ConvNormAct, activation


class MaxPool(nn.Module):
    """Max pooling whose output has ⌊(side − 1) / stride⌋ + 1 cells a side, as in Darknet.

    The kernel − 1 cells of padding (never the largest) are split: the smaller half on the left and on top. A kernel of
    2 at stride 1 so keeps the size (YOLOv2-tiny, YOLOv3-tiny), odd kernels at stride 1 do too (SPP).

    Args:
        in_channels: One entry.
        kernel: Side of the window.
        stride: Cells from window to window.
        padding: Cells of padding in all, both sides together; None: kernel − 1.
    """

    def __init__(
        self, in_channels: Sequence[int], kernel: int = 2, stride: int = 2, padding: int | None = None
    ) -> None:
        super().__init__()
        (self.out_channels,) = in_channels
        total = kernel - 1 if padding is None else padding
        before, after = total // 2, total - total // 2
        self.pool = nn.MaxPool2d(kernel, stride, before if before == after else 0)
        self.uneven = (before, after, before, after) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H', W']."""
        if self.uneven:
            x = F.pad(x, self.uneven, value=-math.inf)
        out: Tensor = self.pool(x)
        return out

    def longest_path(self) -> list[nn.Module]:
        """The window."""
        return [self.pool]


class AvgPool(nn.Module):
    """The mean of each channel over the whole map."""

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        (self.out_channels,) = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, 1, 1]."""
        return x.mean((2, 3), keepdim=True)

    def longest_path(self) -> list[nn.Module]:
        """It sees the whole map, whatever its size: no number of its own."""
        return []


class Reorg(nn.Module):
    """Space to depth in Darknet's order: YOLOv2's passthrough, which joins a finer map to a coarser one.

    Darknet's ``reorg`` runs its loop the wrong way round: it takes the memory of a map [C, H, W] for that of a map
    [C / s², H·s, W·s], cuts *that* into s×s tiles, and takes the result for [C·s², H / s, W / s]. Trained weights
    expect this order. No number is lost, so a network that is trained with it learns as well as with any other.

    Args:
        in_channels: One entry, a multiple of stride².
        stride: H and W, multiples of it, shrink by this factor.

    Raises:
        ValueError: the channels do not divide.
    """

    def __init__(self, in_channels: Sequence[int], stride: int = 2) -> None:
        super().__init__()
        (cin,) = in_channels
        if stride < 1 or cin % stride**2:
            raise ValueError(f"{cin} channels do not divide by the square of stride {stride}")
        self.out_channels = cin * stride**2
        self.stride = stride
        self.window = nn.MaxPool2d(stride, stride)  # never run: what the receptive field is computed from

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C·s², H / s, W / s]."""
        batch, channels, height, width = x.shape
        s = self.stride
        tiles = x.reshape(batch, channels // s**2, height, s, width, s)
        return tiles.permute(0, 3, 5, 1, 2, 4).reshape(batch, self.out_channels, height // s, width // s)

    def longest_path(self) -> list[nn.Module]:
        """As far as a window of the stride sees (the odd order sees a little further)."""
        return [self.window]


class Slice(nn.Module):
    """One of several equal groups of the channels of each input, joined (Darknet's ``route`` with groups).

    Args:
        in_channels: One entry or more, each a multiple of ``groups``.
        groups: Number of groups.
        group: Which one, from 0.

    Raises:
        ValueError: channels that do not divide, or no such group.
    """

    def __init__(self, in_channels: Sequence[int], groups: int, group: int = 0) -> None:
        super().__init__()
        if not 0 <= group < groups or any(c % groups for c in in_channels):
            raise ValueError(f"{list(in_channels)} channels have no group {group} of {groups}")
        self.out_channels = sum(c // groups for c in in_channels)
        self.groups, self.group = groups, group

    def forward(self, *maps: Tensor) -> Tensor:
        """Several [B, C_i, H, W] → [B, ΣC_i / groups, H, W]."""
        parts = [x.chunk(self.groups, 1)[self.group] for x in maps]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def longest_path(self) -> list[nn.Module]:
        """Choosing adds nothing."""
        return []


class Shortcut(nn.Module):
    """The sum of maps of one H and W. The first gives the channels: of others what it has too is added.

    Args:
        in_channels: Two entries or more.
        act: A name in `yolite.models.conv.ACTIVATIONS`, after the sum.
    """

    def __init__(self, in_channels: Sequence[int], act: str = "identity") -> None:
        super().__init__()
        self.out_channels = in_channels[0]
        self.shared = [min(in_channels[0], c) for c in in_channels[1:]]
        self.act = activation(act)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """[B, C, H, W] and several [B, C_i, H, W] → [B, C, H, W]."""
        for other, shared in zip(others, self.shared, strict=True):
            if shared == self.out_channels:
                x = x + other[:, :shared]
            else:
                x = torch.cat((x[:, :shared] + other, x[:, shared:]), 1)
        out: Tensor = self.act(x)
        return out

    def longest_path(self) -> list[nn.Module]:
        """A sum adds nothing."""
        return []


class Multiply(nn.Module):
    """The product of two maps, the smaller one spread over the larger.

    Darknet's ``scale_channels`` weighs channels by a [B, C, 1, 1] (squeeze and excitation, arXiv 1709.01507); its
    ``sam`` every cell by a map of the same shape (modified spatial attention: YOLOv4, arXiv 2004.10934, section 3.4).

    Args:
        in_channels: Two entries of one number.
        act: A name in `yolite.models.conv.ACTIVATIONS`, after the product.

    Raises:
        ValueError: the channels differ.
    """

    def __init__(self, in_channels: Sequence[int], act: str = "identity") -> None:
        super().__init__()
        first, second = in_channels
        if first != second:
            raise ValueError(f"maps of {first} and {second} channels have no product")
        self.out_channels = first
        self.act = activation(act)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, C, H, W] and [B, C, H, W] (or 1 in place of H and W) → [B, C, H, W]."""
        out: Tensor = self.act(x * y)
        return out

    def longest_path(self) -> list[nn.Module]:
        """A product adds nothing."""
        return []


class Dropout(nn.Module):
    """Zero each number with a chance while training, and scale up the others (arXiv 1207.0580)."""

    def __init__(self, in_channels: Sequence[int], chance: float = 0.5) -> None:
        super().__init__()
        (self.out_channels,) = in_channels
        self.drop = nn.Dropout(chance)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        out: Tensor = self.drop(x)
        return out

    def longest_path(self) -> list[nn.Module]:
        """Nothing moves."""
        return []


class Connected(ConvNormAct):
    """A fully connected layer over a map of a fixed size: a convolution as large as the map.

    Args:
        in_channels: One entry.
        out: Numbers that come out.
        size: (H, W) of the map that comes in; no other fits.
        act: A name in `yolite.models.conv.ACTIVATIONS`.
        norm: A name in `yolite.models.conv.NORMS`; with ``none`` there is a bias.
        eps: Added to the variance by the norm.
    """

    def __init__(
        self, in_channels: Sequence[int], out: int, size: Sequence[int], act: str = "leaky", norm: str = "none",
        eps: float = 1e-5,
    ) -> None:  # fmt: skip
        (cin,) = in_channels
        rows, columns = size
        super().__init__(nn.Conv2d(cin, out, (int(rows), int(columns)), bias=norm == "none"), act, norm, eps)
        self.size = (int(rows), int(columns))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, out, 1, 1]."""
        _check_size(x, self.size)
        return super().forward(x)


class Local(nn.Module):
    """A convolution whose weights are not shared: every place has a kernel and a bias of its own (YOLOv1's file).

    Args:
        in_channels: One entry.
        out: Output channels.
        size: (H, W) of the map that comes in; no other fits.
        kernel: Side of the kernel.
        stride: Cells from place to place.
        padding: Zeros on each side.
        act: A name in `yolite.models.conv.ACTIVATIONS`.
    """

    def __init__(
        self, in_channels: Sequence[int], out: int, size: Sequence[int], kernel: int = 3, stride: int = 1,
        padding: int = 1, act: str = "leaky",
    ) -> None:  # fmt: skip
        super().__init__()
        (cin,) = in_channels
        self.out_channels = out
        self.size = (int(size[0]), int(size[1]))
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.grid = tuple((side + 2 * padding - kernel) // stride + 1 for side in self.size)
        places, taps = self.grid[0] * self.grid[1], cin * kernel**2
        self.weight = nn.Parameter(torch.empty(places, out, taps))
        self.bias = nn.Parameter(torch.zeros(out, *self.grid))
        nn.init.normal_(self.weight, std=math.sqrt(2 / taps))
        self.act = activation(act)
        self.window = nn.MaxPool2d(kernel, stride)  # never run: what the receptive field is computed from

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, out, H', W']."""
        _check_size(x, self.size)
        columns = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)  # [B, taps, places]
        y = torch.einsum("bkp,pok->bop", columns, self.weight).view(len(x), self.out_channels, *self.grid)
        out: Tensor = self.act(y + self.bias)
        return out

    def longest_path(self) -> list[nn.Module]:
        """One kernel."""
        return [self.window]


class ConvHead(nn.Module):
    """One convolution with a bias gives the raw map: the head of YOLOv2, v3 and v4.

    Args:
        in_channels: One entry.
        anchors: Number of anchors a cell, A.
        classes: Number of classes.
        kernel: Side of the kernel.
        prior: Chance that a prediction is an object before training; sets the objectness bias (see `GridHead`).
    """

    def __init__(
        self, in_channels: Sequence[int], anchors: int, classes: int, kernel: int = 1, prior: float = 0.01
    ) -> None:
        super().__init__()
        (cin,) = in_channels
        self.out_channels = anchors * (5 + classes)
        self.conv = nn.Conv2d(cin, self.out_channels, kernel, padding=kernel // 2)
        with torch.no_grad():
            bias = self.conv.bias.zero_().view(anchors, 5 + classes)  # type: ignore[union-attr]
            bias[:, 4] = math.log(prior / (1 - prior))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → raw map [B, A·(5 + classes), H, W], read by `yolite.codec.split`."""
        out: Tensor = self.conv(x)
        return out

    def longest_path(self) -> list[nn.Module]:
        """The convolution."""
        return [self.conv]


class CellHead(nn.Module):
    """YOLOv1's head: a fully connected layer gives all boxes and class scores at once (arXiv 1506.02640, section 2.2).

    Its vector holds, as Darknet lays it out (src/detection_layer.c), the class scores of all cells, then the
    confidences of all boxes, then the boxes; it becomes a map [B, A·5 + classes, S, S] as a `HeadSpec` with
    ``classes_per: cell`` reads it: tx, ty, tw, th and confidence of each box, then the classes.

    Args:
        in_channels: One entry.
        anchors: Boxes a cell, A.
        classes: Number of classes.
        size: (H, W) of the map that comes in, no other fits; the grid has as many cells.
        grid: (rows, columns) of the grid, where it is not ``size``.
    """

    def __init__(
        self, in_channels: Sequence[int], anchors: int, classes: int, size: Sequence[int],
        grid: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        rows, columns = grid or size
        self.anchors, self.classes, self.grid = anchors, classes, (int(rows), int(columns))
        self.out_channels = 5 * anchors + classes
        self.vector = Connected(in_channels, rows * columns * self.out_channels, size, "identity")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → raw map [B, A·5 + classes, S, S], read by `yolite.codec.split`."""
        cells, a = self.grid[0] * self.grid[1], self.anchors
        parts = self.vector(x).flatten(1).split((cells * self.classes, cells * a, cells * a * 4), 1)
        classes = parts[0].unflatten(1, (cells, self.classes))
        boxes = torch.cat((parts[2].unflatten(1, (cells, a, 4)), parts[1].unflatten(1, (cells, a, 1))), 3)
        joined = torch.cat((boxes.flatten(2), classes), 2)
        return joined.transpose(1, 2).unflatten(2, self.grid)

    def longest_path(self) -> list[nn.Module]:
        """It sees the whole picture."""
        return [self.vector.conv]


def _check_size(x: Tensor, size: tuple[int, int]) -> None:
    """Raise ValueError unless a map has the one size that a layer with a weight for each place can read."""
    if tuple(x.shape[2:]) != size:
        raise ValueError(
            f"its map has {x.shape[2]}x{x.shape[3]} cells, but it is connected to {size[0]}x{size[1]}: the input size "
            "of this network is fixed"
        )


PLAIN: dict[str, type[nn.Module]] = {
    "maxpool": MaxPool,
    "avgpool": AvgPool,
    "reorg": Reorg,
    "slice": Slice,
    "shortcut": Shortcut,
    "multiply": Multiply,
    "dropout": Dropout,
    "connected": Connected,
    "local": Local,
    "conv_head": ConvHead,
    "cell_head": CellHead,
}
