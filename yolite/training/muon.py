"""Muon: a kernel's momentum is made orthogonal before it moves the weights; AdamW moves everything else.

A step then changes all directions of a kernel's input alike, not mostly the few that the gradient is largest in
(K. Jordan and others, Muon, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

STEPS = ((7.9347, -22.2580, 15.8016), (3.5653, -2.5649, 0.4859), (2.6091, -1.8632, 0.4099))
"""The quintics a·x + b·x³ + c·x⁵, one after another: all singular values from 0.01 to 1 come to between 0.69 and 1.27.
Each has the least largest error on the interval that the one before leaves (Polar Express, arXiv 2505.16932): three do
what takes five of the usual one. They explode beyond that interval, so each is written for x / 1.02: what bfloat16
rounds to above 1 stays inside."""

REACH = 0.8
"""Root mean square of a step at rate 1. 0.2 would be the size of AdamW's (arXiv 2502.16982, section 2.2); kernels that
norms follow bear four times that, and learn faster by it."""


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return nearly U·Vᵀ of each matrix U·S·Vᵀ, by iterations of odd polynomials.

    Args:
        matrices: [N, rows, columns].
        dtype: Of the computation; bfloat16 suffices, as the factor in front of each direction is rough anyway.

    Returns:
        The same shape, float32.
    """
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # in full precision
    x = (x if x.shape[1] <= x.shape[2] else x.mT).to(dtype)
    for a, b, c in STEPS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if matrices.shape[1] <= matrices.shape[2] else x.mT).float()


class Muon(torch.optim.AdamW):
    """Muon for the parameter groups that are marked ``orthogonal``, AdamW for the others.

    Args:
        params: Groups; each has ``orthogonal``. A kernel is taken as a matrix of its first axis by all others.
        lr: Learning rate of both; steps of Muon are larger by `REACH`.
        betas: Of AdamW; the first is also the momentum (Nesterov's) of Muon.
        dtype: See `orthogonalise`.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], dtype: torch.dtype
    ) -> None:
        super().__init__(params, lr=lr, betas=betas)
        self.dtype = dtype

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the weights."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["orthogonal"]:
                self._step_kernels(group)
        return loss

    @torch.no_grad()
    def _step_kernels(self, group: dict[str, Any]) -> None:
        """Move the kernels of a group; those of one shape are computed together."""
        momentum, lr = group["betas"][0], group["lr"]
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:  # AdamW, when it takes a state over, looks for a step in each
                state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
            state["step"] += 1
            mean = state["momentum"]
            mean.lerp_(weight.grad, 1 - momentum)
            direction = weight.grad.lerp(mean, momentum).flatten(1)
            alike.setdefault((direction.shape[0], direction.shape[1]), []).append((weight, direction))
        for (rows, columns), found in alike.items():
            steps = orthogonalise(torch.stack([direction for _, direction in found]), self.dtype)
            for (weight, _), step in zip(found, steps, strict=True):
                weight.mul_(1 - lr * group["weight_decay"])
                weight.sub_(step.view(weight.shape), alpha=REACH * math.sqrt(max(rows, columns)) * lr)
