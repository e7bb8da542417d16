"""The optimiser, which weights it moves and how fast, and the learning rate's course."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from yolite.errors import UserError, nearest
from yolite.training.muon import Muon

TRANSFERS: dict[str, tuple[str, ...]] = {"all": (), "last": ("backbone",), "head": ("backbone", "neck")}
"""What each way of transfer freezes."""


@dataclass(frozen=True)
class Layers:
    """How people speak of the layers of a network: by section, by name, by number.

    Attributes:
        sections: Section (backbone, neck, head) of each layer.
        names: Name of each layer; may be empty.
    """

    sections: Sequence[str]
    names: Sequence[str]

    def matches(self, parameter: str, pattern: str) -> bool:
        """Say whether ``pattern`` (a section, a layer's name, or one such as ``layers.3.*``) means a parameter."""
        short = parameter.removeprefix("graph.")
        number = int(short.split(".")[1])
        return pattern in (self.sections[number], self.names[number] or None) or fnmatchcase(short, pattern)

    def check(self, patterns: Sequence[str], parameters: Sequence[str], setting: str) -> None:
        """Raise UserError for a pattern that means nothing."""
        for pattern in patterns:
            if not any(self.matches(parameter, pattern) for parameter in parameters):
                known = sorted({*self.sections, *filter(None, self.names)})
                raise UserError(
                    f"{setting}: {pattern!r} matches no layer{nearest(pattern, known)}: give one of "
                    f"{', '.join(known)}, or a pattern such as layers.3.* (yolite summary numbers the layers)"
                )


def freeze(model: nn.Module, layers: Layers, transfer: str, patterns: Sequence[str]) -> int:
    """Switch off the gradients of what is not to learn; return how many tensors that are.

    Raises:
        UserError: a pattern that matches nothing, or nothing left that learns.
    """
    names = [name for name, _ in model.named_parameters()]
    layers.check(patterns, names, "train.freeze")
    frozen = [n for n in names if any(layers.matches(n, p) for p in (*TRANSFERS[transfer], *patterns))]
    if len(frozen) == len(names):
        raise UserError("train.freeze: every layer is frozen, nothing is left to learn: leave one out")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return len(frozen)


def train_mode(model: nn.Module, freeze_bn: bool = False) -> None:
    """Put the network into training mode, but keep the BN statistics of frozen layers (or all) as they are."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (freeze_bn or not module.weight.requires_grad):
            module.eval()


def build_optimizer(
    model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float,
    factors: Mapping[str, float] | None = None, layers: Layers | None = None, dtype: torch.dtype = torch.float32,
) -> torch.optim.Optimizer:  # fmt: skip
    """Return an optimiser over the weights that learn.

    Weight decay acts on convolution weights alone, not on BN or biases. Each parameter group has a ``factor`` that its
    learning rate is multiplied by (discriminative learning rates: ULMFiT, arXiv 1801.06146, section 3.2).

    Args:
        model: The network.
        name: sgd (Nesterov), adam, adamw, muon, rmsprop, adagrad or adadelta.
        lr: Learning rate.
        momentum: Momentum of SGD, Muon and RMSprop, beta1 of Adam and AdamW.
        weight_decay: Strength of the decay.
        factors: Factor by section, layer name or pattern; where several match, the last one given counts.
        layers: How the patterns are read; needed where there are factors.
        dtype: What Muon orthogonalises in.
    """
    learning = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    found: dict[str, float] = {}
    if factors and layers:
        found = {n: f for n, _ in learning for pattern, f in factors.items() if layers.matches(n, pattern)}
    # what gives the answers (it has a bias, where other layers have a norm) and depthwise kernels are no maps between
    # many channels: Muon leaves them to AdamW
    biased = {n.removesuffix("bias") + "weight" for n, _ in model.named_parameters() if n.endswith("bias")}
    between = {id(p) for n, p in learning if p.ndim > 1 and p.shape[1] > 1 and n not in biased}
    orthogonal = between if name == "muon" else set()
    groups = []
    for factor in sorted({found.get(n, 1.0) for n, _ in learning}, reverse=True):
        own = [p for n, p in learning if found.get(n, 1.0) == factor]
        for parameters, decay, kind in (
            ([p for p in own if id(p) in orthogonal], weight_decay, True),
            ([p for p in own if p.ndim > 1 and id(p) not in orthogonal], weight_decay, False),
            ([p for p in own if p.ndim <= 1], 0.0, False),
        ):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "factor": factor, "orthogonal": kind})
    if name == "muon":
        return Muon(groups, lr, (momentum, 0.999), dtype)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, momentum=momentum)
    if name == "adagrad":
        return torch.optim.Adagrad(groups, lr=lr)
    if name == "adadelta":
        return torch.optim.Adadelta(groups, lr=lr)
    adam = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return adam(groups, lr=lr, betas=(momentum, 0.999))


def learning_rate(
    step: int, steps: int, warmup: int, peak: float, final: float, schedule: str, milestones: Sequence[float] = ()
) -> float:
    """Return the learning rate of a step: linear from 0 to ``peak`` over ``warmup`` steps, then ``schedule``.

    Args:
        step: From 0.
        steps: Steps of the whole run.
        warmup: Steps of the warm-up.
        peak: Highest rate.
        final: Rate at the end, as a share of the peak (cosine and linear).
        schedule: ``cosine``, ``linear``, ``step`` or ``constant``.
        milestones: Shares of the run after each of which ``step`` divides the rate by ten.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak * 0.1 ** sum(step >= m * steps for m in milestones)
    done = (step - warmup) / max(1, steps - warmup)
    down = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return peak * (final + (1 - final) * down)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all parameter groups, each by its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def restore_optimizer(optimizer: torch.optim.Optimizer, stored: Mapping[str, object]) -> None:
    """Take over the moments of a stored optimiser; rates and decays stay those of the settings."""
    optimizer.load_state_dict({**optimizer.state_dict(), "state": stored["state"]})
