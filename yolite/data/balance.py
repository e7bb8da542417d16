"""Which pictures an epoch shows, and how often: rare classes more often, background less.

Every picture has a weight, the number of times an epoch shows it on average. An epoch's draw gives each picture its
weight rounded down or up, at random, and always the same number of pictures in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from yolite.structures import Sample

Balance = Literal["off", "classes"] | float


def _counts(samples: Sequence[Sample], classes: int) -> np.ndarray:
    """Return how many boxes of each class [N, classes] each picture has; ignored boxes do not count."""
    labels = [s.labels[~s.ignore].numpy() for s in samples]
    return np.stack([np.bincount(own, minlength=classes) for own in labels])


def image_weights(samples: Sequence[Sample], classes: int, balance: Balance, background: float) -> np.ndarray | None:
    """Return how often an epoch shows each picture [N], or None where that is once.

    Args:
        samples: The training pictures.
        classes: Number of classes.
        balance: A number t: repeat factors (LVIS, arXiv 1908.03195): a class that is
            on a share f of the pictures wants max(1, sqrt(t / f)) times, a picture gets the most that one of its
            classes wants. ``classes``: every class is drawn equally often, then a picture that has it; there are as
            many draws as pictures with boxes.
        background: Share of the pictures without any box that an epoch shows.
    """
    if balance == "off" and background == 1:
        return None
    has = _counts(samples, classes) > 0
    images = has.sum(0)
    if balance == "classes":
        wanted = has.any(1).sum() / max(1, (images > 0).sum()) / np.maximum(1, images)
        weights = np.where(has, wanted, 0).sum(1)
        weights[~has.any(1)] = 1.0  # ignored boxes alone, or none
    else:
        t = 0.0 if balance == "off" else float(balance)
        factors = np.maximum(1, np.sqrt(t * len(samples) / np.maximum(1, images)))
        weights = np.where(has, factors, 1).max(1)
    empty = np.array([len(s.boxes) == 0 for s in samples])
    weights[empty] = background
    return None if (weights == 1).all() else np.asarray(weights, np.float64)


def epoch_size(weights: np.ndarray) -> int:
    """Return how many pictures every epoch shows."""
    return max(1, round(float(weights.sum())))


def draw_epoch(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the pictures of an epoch in the order they are shown.

    Picture i for the k-th time (from 0) is ``i + k · len(weights)``, so that each showing has draws of its own.
    """
    total, order = epoch_size(weights), rng.permutation(len(weights))
    # evenly spaced ticks along a line made of all weights, one after another
    ends = np.cumsum(weights[order]) * (total / weights.sum())
    ticks = np.arange(total) + rng.random()
    last = np.flatnonzero(weights[order])[-1]  # rounding shall not lead past the end, nor onto a weight of 0
    place = np.minimum(np.searchsorted(ends, ticks, side="right"), last)
    times = np.arange(total) - np.searchsorted(place, place)
    shown = order[place] + times * len(weights)
    return rng.permutation(shown)


def boxes_seen(samples: Sequence[Sample], classes: int, weights: np.ndarray | None) -> list[float]:
    """Return how many boxes of each class an epoch shows, on average."""
    counts = _counts(samples, classes)
    seen = counts.sum(0) if weights is None else (weights * (epoch_size(weights) / weights.sum())) @ counts
    return [float(n) for n in seen]
