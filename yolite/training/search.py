"""What `yolite tune` searches: the settings that matter most from one data set to the next, and how far each goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """One searched setting.

    Attributes:
        key: Its dotted key.
        low, high: The least and the greatest value tried.
        log: Draw its logarithm evenly: a factor matters, not a difference.
        why: What it decides.
    """

    key: str
    low: float
    high: float
    log: bool
    why: str


RANGES = (
    Range("train.lr", 0.001, 0.01, True, "how far a step goes"),
    Range("train.weight_decay", 0.005, 0.8, True, "how strongly weights are pulled to zero"),
    Range("loss.box", 2.0, 10.0, True, "how much the place of a box counts"),
    Range("loss.objectness", 0.4, 2.5, True, "how much finding the objects counts"),
    Range("loss.classes", 0.4, 2.5, True, "how much the class counts"),
    Range("loss.assign.ratio", 2.5, 6.0, False, "how unlike its box an anchor may be"),
    Range("augment.mosaic", 0.0, 1.0, False, "how many samples are put together from four pictures"),
    Range("augment.scale", 0.1, 0.8, False, "how far pictures are zoomed"),
)
