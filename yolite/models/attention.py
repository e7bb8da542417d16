"""Attention: gates between 0 and 1, computed from the map itself, that weigh its channels and places.

A gate over channels sees the whole picture, so the receptive field of what follows is the picture; `summary` leaves
gates out and counts the convolutions' path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolite.models.conv import Conv


def _hidden(channels: int, ratio: int) -> int:
    """Width of the two-layer network between: at least 8, or small maps would have next to nothing."""
    return max(8, channels // ratio)


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what its mean over the map says: x · σ(W₂ relu(W₁ mean(x))) (arXiv 1709.01507, eq. 2-4).

    Args:
        in_channels: One entry.
        ratio: The hidden layer has so many times fewer channels, but at least 8.
    """

    def __init__(self, in_channels: Sequence[int], ratio: int = 16) -> None:
        super().__init__()
        (channels,) = in_channels
        self.out_channels = channels
        self.reduce = Conv([channels], _hidden(channels, ratio), act="relu", norm="none")
        self.expand = Conv([self.reduce.out_channels], channels, act="logistic", norm="none")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        gate: Tensor = self.expand(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * gate

    def longest_path(self) -> list[nn.Module]:
        """Gates are left out."""
        return []


class CBAM(nn.Module):
    """Weigh channels by their mean and maximum over the map, then places by those over the channels.

    x ← x · σ(MLP(mean over H, W) + MLP(max over H, W)), one MLP for both; then x · σ(conv([mean over C; max over C]))
    (arXiv 1807.06521, eq. 1-3).

    Args:
        in_channels: One entry.
        ratio: The hidden layer of the MLP has so many times fewer channels, but at least 8.
        kernel: Side of the kernel over the places, odd; 7 in the paper.

    Raises:
        ValueError: an even kernel.
    """

    def __init__(self, in_channels: Sequence[int], ratio: int = 16, kernel: int = 7) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} is even: give an odd one")
        (channels,) = in_channels
        self.out_channels = channels
        self.reduce = Conv([channels], _hidden(channels, ratio), act="relu", norm="none")
        self.expand = Conv([self.reduce.out_channels], channels, act="identity", norm="none")
        self.place = Conv([2], 1, kernel, act="logistic", norm="none")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        mean, largest = (self.expand(self.reduce(v)) for v in (x.mean((2, 3), True), x.amax((2, 3), True)))
        x = x * (mean + largest).sigmoid()
        gate: Tensor = self.place(torch.cat((x.mean(1, True), x.amax(1, True)), 1))
        return x * gate

    def longest_path(self) -> list[nn.Module]:
        """Gates are left out."""
        return []
