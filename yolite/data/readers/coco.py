"""COCO json: one file for a whole split; boxes as (left, top, width, height) in image px, categories by id."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from yolite import files
from yolite.boxes import xywh_to_xyxy
from yolite.data.images import ImageError, image_size
from yolite.data.problems import Problem, Row, make_sample
from yolite.errors import UserError
from yolite.structures import Sample, Size


def read_annotations(file: Path) -> dict[str, Any]:
    """Load a COCO annotation file.

    Raises:
        UserError: missing, not JSON, or without images and categories.
    """
    content = files.read_json(file)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in keys):
        raise UserError(f"{file} is not a COCO annotation file: it must hold the lists {', '.join(keys)}")
    return content


def category_names(content: dict[str, Any]) -> dict[int, str]:
    """Return {category id: name}, by ascending id."""
    return {int(c["id"]): str(c["name"]) for c in sorted(content["categories"], key=lambda c: int(c["id"]))}


def _row(annotation: dict[str, Any], label_of: dict[int, int], file: Path, problems: list[Problem]) -> Row | None:
    """Read one annotation, or report what is wrong with it and return None."""
    ident = int(annotation.get("id", 0))
    category = annotation.get("category_id")
    if category not in label_of:
        problems.append(Problem(file, ident, "class id", f"category {category} is not in the list", "box left out"))
        return None
    try:
        box = [float(v) for v in annotation["bbox"]]
        x1, y1, x2, y2 = xywh_to_xyxy(torch.tensor(box, dtype=torch.float64)).tolist()
    except (KeyError, TypeError, ValueError):
        problems.append(Problem(file, ident, "field count", "bbox is not four numbers", "box left out"))
        return None
    area = annotation.get("area")
    return Row(
        ident,
        (x1, y1, x2, y2),
        label_of[category],
        iscrowd=bool(annotation.get("iscrowd", 0)),
        difficult=bool(annotation.get("ignore", 0)),
        area=float(area) if area is not None else None,
    )


def _size(record: dict[str, Any], path: Path | None, file: Path, problems: list[Problem]) -> Size | None:
    """Return the image's size: that of the file where there is one, else the one the json states."""
    stated = (int(record.get("height", 0)), int(record.get("width", 0)))
    if path is None:
        return stated
    try:
        actual = image_size(path)
    except ImageError as error:
        problems.append(Problem(path, 0, "unreadable image", str(error), "image left out"))
        return None
    if min(stated) > 0 and actual != stated:
        message = f"{file.name} says {stated[1]}x{stated[0]} px, the file has {actual[1]}x{actual[0]}"
        problems.append(Problem(path, 0, "size differs", message, "boxes taken as px of the file"))
    return actual


def read_coco(
    file: Path, images: Path | None, names: list[str], problems: list[Problem]
) -> tuple[list[Sample], list[int]]:
    """Read the samples of a COCO json.

    Args:
        file: The json.
        images: Folder of the images; None reads boxes alone (``Sample.path`` is None).
        names: The data set's classes; categories are matched to them by name.
        problems: Findings are added here.

    Returns:
        The samples, and the category id of each class (−1 for a name this file lacks).
    """
    content = read_annotations(file)
    categories = category_names(content)
    label_of = {ident: names.index(name) for ident, name in categories.items() if name in names}
    grouped: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        grouped[annotation.get("image_id")].append(annotation)
    samples = []
    for record in content["images"]:
        path = images / str(record["file_name"]) if images is not None else None
        size = _size(record, path, file, problems)
        found = grouped.pop(record["id"], [])
        if size is None:
            continue
        rows = [row for a in found if (row := _row(a, label_of, file, problems)) is not None]
        samples.append(make_sample(path, size, rows, file, record["id"], problems))
    for ident, orphans in grouped.items():
        for annotation in orphans:
            message = f"annotation of image {ident}, which is not in the list"
            problems.append(Problem(file, int(annotation.get("id", 0)), "label without image", message, "box left out"))
    ids = {label: ident for ident, label in label_of.items()}
    return samples, [ids.get(label, -1) for label in range(len(names))]
