"""The optimiser and the learning rate's course."""

from __future__ import annotations

import math

import torch
from torch import nn


def build_optimizer(
    model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return SGD (Nesterov) or AdamW; weight decay acts on convolution weights alone, not on BN or biases."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999))


def learning_rate(step: int, steps: int, warmup: int, peak: float, final: float, schedule: str) -> float:
    """Return the learning rate of a step: linear from 0 to ``peak`` over ``warmup`` steps, then ``schedule``.

    Args:
        step: From 0.
        steps: Steps of the whole run.
        warmup: Steps of the warm-up.
        peak: Highest rate.
        final: Rate at the end, as a share of the peak.
        schedule: ``cosine``, ``linear`` or ``constant``.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "constant":
        return peak
    down = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return peak * (final + (1 - final) * down)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
