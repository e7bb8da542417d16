"""COCO json: one file for a whole split; boxes as (left, top, width, height) in image px, categories by id."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TypeGuard

import torch

from yolite import files
from yolite.boxes import xywh_to_xyxy
from yolite.data.images import ImageError, image_size
from yolite.data.problems import Problem, Row, make_sample
from yolite.errors import UserError
from yolite.structures import Sample, Size

_MOST_AREA = 1e18
"""px²: of an image whose size nobody says."""


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


def _shown(value: Any) -> str:
    """Return a value for a message."""
    try:
        text = repr(value)
    except RecursionError:
        return "nested too deep to be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value is a number; Python counts true and false among them, too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_ident(value: Any) -> TypeGuard[int | str]:
    """Return whether a value can be the id of an image or annotation: a whole number or text."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def category_names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return {category id: name}, by ascending id.

    Raises:
        UserError: an entry without a whole-number id or a name, or two with the same one.
    """
    pairs = []
    for entry in content["categories"]:
        ident = entry.get("id") if isinstance(entry, dict) else None
        if not _is_number(ident) or ident % 1 != 0 or "name" not in entry:
            raise UserError(f"{file}: every category needs a whole-number id and a name, not {_shown(entry)}")
        pairs.append((int(ident), str(entry["name"])))
    pairs.sort()
    for what, column in zip(("id", "name"), zip(*pairs, strict=True), strict=False):
        if twice := [value for value, count in Counter(column).items() if count > 1]:
            raise UserError(f"{file}: two categories have the {what} {twice[0]!r}: give each its own")
    return dict(pairs)


def _report(annotation: Any, kind: str, message: str, file: Path, problems: list[Problem]) -> None:
    """Report an annotation at its id; one that is no whole number from 1 on is named in the message."""
    ident = annotation.get("id") if isinstance(annotation, dict) else None
    line = _line(annotation)
    where = "" if line > 0 else f" (annotation {'without id' if ident is None else 'id ' + _shown(ident)})"
    problems.append(Problem(file, line, kind, message + where))


def _line(annotation: Any) -> int:
    """Return an annotation's id for `Problem.line`; 0 where it has none that is a whole number from 1 on."""
    ident = annotation.get("id") if isinstance(annotation, dict) else None
    return ident if isinstance(ident, int) and not isinstance(ident, bool) and ident > 0 else 0


def _box(stated: Any) -> tuple[tuple[float, float, float, float] | None, str]:
    """Return a ``bbox`` as xyxy in image px; or None, and the kind of finding that it is."""
    if not isinstance(stated, list) or len(stated) != 4:
        return None, "field count"
    if not all(map(_is_number, stated)):
        return None, "not a number"
    try:
        x1, y1, x2, y2 = xywh_to_xyxy(torch.tensor([float(v) for v in stated], dtype=torch.float64)).tolist()
    except OverflowError:  # a whole number of hundreds of digits
        return None, "not finite"
    return (x1, y1, x2, y2), ""


def _area(annotation: dict[str, Any], size: Size, file: Path, problems: list[Problem]) -> float | None:
    """Return the stated area in px²; None (reported, where there is one) if it cannot be that of anything."""
    stated = annotation.get("area")
    most = size[0] * size[1] or _MOST_AREA
    if stated is None or (_is_number(stated) and 0 <= stated <= most):
        return None if stated is None else float(stated)
    # one that is no area would put the box into a wrong class of size, or into none
    _report(annotation, "area", f"area {_shown(stated)} is no number from 0 to {most:g}", file, problems)
    return None


def _flag(annotation: dict[str, Any], name: str, file: Path, problems: list[Problem]) -> bool:
    """Return whether ``iscrowd`` or ``ignore`` is set; what is neither 0 nor 1 is reported."""
    stated = annotation.get(name)
    if stated not in (None, 0, 1, "0", "1"):
        _report(annotation, "flag", f"{name} {_shown(stated)} is neither 0 nor 1", file, problems)
    return stated in (1, "1")


def _row(
    annotation: dict[str, Any], categories: dict[int, str], names: list[str], size: Size, file: Path,
    problems: list[Problem],
) -> Row | None:  # fmt: skip
    """Read one annotation, or report what is wrong with it and return None."""
    category = annotation.get("category_id")
    if not _is_number(category) or category not in categories:
        message = f"category {_shown(category)} is not in the list of categories"
        _report(annotation, "unknown category", message, file, problems)
        return None
    name = categories[int(category)]
    if name not in names:
        message = f"class {name!r} is not one of the data set's classes ({', '.join(names[:4])} ...)"
        _report(annotation, "unknown class", message, file, problems)
        return None
    box, kind = _box(annotation.get("bbox"))
    if box is None:
        _report(annotation, kind, f"bbox {_shown(annotation.get('bbox'))} is not four numbers", file, problems)
        return None
    crowd, ignore = (_flag(annotation, key, file, problems) for key in ("iscrowd", "ignore"))
    return Row(_line(annotation), box, names.index(name), crowd, ignore, _area(annotation, size, file, problems))


def _size(
    record: dict[str, Any], path: Path | None, need_size: bool, file: Path, problems: list[Problem]
) -> Size | None:
    """Return the image's size: that of the file where there is one, else the one the json states."""
    sides: list[Any] = [record.get("height"), record.get("width")]
    usable = all(_is_number(side) and 1 <= side < 1e9 for side in sides)
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
    if not usable:
        sides_said = f"width {_shown(record.get('width'))}, height {_shown(record.get('height'))}"
        problems.append(Problem(path, 0, "no stated size", f"{file.name} gives it {sides_said}"))
    if min(stated) > 0 and actual != stated:
        message = f"{file.name} says {stated[1]}x{stated[0]} px, the file has {actual[1]}x{actual[0]}"
        problems.append(Problem(path, 0, "size differs", message))
    return actual


def read_coco(
    file: Path, images: Path | None, names: list[str], problems: list[Problem], unread: Counter[str],
    need_sizes: bool = True,
) -> tuple[list[Sample], list[int]]:  # fmt: skip
    """Read the samples of a COCO json.

    Args:
        file: The json.
        images: Folder of the images; None reads boxes alone (``Sample.path`` is None).
        names: The data set's classes; categories are matched to them by name.
        problems: Findings are added here.
        unread: What the json holds besides boxes (masks, key points, licences …) is counted here, by key.
        need_sizes: Leave out images whose size nobody says; else theirs is (0, 0).

    Returns:
        The samples, and the category id of each class (−1 for a name this file lacks).
    """
    content = read_annotations(file)
    _count_unread(content, unread)
    categories = category_names(content, file)
    grouped = _by_image(content["annotations"], file, problems)
    seen: set[int | str] = set()
    samples = []
    for record in content["images"]:
        if not isinstance(record, dict) or not _is_ident(record.get("id")) or "file_name" not in record:
            message = f"image entry {_shown(record)} lacks an id (a whole number or text) or a file_name"
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
        rows = [row for a in found if (row := _row(a, categories, names, size, file, problems)) is not None]
        samples.append(make_sample(path, size, rows, file, record["id"], problems))
    for ident, orphans in grouped.items():
        for annotation in orphans:
            message = f"annotation of image {ident!r}, which is not in the list of images"
            _report(annotation, "label without image", message, file, problems)
    ids = {name: ident for ident, name in categories.items()}
    return samples, [ids.get(name, -1) for name in names]


def _by_image(annotations: list[Any], file: Path, problems: list[Problem]) -> dict[Any, list[dict[str, Any]]]:
    """Group annotations by image id, reporting entries that are none."""
    grouped: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    seen: set[int | str] = set()
    for annotation in annotations:
        if not isinstance(annotation, dict):
            _report(annotation, "annotation entry", f"{_shown(annotation)} is no annotation", file, problems)
            continue
        ident = annotation.get("id")
        if _is_ident(ident):
            if ident in seen:
                message = f"two annotations have the id {_shown(ident)}"
                _report(annotation, "duplicate annotation id", message, file, problems)
            seen.add(ident)
        image = annotation.get("image_id")
        if _is_ident(image):
            grouped[image].append(annotation)
        else:
            _report(annotation, "annotation entry", f"image_id {_shown(image)} names no image", file, problems)
    return grouped


_READ = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore"},
    "categories": {"id", "name"},
}


def _count_unread(content: dict[str, Any], unread: Counter[str]) -> None:
    """Count what a json holds besides boxes, by key."""
    unread.update(key for key in content if key not in _READ)
    for kind, read in _READ.items():
        for entry in content[kind]:
            if isinstance(entry, dict):
                unread.update(k for k, value in entry.items() if k not in read and value not in (None, "", [], {}))
