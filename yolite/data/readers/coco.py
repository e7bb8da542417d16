"""COCO json: one file for a whole split; boxes as (left, top, width, height) in image px, categories by id."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
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


def category_names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return {category id: name}, by ascending id.

    Raises:
        UserError: an entry without a whole-number id or a name, or two with the same one.
    """
    try:
        pairs = sorted((int(c["id"]), str(c["name"])) for c in content["categories"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{file}: every category needs a whole-number id and a name") from None
    for what, column in zip(("id", "name"), zip(*pairs, strict=True), strict=False):
        if twice := [value for value, count in Counter(column).items() if count > 1]:
            raise UserError(f"{file}: two categories have the {what} {twice[0]!r}: give each its own")
    return dict(pairs)


def _ident(annotation: Any) -> int:
    """Return an annotation's id for messages; 0 where it has none that is a whole number."""
    ident = annotation.get("id") if isinstance(annotation, dict) else None
    return ident if isinstance(ident, int) else 0


def _row(
    annotation: dict[str, Any], categories: dict[int, str], names: list[str], file: Path, problems: list[Problem]
) -> Row | None:
    """Read one annotation, or report what is wrong with it and return None."""
    ident, category = _ident(annotation), annotation.get("category_id")
    if not isinstance(category, int) or category not in categories:
        message = f"category {category!r} is not in the list of categories"
        problems.append(Problem(file, ident, "unknown category", message))
        return None
    if categories[category] not in names:
        message = f"class {categories[category]!r} is not one of the data set's classes ({', '.join(names[:4])} ...)"
        problems.append(Problem(file, ident, "unknown class", message))
        return None
    try:
        box = torch.tensor([float(v) for v in annotation["bbox"]], dtype=torch.float64)
        x1, y1, x2, y2 = xywh_to_xyxy(box).tolist()
        stated = annotation.get("area")
        area = None if stated is None else float(stated)
    except (KeyError, TypeError, ValueError, OverflowError):
        message = "bbox is not four numbers, or area is no number"
        problems.append(Problem(file, ident, "not a number", message))
        return None
    # an area that is no area (NaN, negative) would put the box into no size class: the box's own is taken
    usable = area is not None and math.isfinite(area) and area >= 0
    crowd, ignore = annotation.get("iscrowd") in (1, True, "1"), annotation.get("ignore") in (1, True, "1")
    label = names.index(categories[category])
    return Row(ident, (x1, y1, x2, y2), label, crowd, ignore, area if usable else None)


def _size(
    record: dict[str, Any], path: Path | None, need_size: bool, file: Path, problems: list[Problem]
) -> Size | None:
    """Return the image's size: that of the file where there is one, else the one the json states."""
    sides: list[Any] = [record.get("height"), record.get("width")]
    usable = all(isinstance(side, (int, float)) and 1 <= side < 1e9 for side in sides)
    stated = (int(sides[0]), int(sides[1])) if usable else (0, 0)
    if path is None:
        if need_size and not usable:
            message = f"image {record['id']!r} has no width and height, by which its boxes are to be scaled"
            problems.append(Problem(file, 0, "no size", message))
            return None
        return stated
    try:
        actual = image_size(path)
    except ImageError as error:
        problems.append(Problem(path, 0, error.kind, str(error)))
        return None
    if min(stated) > 0 and actual != stated:
        message = f"{file.name} says {stated[1]}x{stated[0]} px, the file has {actual[1]}x{actual[0]}"
        problems.append(Problem(path, 0, "size differs", message))
    return actual


def read_coco(
    file: Path, images: Path | None, names: list[str], problems: list[Problem], need_sizes: bool = True
) -> tuple[list[Sample], list[int]]:
    """Read the samples of a COCO json.

    Args:
        file: The json.
        images: Folder of the images; None reads boxes alone (``Sample.path`` is None).
        names: The data set's classes; categories are matched to them by name.
        problems: Findings are added here.
        need_sizes: Leave out images whose size nobody says; else theirs is (0, 0).

    Returns:
        The samples, and the category id of each class (−1 for a name this file lacks).
    """
    content = read_annotations(file)
    categories = category_names(content, file)
    grouped = _by_image(content["annotations"], file, problems)
    seen: set[int | str] = set()
    samples = []
    for record in content["images"]:
        if not isinstance(record, dict) or not isinstance(record.get("id"), (int, str)) or "file_name" not in record:
            message = f"image entry {str(record)[:60]!r} lacks an id or a file_name"
            problems.append(Problem(file, 0, "image entry", message))
            continue
        if record["id"] in seen:
            message = f"image {str(record['file_name'])!r} has the id {record['id']!r} of an image before it"
            problems.append(Problem(file, 0, "duplicate image id", message))
            continue
        seen.add(record["id"])
        path = images / str(record["file_name"]) if images is not None else None
        size = _size(record, path, need_sizes, file, problems)
        found = grouped.pop(record["id"], [])
        if size is None:
            continue
        rows = [row for a in found if (row := _row(a, categories, names, file, problems)) is not None]
        samples.append(make_sample(path, size, rows, file, record["id"], problems))
    for ident, orphans in grouped.items():
        for annotation in orphans:
            message = f"annotation of image {ident!r}, which is not in the list of images"
            problems.append(Problem(file, _ident(annotation), "label without image", message))
    ids = {name: ident for ident, name in categories.items()}
    return samples, [ids.get(name, -1) for name in names]


def _by_image(annotations: list[Any], file: Path, problems: list[Problem]) -> dict[Any, list[dict[str, Any]]]:
    """Group annotations by image id, reporting entries that are none."""
    grouped: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    seen: set[int] = set()
    for annotation in annotations:
        ident = _ident(annotation)
        if ident and ident in seen:
            problems.append(Problem(file, ident, "duplicate annotation id", f"two annotations have the id {ident}"))
        seen.add(ident)
        if isinstance(annotation, dict) and isinstance(annotation.get("image_id"), (int, str)):
            grouped[annotation["image_id"]].append(annotation)
        else:
            message = f"annotation {str(annotation)[:60]!r} names no image"
            problems.append(Problem(file, ident, "annotation entry", message))
    return grouped


_READ = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore"},
    "categories": {"id", "name"},
}


def unread_keys(file: Path) -> Counter[str]:
    """Count what a json holds besides boxes (masks, key points, licences …), by key."""
    content = read_annotations(file)
    found = Counter(key for key in content if key not in _READ)
    for kind, read in _READ.items():
        for entry in content[kind]:
            if isinstance(entry, dict):
                found.update(key for key, value in entry.items() if key not in read and value not in (None, "", [], {}))
    return found
