"""Average precision of a matching, also where images weigh differently or mistakes were mended.

It is pycocotools' rule (`COCOeval.accumulate`); `tests/test_coco.py` holds the numbers equal to the bit.
"""

from __future__ import annotations

import itertools
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
        image, score: [D].
        right, wrong: [T, D]; neither: ignored.
        objects: [G] the image of each object that is to be found.
    """

    image: Ints
    score: Floats
    right: Bools
    wrong: Bools
    objects: Ints


def ranks(matching: Matching) -> list[Ranked]:
    """Put the detections of each class into order; one entry a class."""
    order = np.lexsort((-matching.score, matching.label))  # stable
    label = matching.label[order]
    right = np.any((matching.match >= 0) & ~matching.ignored, axis=0)[order]
    last = np.full(len(matching.names), -1)
    np.maximum.at(last, label[right], np.flatnonzero(right))
    order = order[np.arange(len(order)) <= last[label]]
    hit, ignored = matching.match[:, order] >= 0, matching.ignored[:, order]
    image, score = matching.image[order], matching.score[order]
    cuts = np.searchsorted(matching.label[order], np.arange(len(matching.names) + 1))
    out = []
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        part = slice(start, end)
        objects = matching.truth_image[(matching.truth_label == number) & ~matching.truth_ignored]
        right, wrong = (found[:, part] & ~ignored[:, part] for found in (hit, ~hit))
        out.append(Ranked(image[part], score[part], right, wrong, objects))
    return out


def precision_at(right: Floats | Bools, wrong: Floats | Bools, objects: float) -> tuple[Floats, Ints]:
    """Return what COCO's AP is the mean of: the best precision at each of 101 recall levels (R) or above.

    Args:
        right: [T, D] the weight (1, or more) of each right detection, 0 elsewhere; best first.
        wrong: [T, D] the same of each wrong one.
        objects: Their number, or the sum of their weights; above 0.

    Returns:
        Precision [T, R], 0 where the recall is not reached, and the detection [T, R] that reaches it, D: none does.
    """
    hits, misses = (np.cumsum(part, axis=1, dtype=np.float64) for part in (right, wrong))
    precision = hits / (hits + misses + np.spacing(1))
    best = np.zeros((len(right), right.shape[1] + 1))  # the last: a recall that is not reached
    best[:, :-1] = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    place = np.array([np.searchsorted(recall, RECALLS, side="left") for recall in hits / objects])
    return np.take_along_axis(best, place, 1), place


def average_precision(right: Floats, wrong: Floats, objects: float) -> Floats:
    """Return COCO's AP: the mean over 101 recall levels of the best precision at this recall or above.

    Args:
        right: [T, D] the weight (1, or more) of each right detection, 0 elsewhere; best first.
        wrong: [T, D] the same of each wrong one.
        objects: Their number, or the sum of their weights.

    Returns:
        [T], 0 to 1; −1 without objects.
    """
    return precision_at(right, wrong, objects)[0].mean(1) if objects > 0 else np.full(len(right), -1.0)


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
