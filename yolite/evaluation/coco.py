"""COCO's metric, by pycocotools: the judge of every AP that yolite prints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolite.boxes import xywh_to_xyxy, xyxy_to_xywh
from yolite.errors import UserError
from yolite.files import read_json
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


def _check_row(row: Any, path: Path, number: int) -> None:
    """Check the form of one entry of a results file.

    Raises:
        UserError: it lacks something, or holds something of another kind.
    """

    def refuse(what: str) -> UserError:
        return UserError(f"{path}: entry {number} {what}: mend or leave out this entry (they are counted from 0)")

    def is_number(value: Any) -> bool:
        # also keeps out NaN, infinity and what float32 cannot hold
        return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e9 <= value <= 1e9

    if not isinstance(row, dict) or not {"image_id", "category_id", "bbox", "score"} <= row.keys():
        raise refuse("is no detection (image_id, category_id, bbox, score)")
    for key in ("image_id", "category_id"):
        if not isinstance(row[key], (int, float, str)):
            raise refuse(f"has the {key} {row[key]!r}, which is neither a number nor a text")
    if not is_number(row["score"]) or not 0 <= row["score"] <= 1:
        raise refuse(f"has the score {row['score']!r}, which is no number from 0 to 1")
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        raise refuse(f"has the bbox {str(box)[:80]}, which is not [x, y, width, height] in px")


def read_results(path: Path, samples: Sequence[Sample], category_ids: Sequence[int]) -> list[Detections]:
    """Read any tool's COCO results file.

    Args:
        path: JSON list of {image_id, category_id, bbox: [x, y, w, h], score}.
        samples: The truth; image ids must be theirs.
        category_ids: The data set's id of each class.

    Returns:
        One `Detections` a sample, in their order.

    Raises:
        UserError: not a results file, a malformed entry, or an image or category that the truth does not have.
    """
    rows = read_json(path)
    place = {sample.id: n for n, sample in enumerate(samples)}
    label_of = {ident: label for label, ident in enumerate(category_ids)}
    collected: list[list[dict[str, Any]]] = [[] for _ in samples]
    if not isinstance(rows, list):
        raise UserError(f"results {path} are not a list: a COCO results file is a JSON list of detections")
    for number, row in enumerate(rows):
        _check_row(row, path, number)
        if row["image_id"] not in place:
            raise UserError(f"{path}: entry {number} names image {row['image_id']!r}, which the data set does not have")
        if row["category_id"] not in label_of:
            raise UserError(f"{path}: entry {number} names category {row['category_id']!r}, which is not in the data")
        collected[place[row["image_id"]]].append(row)
    out = []
    for sample, own in zip(samples, collected, strict=True):
        own.sort(key=lambda row: -row["score"])
        boxes = torch.tensor([row["bbox"] for row in own], dtype=torch.float64).reshape(-1, 4)
        scores = torch.tensor([row["score"] for row in own], dtype=torch.float32)
        labels = torch.tensor([label_of[row["category_id"]] for row in own], dtype=torch.int64)
        out.append(Detections(xywh_to_xyxy(boxes).float(), scores, labels, sample.size))
    return out
