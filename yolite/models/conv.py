"""Convolution → norm → activation, what every network here is made of, and the choices it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn


class Formula(nn.Module):
    """An activation that torch has no module for, as a function of tensors."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same shape."""
        return self.function(x)


def _plse(x: Tensor) -> Tensor:
    """Darknet's piecewise linear sigmoid."""
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5))


def _stair(x: Tensor) -> Tensor:
    """Every second step of the stairs is a slope."""
    n, step = x.floor(), (x / 2).floor()
    return torch.where(n % 2 == 0, step, x - n + step)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,  # x · sigmoid(x), also called swish
    "relu": nn.ReLU,
    "leaky": partial(nn.LeakyReLU, 0.1),  # Darknet's slope
    "prelu": nn.PReLU,  # a leaky whose slope is learned, 0.25 at first (arXiv 1502.01852)
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "relu6": nn.ReLU6,
    "logistic": nn.Sigmoid,
    "hard_swish": nn.Hardswish,
    "identity": nn.Identity,
    "linear": nn.Identity,  # Darknet's word for it
    # and what else Darknet's files may ask for (github.com/AlexeyAB/darknet, src/activations.h)
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": partial(nn.GELU, "tanh"),
    "relie": partial(nn.LeakyReLU, 0.01),
    "hardtan": nn.Hardtanh,
    "ramp": partial(Formula, lambda x: x.relu() + 0.1 * x),
    "loggy": partial(Formula, lambda x: (x / 2).tanh()),
    "hard_mish": partial(Formula, lambda x: torch.where(x > 0, x, (x.clamp(min=-2) + 2) * x.clamp(min=-2) / 2)),
    "lhtan": partial(Formula, lambda x: x.clamp(0, 1) + 0.001 * (x - x.clamp(0, 1))),
    "plse": partial(Formula, _plse),
    "stair": partial(Formula, _stair),
}
NORMS = ("bn", "group", "none")
POOLS: dict[str, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def activation(name: str) -> nn.Module:
    """Return the activation of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"act {name!r} is unknown; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def norm_layer(name: str, channels: int, eps: float) -> nn.Module:
    """Return batch norm, group norm or nothing for maps of so many channels.

    A group has 16 channels, or the next number above that divides them (Wu & He, arXiv 1803.08494, table 3: as good as
    32 groups, and small networks have too few channels for 32).

    Raises:
        ValueError: not a name in `NORMS`.
    """
    if name == "bn":
        return nn.BatchNorm2d(channels, eps)
    if name == "group":
        groups = next(g for g in range(max(1, channels // 16), 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels, eps)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"norm {name!r} is unknown; there are {', '.join(NORMS)}")


class ConvNormAct(nn.Module):
    """A convolution, the norm after it (named ``bn`` in the weights, whatever its kind), the activation and a pool."""

    def __init__(
        self, conv: nn.Conv2d | nn.ConvTranspose2d, act: str, norm: str, eps: float, pool: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        self.conv = conv
        self.bn = norm_layer(norm, conv.out_channels, eps)
        self.act = activation(act)
        self.pool = pool
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)

    @property
    def bare(self) -> bool:
        """Neither norm nor activation follows: what comes out are raw numbers."""
        return isinstance(self.bn, nn.Identity) and isinstance(self.act, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, out, H', W']."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return self.pool(out) if self.pool else out

    def longest_path(self) -> list[nn.Module]:
        """The convolution and the pool move the receptive field."""
        return [self.conv, self.pool] if self.pool else [self.conv]


class Conv(ConvNormAct):
    """Convolution → norm → activation. BN holds the bias; it replaces dropout (YOLO9000, section 2).

    Args:
        in_channels: One entry.
        out: Output channels.
        kernel: Side of the kernel.
        stride: 2 halves H and W.
        groups: Groups of the convolution (0: depthwise).
        act: A name in `ACTIVATIONS`.
        norm: A name in `NORMS`; with ``none`` the convolution has a bias.
        eps: Added to the variance by the norm.
        dilation: Distance of the kernel's taps: 2 sees as far as a kernel of nearly twice the side.
        padding: Zeros on each side; None: half the kernel, which keeps H and W at stride 1.
        down: What makes the map smaller where ``stride`` is above 1: the convolution's own ``stride``, or a pool
            (``max`` or ``avg``) after it, with the convolution at stride 1 (stride² times its work).

    Raises:
        ValueError: an unknown name.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: str = "silu",
        norm: str = "bn",
        eps: float = 1e-5,
        dilation: int = 1,
        padding: int | None = None,
        down: str = "stride",
    ) -> None:
        if down != "stride" and down not in POOLS:
            raise ValueError(f"down {down!r} is unknown; there are stride, {', '.join(POOLS)}")
        pool = POOLS[down](stride) if down != "stride" and stride > 1 else None
        (cin,) = in_channels
        padding = kernel // 2 * dilation if padding is None else padding
        step, bias = 1 if pool else stride, norm == "none"
        conv = nn.Conv2d(cin, out, kernel, step, padding, dilation, groups or cin, bias)
        super().__init__(conv, act, norm, eps, pool)


class Transposed(ConvNormAct):
    """Transposed convolution → norm → activation: upsampling that is learned, where `Upsample` repeats cells.

    Args:
        in_channels: One entry.
        out: Output channels.
        kernel: Side of the kernel; a multiple of ``stride`` gives every output cell as many taps.
        stride: H and W grow by this factor.
        act: A name in `ACTIVATIONS`.
        norm: A name in `NORMS`; with ``none`` the convolution has a bias.
        eps: Added to the variance by the norm.

    Raises:
        ValueError: a kernel for which no padding gives exactly H · stride.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out: int,
        kernel: int = 4,
        stride: int = 2,
        act: str = "silu",
        norm: str = "bn",
        eps: float = 1e-5,
    ) -> None:
        (cin,) = in_channels
        if kernel < stride or (kernel - stride) % 2:
            raise ValueError(f"kernel {kernel} with stride {stride}: their difference must be even and at least 0")
        conv = nn.ConvTranspose2d(cin, out, kernel, stride, (kernel - stride) // 2, bias=norm == "none")
        super().__init__(conv, act, norm, eps)
