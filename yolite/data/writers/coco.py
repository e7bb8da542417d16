"""COCO json: one file for a whole split; boxes as (left, top, width, height) in image px, categories by id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yolite.boxes import xyxy_to_xywh
from yolite.structures import Sample

DIGITS = 9
"""Decimals of a width: enough for float32, few enough that 511.72 − 473.07 is written as 38.65."""


def annotations_of(sample: Sample, ident: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the annotations of a sample, without their own ids; VOC's difficult is written as ``ignore``."""
    # by way of text: the shortest decimals that give the same float32
    boxes = torch.from_numpy(sample.boxes.numpy().astype(str).astype(float))
    areas = sample.area.numpy().astype(str).astype(float).tolist()
    found = []
    for i, (x, y, w, h) in enumerate(xyxy_to_xywh(boxes).tolist()):
        found.append({
            "image_id": ident, "category_id": category_ids[int(sample.labels[i])],
            "bbox": [x, y, round(w, DIGITS), round(h, DIGITS)], "area": areas[i], "iscrowd": int(sample.iscrowd[i]),
        } | ({"ignore": 1} if sample.difficult[i] else {}))  # fmt: skip
    return found


def write_coco(
    root: Path,
    role: str,
    files: Sequence[str],
    samples: Sequence[Sample],
    image_ids: Sequence[int | str],
    categories: Mapping[int, str],
) -> dict[str, str]:
    """Write annotations/ROLE.json.

    Args:
        root: Folder of the data set.
        role: Name of the json, and of the folder below images.
        files: Name of each sample's image in images/ROLE.
        samples: What to write.
        image_ids: Id of each sample's image.
        categories: {id: name}, in the order of the labels.

    Returns:
        What plays the role: the image folder and the json.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids = list(categories)
    for file, sample, ident in zip(files, samples, image_ids, strict=True):
        images.append({"id": ident, "file_name": file, "width": sample.size[1], "height": sample.size[0]})
        for annotation in annotations_of(sample, ident, ids):
            annotations.append({"id": len(annotations) + 1, **annotation})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": ident, "name": name} for ident, name in categories.items()],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"{role}.json").write_text(json.dumps(content), encoding="utf-8")
    return {"images": f"images/{role}", "annotations": f"annotations/{role}.json"}
