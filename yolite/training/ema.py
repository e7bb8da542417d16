"""An exponential moving average of the weights: the network that is evaluated and shipped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Average of a module's whole state (weights and BN statistics).

    The decay ramps up, min(decay, (1 + n) / (10 + n)) after n updates, so that the first, random weights are
    forgotten quickly and short runs profit too.

    Attributes:
        decay: Limit of the decay; 0 makes the average equal the weights.
        updates: Number of updates.
        weights: The averaged state by name.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def current_decay(self) -> float:
        """Return the decay of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step: average ← d · average + (1 − d) · weights; counters are copied."""
        d = self.current_decay()
        self.updates += 1
        state = model.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.weights[k] for k in floats], [state[k] for k in floats], 1 - d)
        for name, value in state.items():
            if not value.is_floating_point():
                self.weights[name].copy_(value)

    def to_plain(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"decay": self.decay, "updates": self.updates, "weights": self.weights}

    def restore(self, plain: dict[str, Any]) -> None:
        """Take over what `to_plain` returned."""
        self.decay, self.updates = plain["decay"], plain["updates"]
        for name, value in self.weights.items():
            value.copy_(plain["weights"][name])
