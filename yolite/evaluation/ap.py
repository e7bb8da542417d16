"""Average precision of a matching whose images weigh differently, or whose mistakes were mended.

Where nothing is weighed or mended, the judge is pycocotools (`coco.py`); `tests/test_ap.py` holds that both are one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolite.evaluation.match import Bools, Floats, Ints, Matching

RECALLS = np.linspace(0.0, 1.0, 101)
"""COCO's recall levels."""


@dataclass(frozen=True)
class Ranked:
    """The detections (D) of one class in the order in which the metric takes them: best first, of equals the first.

    Those after the last right one are left out: they change no AP.

    Attributes:
        image: [D].
        right, wrong: [T, D]; neither: ignored.
        objects: [G] the image of each object that is to be found.
    """

    image: Ints
    right: Bools
    wrong: Bools
    objects: Ints


def rank(matching: Matching, label: int) -> Ranked:
    """Put one class's detections into order."""
    rows = np.flatnonzero(matching.label == label)
    rows = rows[np.argsort(-matching.score[rows], kind="stable")]
    hit, ignored = matching.match[:, rows] >= 0, matching.ignored[:, rows]
    objects = matching.truth_image[(matching.truth_label == label) & ~matching.truth_ignored]
    right = hit & ~ignored
    last = np.flatnonzero(right.any(0))
    end = int(last[-1]) + 1 if len(last) else 0
    return Ranked(matching.image[rows][:end], right[:, :end], (~hit & ~ignored)[:, :end], objects)


def average_precision(right: Floats, wrong: Floats, objects: float) -> Floats:
    """Return COCO's AP: the mean over 101 recall levels of the best precision at this recall or above.

    Args:
        right: [T, D] the weight (1, or more) of each right detection, 0 elsewhere; best first.
        wrong: [T, D] the same of each wrong one.
        objects: Their number, or the sum of their weights.

    Returns:
        [T], 0 to 1; −1 without objects.
    """
    if objects <= 0:
        return np.full(len(right), -1.0)
    hits, misses = (np.cumsum(part, axis=1, dtype=np.float64) for part in (right, wrong))
    precision = hits / (hits + misses + np.spacing(1))
    best = np.zeros((len(right), right.shape[1] + 1))  # the last: a recall that is not reached
    best[:, :-1] = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / objects
    return np.array([b[np.searchsorted(r, RECALLS, side="left")].mean() for b, r in zip(best, recall, strict=True)])


def class_ap(ranked: Ranked, weights: Floats) -> Floats:
    """Return [T]: the AP of a class at each IoU threshold, −1 without objects.

    Args:
        ranked: Its detections.
        weights: [images] how often each image counts.
    """
    own = weights[ranked.image]
    return average_precision(ranked.right * own, ranked.wrong * own, float(weights[ranked.objects].sum()))


def mean_ap(values: Floats) -> float:
    """Return the mean of the APs of classes that have objects; −1 if none has."""
    there = values[values > -1]
    return float(there.mean()) if len(there) else -1.0
