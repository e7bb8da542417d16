"""What a confidence threshold does: precision, recall and F over it, the one to deploy, confusion, calibration.

Everything is read off one `Matching` (one IoU, one maxDets). A box is shown when its score is above the confidence, as
in `yolite.postprocess`; the confidences tried are 0.000, 0.001 … 0.999, so a number given for 0.387 is that of
`yolite detect --conf 0.387`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolite.evaluation.coco import CocoResult
from yolite.evaluation.match import Bools, Floats, Ints, Matching

CONFIDENCES: Floats = (np.arange(1000) / 1000).astype(np.float32).astype(np.float64)
"""[C] as float32, which scores are."""
BINS = 10
"""Classes of confidence in the reliability diagram."""
CALIBRATED_FROM = 0.05
"""Confidence from which boxes are asked whether their score is the share of right ones: below are mostly the boxes that
the metric asks for and nobody sees, so many that they would be all there is to the mean."""
FREQUENCIES = {"rare": (1, 9), "common": (10, 99), "frequent": (100, None)}
"""Groups of classes by their objects in the judged split."""


@dataclass(frozen=True)
class Point:
    """What is shown above one confidence.

    Attributes:
        confidence: The threshold.
        right, wrong, missed: Boxes that found an object, boxes that did not, objects without a box.
        beta: Of F: recall counts so many times as much as precision.
    """

    confidence: float
    right: int
    wrong: int
    missed: int
    beta: float

    @property
    def precision(self) -> float | None:
        """Share of the boxes shown that are right; None if none is shown."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None

    @property
    def recall(self) -> float | None:
        """Share of the objects that are found; None without objects."""
        return self.right / (self.right + self.missed) if self.right + self.missed else None

    @property
    def f(self) -> float:
        """F-beta: (1 + β²) P R / (β² P + R)."""
        return float(f_score(np.array([self.right]), np.array([self.wrong]), np.array([self.missed]), self.beta)[0])


def f_score(right: Ints, wrong: Ints, missed: Ints, beta: float) -> Floats:
    """Return F-beta of counts: (1 + β²) TP / ((1 + β²) TP + β² FN + FP); 0 where all are 0."""
    top = (1 + beta**2) * right
    return np.asarray(top / np.maximum(top + beta**2 * missed + wrong, 1e-12), np.float64)


@dataclass(frozen=True)
class Curves:
    """Counts over `CONFIDENCES` (C), by class (K).

    Attributes:
        right, wrong: [K, C] boxes shown.
        objects: [K].
    """

    right: Ints
    wrong: Ints
    objects: Ints

    def of(self, label: int | None) -> tuple[Ints, Ints, int]:
        """Return right [C], wrong [C] and objects of a class, or of all boxes together (None)."""
        if label is None:
            return self.right.sum(0), self.wrong.sum(0), int(self.objects.sum())
        return self.right[label], self.wrong[label], int(self.objects[label])

    def at(self, label: int | None, place: int, beta: float = 1.0) -> Point:
        """Return what is shown above ``CONFIDENCES[place]``."""
        right, wrong, objects = self.of(label)
        n = int(right[place])
        return Point(place / len(CONFIDENCES), n, int(wrong[place]), objects - n, beta)


def _shown(scores: Floats) -> Ints:
    """Return [C]: how many scores are above each confidence."""
    return (len(scores) - np.searchsorted(np.sort(scores), CONFIDENCES, side="right")).astype(np.int64)


def curves(matching: Matching) -> Curves:
    """Count right and wrong boxes over the confidence."""
    labels = range(len(matching.names))
    right, wrong = (
        np.array([_shown(matching.score[kind & (matching.label == k)]) for k in labels]).reshape(-1, len(CONFIDENCES))
        for kind in (matching.right(), matching.wrong())
    )
    return Curves(right, wrong, matching.objects())


def deploy(found: Curves, label: int | None, beta: float = 1.0, precision: float | None = None) -> Point | None:
    """Choose the confidence to deploy.

    Args:
        found: The counts.
        label: A class, or None for all boxes together.
        beta: Without a wanted precision: the confidence of the highest F-beta, the middle of it where it is flat.
        precision: The lowest confidence whose precision reaches this, that is, the most objects found.

    Returns:
        None where no box is right, or the precision is never reached.
    """
    right, wrong, objects = found.of(label)
    if not right.any():
        return None
    if precision is None:
        f = f_score(right, wrong, objects - right, beta)
        first = int(f.argmax())
        flat = np.flatnonzero(f[first:] < f[first])
        return found.at(label, first + (int(flat[0]) if len(flat) else len(f) - first) // 2, beta)
    good = np.flatnonzero((right > 0) & (right >= precision * (right + wrong)))
    return found.at(label, int(good[0]), beta) if len(good) else None


def shown(matching: Matching, confidence: float) -> Bools:
    """Return [D]: which boxes are above a confidence."""
    return matching.score > np.float64(np.float32(confidence))


def confusion(matching: Matching, confidence: float) -> Ints:
    """Return [K + 1, K + 1]: objects (rows) by the class of the box that found them (columns); the last is background.

    On the diagonal are the right boxes. What is left is paired across classes, the highest score first, each box with
    the nearest object left, from the IoU of the matching on. Boxes still alone are in the last row (false alarms),
    objects in the last column (missed). A row adds up to the objects of a class, a column to its boxes.
    """
    classes = len(matching.names)
    table = np.zeros((classes + 1, classes + 1), np.int64)
    seen = shown(matching, confidence)
    right = matching.right() & seen
    np.add.at(table, (matching.label[right], matching.label[right]), 1)
    left_boxes, left_objects = matching.wrong() & seen, ~matching.truth_ignored
    left_objects[matching.match[0][right]] = False
    near = matching.near
    usable = left_boxes[near.detection] & left_objects[near.object] & (near.iou >= matching.iou[0])
    rows = np.flatnonzero(usable & (matching.label[near.detection] != matching.truth_label[near.object]))
    for row in rows[np.lexsort((-near.iou[rows], -matching.score[near.detection[rows]]))].tolist():
        box, thing = near.detection[row], near.object[row]
        if left_boxes[box] and left_objects[thing]:
            left_boxes[box] = left_objects[thing] = False
            table[matching.truth_label[thing], matching.label[box]] += 1
    np.add.at(table[-1], matching.label[left_boxes], 1)
    np.add.at(table[:, -1], matching.truth_label[left_objects], 1)
    return table


@dataclass(frozen=True)
class Calibration:
    """Whether a score of 0.8 means that 8 of 10 boxes are right.

    Attributes:
        boxes: [BINS] boxes above `CALIBRATED_FROM` with a score in each tenth.
        score: [BINS] their mean score, 0 where there is none.
        right: [BINS] the share of right ones, 0 where there is none.
        error: Expected calibration error: mean over the boxes of |score − right| of their tenth; None without boxes.
    """

    boxes: Ints
    score: Floats
    right: Floats
    error: float | None


def calibration(matching: Matching) -> Calibration:
    """Compare scores with the share of right boxes (Naeini et al. 2015; Guo et al., arXiv 1706.04599, eq. 3)."""
    rows = (matching.score > CALIBRATED_FROM) & ~matching.ignored[0]
    score, right = matching.score[rows], matching.right()[rows]
    place = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    boxes = np.bincount(place, minlength=BINS)
    some = np.maximum(boxes, 1)
    mean, share = np.bincount(place, score, BINS) / some, np.bincount(place, right, BINS) / some
    error = float((boxes * np.abs(mean - share)).sum() / len(score)) if len(score) else None
    return Calibration(boxes.astype(np.int64), mean, share, error)


@dataclass(frozen=True)
class Group:
    """Classes of like frequency; AP and AP50 are the means of pycocotools' own by class."""

    name: str
    least: int
    most: int | None
    classes: int
    objects: int
    AP: float
    AP50: float


def by_frequency(result: CocoResult) -> list[Group]:
    """Return the AP of rare, common and frequent classes; groups without a class are left out."""
    out = []
    for name, (least, most) in FREQUENCIES.items():
        own = [c for c in result.per_class if least <= c.objects <= (most or c.objects)]
        if own:
            out.append(Group(name, least, most, len(own), sum(c.objects for c in own),
                             _mean([c.AP for c in own]), _mean([c.AP50 for c in own])))  # fmt: skip
    return out


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
