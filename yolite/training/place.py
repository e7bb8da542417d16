"""Where a run stands: the part of a checkpoint that is neither weights nor optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

CLOCKS = ("seconds", "step_seconds", "wait_seconds")
"""The clock times in a row of metrics: all else in it is the same however often a run was killed and resumed."""


@dataclass
class Place:
    """Where a run stands; all of it goes into the checkpoint.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished inside the current epoch.
        seconds: Time spent so far, over all sittings.
        step_seconds, wait_seconds: Of this epoch's time, inside training steps and waiting for data.
        taken: Steps of this epoch that were taken (all but those that broke down).
        sums: Sums over them: loss parts, positives, gradient norm.
        positives: Positives of each class in this epoch.
        history: One row of metrics an epoch.
        best: Best score so far (the higher the better), and its epoch.
        lr_scale: Factor on the learning rate, halved whenever a step broke down.
        strikes: How often one did.
        broken: How many did since the last one that was taken.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    wait_seconds: float = 0.0
    taken: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    positives: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, int] = (-math.inf, 0)
    lr_scale: float = 1.0
    strikes: int = 0
    broken: int = 0

    def add(self, values: dict[str, float], positives: list[float]) -> None:
        """Take in a step that was taken."""
        self.taken, self.broken = self.taken + 1, 0
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.positives = [a + b for a, b in zip(self.positives or [0.0] * len(positives), positives, strict=True)]
        self.step += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each sum over the steps that were taken."""
        return {name: value / max(1, self.taken) for name, value in self.sums.items()}

    def strike(self) -> None:
        """Take in a step that broke down: half the rate from here on."""
        self.strikes, self.broken, self.lr_scale = self.strikes + 1, self.broken + 1, self.lr_scale / 2

    def finish_epoch(self, row: dict[str, Any], score: float) -> bool:
        """Take in a finished epoch's row and score; return whether it is the best so far."""
        self.epoch, self.step = self.epoch + 1, 0
        self.history.append(row)
        self.sums, self.positives, self.taken = {}, [], 0
        self.step_seconds, self.wait_seconds = 0.0, 0.0
        better = score > self.best[0]
        if better:
            self.best = (score, self.epoch)
        return better

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether the last epoch is over, or early stopping (``patience`` > 0) has ended the run."""
        return self.epoch >= epochs or 0 < patience <= self.epoch - self.best[1]

    def restart_epoch(self) -> None:
        """Go back to the first step of the current epoch."""
        self.step, self.taken, self.sums, self.positives = 0, 0, {}, []

    def to_plain(self) -> dict[str, Any]:
        """Return the place as plain data."""
        return {**self.__dict__, "best": list(self.best)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Place:
        """Read what `to_plain` wrote."""
        return cls(**{**plain, "best": tuple(plain["best"])})
