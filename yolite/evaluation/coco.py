"""COCO's metric: pycocotools' thresholds, sizes and summary; the work between is that of `match` and `ap`.

pycocotools is the judge: its own `evaluate` and `accumulate`, loops in Python, give the same bits in many times the
seconds (`tests/test_coco.py`, docs/benchmarks.md).
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pycocotools.cocoeval import COCOeval

from yolite.evaluation.ap import precision_at, ranks
from yolite.evaluation.match import match_sizes, place_in_class
from yolite.structures import Detections, Sample

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The 12 numbers in pycocotools' order; −1 where there is nothing to measure."""


@dataclass(frozen=True)
class ClassResult:
    """The metric of one class; −1 where the truth has no such object (APs, APm, APl: none of this size)."""

    name: str
    AP: float
    AP50: float
    objects: int
    APs: float
    APm: float
    APl: float


@dataclass(frozen=True)
class CocoResult:
    """The metric of a split.

    Attributes:
        numbers: The 12 numbers by name.
        per_class: One entry a class.
        images: Number of images judged.
        precision: [classes, 101] the best precision at IoU 0.5 from each recall on (0, 0.01 … 1); −1 without objects.
        confidence: [classes, 101] the score of the box with which that recall is reached; 0 where it is not.
    """

    numbers: dict[str, float]
    per_class: list[ClassResult]
    images: int
    precision: np.ndarray
    confidence: np.ndarray


def _per_class(judge: COCOeval, samples: Sequence[Sample], names: Sequence[str]) -> list[ClassResult]:
    """Read each class's AP from the precision array [IoU, recall, class, area, maxDets]."""
    labels = torch.cat([s.labels[~s.ignore] for s in samples]) if samples else torch.zeros(0, dtype=torch.int64)
    objects = torch.bincount(labels, minlength=len(names)).tolist()
    out = []
    for index, name in enumerate(names):
        precision = judge.eval["precision"][:, :, index, :, -1]  # the last: all sizes, small, medium, large
        ap, ap50, *sizes = (
            float(p[p > -1].mean()) if (p > -1).any() else -1.0
            for p in (precision[..., 0], precision[0, :, 0], *(precision[..., size] for size in (1, 2, 3)))
        )
        out.append(ClassResult(name, ap, ap50, objects[index], *sizes))
    return out


def _accumulate(judge: COCOeval, samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str]
                ) -> None:  # fmt: skip
    """Give the judge what its summary is read off: what its `evaluate` and `accumulate` would give it.

    The arrays are [IoU, recall, class, area, maxDets], the recall without the second; −1 stands for no object, and for
    what the summary does not read (the precision at fewer boxes than the most).
    """
    p = judge.params
    shape = len(p.iouThrs), len(p.recThrs), len(names), len(p.areaRng), len(p.maxDets)
    precision, scores = np.full(shape, -1.0), np.full(shape, -1.0)
    recall = np.full((shape[0], *shape[2:]), -1.0)
    spans = [(float(low), float(high)) for low, high in p.areaRng]
    for size, matching in enumerate(match_sizes(samples, detections, names, spans, p.iouThrs, p.maxDets[-1])):
        objects = matching.objects()
        place = place_in_class(matching.image * len(names) + matching.label)
        for t, most in itertools.product(range(shape[0]), range(shape[-1])):
            right = np.bincount(matching.label[matching.right(t) & (place < p.maxDets[most])], minlength=len(names))
            recall[t, :, size, most] = np.where(objects > 0, right / np.maximum(objects, 1), -1.0)
        for label, ranked in enumerate(ranks(matching)):
            if objects[label]:
                best, reached_by = precision_at(ranked.right, ranked.wrong, objects[label])
                precision[:, :, label, size, -1] = best
                scores[:, :, label, size, -1] = np.append(ranked.score, 0.0)[reached_by]
    judge.eval = {"params": p, "precision": precision, "recall": recall, "scores": scores}


def coco_metric(samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str]) -> CocoResult:
    """Score detections against the truth.

    Args:
        samples: The truth, image px.
        detections: One a sample, in the same order, at most 100 boxes of a class and image count.
        names: Class names.

    Raises:
        ValueError: not as many detections as samples.
    """
    judge = COCOeval(iouType="bbox")
    _accumulate(judge, samples, detections, names)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.summarize()
    numbers = {name: float(value) for name, value in zip(NUMBERS, judge.stats, strict=True)}
    curves = (judge.eval[key][0, :, :, 0, -1].T for key in ("precision", "scores"))
    return CocoResult(numbers, _per_class(judge, samples, names), len(samples), *curves)
