"""Files in COCO's form: detections by image and category id, and the worst pictures for a labelling tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolite.boxes import xywh_to_xyxy, xyxy_to_xywh
from yolite.errors import UserError
from yolite.evaluation.worst import Picture
from yolite.files import read_json
from yolite.structures import Detections, Sample

_NEEDED = {"image_id", "category_id", "bbox", "score"}


def _is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a number that float32 can hold well; this keeps out NaN and infinity."""
    return type(value) in (float, int) and -1e9 <= value <= 1e9  # the type of true is another


def _fault(row: Any) -> str | None:
    """Return what is wrong with the form of one entry of a results file; None if nothing is."""
    if not isinstance(row, dict) or not _NEEDED <= row.keys():
        return "is no detection (image_id, category_id, bbox, score)"
    for key in ("image_id", "category_id"):
        if not isinstance(row[key], (int, float, str)):
            return f"has the {key} {row[key]!r}, which is neither a number nor a text"
    box, score = row["bbox"], row["score"]
    if not _is_number(score) or not 0 <= score <= 1:
        return f"has the score {score!r}, which is no number from 0 to 1"
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or box[2] < 0 or box[3] < 0:
        return f"has the bbox {str(box)[:80]}, which is not [x, y, width, height] in px"
    return None


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
    require_ids(samples, str(path))
    place = {sample.id: n for n, sample in enumerate(samples)}
    label_of = {ident: label for label, ident in enumerate(category_ids)}
    if not isinstance(rows, list):
        raise UserError(f"results {path} are not a list: a COCO results file is a JSON list of detections")
    for number, row in enumerate(rows):
        if fault := _fault(row):
            raise UserError(f"{path}: entry {number} {fault}: mend or leave out this entry (they are counted from 0)")
        if row["image_id"] not in place:
            raise UserError(f"{path}: entry {number} names image {row['image_id']!r}, which the data set does not have")
        if row["category_id"] not in label_of:
            raise UserError(f"{path}: entry {number} names category {row['category_id']!r}, which is not in the data")
    image = np.array([place[row["image_id"]] for row in rows], np.int64)
    score = np.array([row["score"] for row in rows], np.float64)
    order = np.lexsort((-score, image))  # stable: of equal scores the first
    stated = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes = xywh_to_xyxy(torch.from_numpy(stated[order])).float()
    labels = torch.from_numpy(np.array([label_of[row["category_id"]] for row in rows], np.int64)[order])
    count = np.bincount(image, minlength=len(samples)).tolist()
    parts = zip(
        boxes.split(count), torch.from_numpy(score[order]).float().split(count), labels.split(count), strict=True
    )
    return [Detections(*own, size=sample.size) for sample, own in zip(samples, parts, strict=True)]


def require_ids(samples: Sequence[Sample], who: str) -> None:
    """Refuse a data set in which an id does not tell which image is meant.

    Raises:
        UserError: two images have one id (files of one name in different folders).
    """
    twice = [ident for ident, count in Counter(sample.id for sample in samples).items() if count > 1]
    if twice:
        raise UserError(f"{who}: {len(twice)} image ids of the data stand for several images (first: {twice[0]!r}): "
                        "give the files different names, or a COCO json with ids")  # fmt: skip


def _shortest(values: Tensor) -> list[Any]:
    """Return float32 numbers as the shortest decimals that give the same float32."""
    plain: list[Any] = values.numpy().astype(str).astype(float).tolist()
    return plain


def _xywh(boxes: Tensor) -> list[list[float]]:
    """Return COCO boxes of xyxy ones; read back they are the same float32."""
    exact = torch.tensor(_shortest(boxes), dtype=torch.float64).reshape(-1, 4)
    return [[x, y, round(w, 9), round(h, 9)] for x, y, w, h in xyxy_to_xywh(exact).tolist()]


def results_rows(
    samples: Sequence[Sample], detections: Sequence[Detections], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return detections as a COCO results file holds them; `read_results` gives the same detections back.

    Args:
        samples: The images; theirs are the ids.
        detections: One a sample, in the same order.
        category_ids: The data set's id of each class.

    Raises:
        UserError: ids of images that are not unique.
    """
    require_ids(samples, "detections cannot be written")
    return [
        {"image_id": sample.id, "category_id": category_ids[label], "bbox": box, "score": score}
        for sample, found in zip(samples, detections, strict=True)
        for box, score, label in zip(_xywh(found.boxes), _shortest(found.scores), found.labels.tolist(), strict=True)
    ]


def worst_file(
    samples: Sequence[Sample], pictures: Sequence[Picture], names: Sequence[str], category_ids: Sequence[int],
    info: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return the worst pictures as a COCO json: the images by rank, what is wrong in them as annotations.

    An annotation has, besides COCO's keys, ``kind`` (missed, false alarm), ``error`` (TIDE's), ``doubt`` (a label that
    may be wrong) and ``score`` (null: none). Labelling tools read it as suggestions, ``yolite detect`` as a list of
    pictures.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for rank, picture in enumerate(pictures, 1):
        sample = samples[picture.image]
        images.append({
            "id": rank, "file_name": str(sample.path.absolute() if sample.path else sample.id),
            "height": sample.size[0], "width": sample.size[1], "source_id": sample.id, "rank": rank,
            "badness": round(picture.badness, 3), "missed": picture.count("missed"),
            "false_alarms": picture.count("false alarm"),
        })  # fmt: skip
        boxes = _xywh(torch.tensor([f.box for f in picture.findings]))
        for finding, box in zip(picture.findings, boxes, strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": rank, "category_id": category_ids[finding.label], "bbox": box,
                "area": round(box[2] * box[3], 3), "iscrowd": 0, "kind": finding.kind, "error": finding.error,
                "doubt": finding.doubt, "score": finding.score,
            })  # fmt: skip
    categories = [{"id": ident, "name": name} for ident, name in zip(category_ids, names, strict=True) if ident >= 0]
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}
