"""COCO's metric, by pycocotools: the judge of every AP that yolite prints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolite.boxes import xyxy_to_xywh
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


def _truth(samples: Sequence[Sample], names: Sequence[str]) -> COCO:
    """Put the samples into pycocotools' form: images numbered from 1, categories from 1; difficult counts as crowd."""
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(samples, 1):
        boxes = xyxy_to_xywh(sample.boxes.double()).tolist()
        for box, label, area, ignore in zip(
            boxes, sample.labels.tolist(), sample.area.tolist(), sample.ignore.tolist(), strict=True
        ):
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": box, "area": area,
                "iscrowd": int(ignore),
            })  # fmt: skip
    truth = COCO()
    truth.dataset = {
        "images": [{"id": n, "height": s.size[0], "width": s.size[1]} for n, s in enumerate(samples, 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }
    truth.createIndex()
    return truth


def _results(detections: Sequence[Detections]) -> np.ndarray:
    """Return pycocotools' result array [N, 7]: image, x, y, w, h, score, category."""
    rows = []
    for number, found in enumerate(detections, 1):
        if len(found):
            image = torch.full((len(found), 1), number, dtype=torch.float64)
            columns = (
                image,
                xyxy_to_xywh(found.boxes.double()),
                found.scores.double()[:, None],
                found.labels.double()[:, None] + 1,
            )
            rows.append(torch.cat(columns, 1))
    return torch.cat(rows).numpy() if rows else np.zeros((0, 7))


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


def coco_metric(samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str]) -> CocoResult:
    """Score detections against the truth.

    Args:
        samples: The truth, image px.
        detections: One a sample, in the same order, at most 100 boxes each count.
        names: Class names.
    """
    if len(samples) != len(detections):
        raise ValueError(f"{len(detections)} detections for {len(samples)} samples")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _truth(samples, names)
        results = _results(detections)
        found = truth.loadRes(results) if len(results) else COCO()
        if not len(results):
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        judge = COCOeval(truth, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    numbers = {name: float(value) for name, value in zip(NUMBERS, judge.stats, strict=True)}
    curves = (judge.eval[key][0, :, :, 0, -1].T for key in ("precision", "scores"))
    return CocoResult(numbers, _per_class(judge, samples, names), len(samples), *curves)
