"""How detection sees and picks boxes if nothing else is said: shared by the command line and the Predictor.

All other defaults stand in config.py; these are asked for by ``--help``, which must not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable

CONF = 0.25
IOU = 0.5
MAX_DET = 300
OVERLAP = 0.25
"""Share of a tile's side that neighbours have in common."""
IMGSZ_STEP = 32
"""Input sides are multiples of so many px: a network may halve five times, wherever its heads are."""
NMS = ("hard", "agnostic", "soft", "diou", "fusion")
"""What ``--nms`` takes, the default first (`yolite.nms.suppress`)."""


def input_step(strides: Iterable[int]) -> int:
    """Return what the input sides of a network with heads of these strides are multiples of, px."""
    return max(IMGSZ_STEP, *strides)
