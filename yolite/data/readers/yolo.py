"""YOLO txt: one text file an image, one row a box: ``class cx cy w h``, the four normalised by the image's size.

Rows of its two relatives are read for their boxes: polygons (``class x1 y1 x2 y2 x3 y3 ...``) and poses
(``class cx cy w h`` and keypoints ``x y`` or ``x y visibility``). The count of fields alone cannot tell these apart, so
both readings are tried. Where a row allows both, all rows of the role together decide (`_style_of`) or it is left out.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from yolite.boxes import cxcywh_to_xyxy
from yolite.data.images import SUFFIXES, ImageError, image_size
from yolite.data.problems import Problem, Row, make_sample, number
from yolite.data.readers.folders import images_of, label_path, orphans
from yolite.errors import UserError
from yolite.files import read_label
from yolite.structures import Sample, Size

MOST_CLASSES = 10_000
"""A class id past this, in a data set without names, is taken for a slip."""
_PAST = 0.01
"""So far past the image, as a share of it, a corner may lie: rounding, and what a hand does at an edge."""
_POSES = 10
"""So many rows at least must look like poses before they are taken for poses."""
_NEW_LINE = re.compile("\r\n|\r|\n")
Style = Callable[[], str]


def _is_polygon(numbers: list[float]) -> bool:
    """Return whether the numbers after the class can be the corners of a polygon."""
    points = set(zip(numbers[::2], numbers[1::2], strict=False))
    return len(numbers) % 2 == 0 and len(points) >= 3 and all(-_PAST <= n <= 1 + _PAST for n in numbers)


def _is_pose(numbers: list[float], step: int) -> bool:
    """Return whether they can be a box and the keypoints in it, each of ``step`` numbers (the third: 0, 1 or 2)."""
    if len(numbers) < 6:
        return False
    (cx, cy, w, h), rest = numbers[:4], numbers[4:]
    if len(rest) % step or not 0 < w <= 1 + _PAST or not 0 < h <= 1 + _PAST:
        return False
    points = [(rest[i], rest[i + 1]) for i in range(0, len(rest), step) if rest[i] or rest[i + 1]]  # 0 0: not labelled
    inside = all(abs(x - cx) <= w / 2 + _PAST and abs(y - cy) <= h / 2 + _PAST for x, y in points)
    return inside and (step == 2 or all(v in (0, 1, 2) for v in rest[2::3]))


def _readings(numbers: list[float]) -> set[str]:
    """Return how a row of more than a box can be read: ``polygon``, ``pose``, both or neither."""
    polygon, pose = _is_polygon(numbers), any(_is_pose(numbers, step) for step in (2, 3))
    return {name for name, fits in (("polygon", polygon), ("pose", pose)) if fits}


def _style_of(rows: list[list[float]]) -> str:
    """Return how rows that allow both readings are meant, by all rows of more than a box: or empty, if unknown.

    Poses of one data set have equally many keypoints, and those lie in their boxes; of polygons read as poses, that is
    true of about a third.
    """
    read = [(len(numbers), found) for numbers in rows if (found := _readings(numbers))]
    poses = sum("pose" in found for _, found in read)
    if len({count for count, _ in read}) > 1 or poses < 0.5 * len(read):
        return "polygon"
    return "pose" if len(read) >= _POSES and poses >= 0.95 * len(read) else ""


def _survey(files: list[Path]) -> Style:
    """Return a function that reads these label files once, when first called, and says what `_style_of` them is."""

    @functools.cache
    def style() -> str:
        texts = (_label_text(file, []) or "" for file in files)
        rows = (_numbers(line) for text in texts for line in text.splitlines())
        return _style_of([row[1:] for row in rows if row and len(row) > 5])

    return style


def _reading(numbers: list[float], style: Style) -> tuple[str, str]:
    """Return what a row is by the numbers after its class: ``box``, or the kind of finding that it makes, and why."""
    if len(numbers) == 4:
        return "box", ""
    count, found = len(numbers) + 1, _readings(numbers)
    meant = style() if found else ""
    if found == {"pose"} or ("pose" in found and meant == "pose"):
        return "pose", f"a box and {len(numbers) - 4} numbers of keypoints"
    if "polygon" in found and (meant == "polygon" or (len(found) == 1 and not meant)):
        return "polygon", f"a polygon of {len(numbers) // 2} points"
    if found:
        return "ambiguous row", f"{count} fields can be a polygon as well as a box with keypoints"
    return "field count", f"{count} fields are neither class cx cy w h nor the points of a polygon or pose"


def _numbers(text: str) -> list[float] | None:
    """Return the numbers of a row, or None."""
    try:
        return [number(field) for field in text.split()]
    except ValueError:
        return None


def _box(numbers: list[float], reading: str, size: Size) -> tuple[float, float, float, float]:
    """Return the row's box as xyxy in image px."""
    if reading == "polygon":
        xyxy = torch.tensor([f(numbers[i::2]) for f in (min, max) for i in (0, 1)], dtype=torch.float64)
    else:
        xyxy = cxcywh_to_xyxy(torch.tensor(numbers[:4], dtype=torch.float64))
    height, width = size
    x1, y1, x2, y2 = (xyxy * torch.tensor([width, height, width, height], dtype=torch.float64)).tolist()
    return x1, y1, x2, y2


def _parse_row(
    text: str, line: int, file: Path, classes: int | None, size: Size, problems: list[Problem], style: Style
) -> Row | None:
    """Read one row, or report what is wrong with it and return None."""

    def report(kind: str, message: str) -> Row | None:
        problems.append(Problem(file, line, kind, message))
        return None

    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    numbers = _numbers(text)
    if numbers is None:
        return report("not a number", f"{shown} holds something that is not a number")
    if not all(map(math.isfinite, numbers)):
        return report("not finite", f"{shown} holds NaN or infinity")
    reading, why = _reading(numbers[1:], style)
    if reading not in ("box", "polygon", "pose"):
        return report(reading, f"{shown}: {why}")
    label = int(numbers[0])
    if label != numbers[0]:
        return report("class id not an integer", f"class id {text.split()[0][:40]} is not a whole number")
    if label < 0 or (classes is not None and label >= classes):
        names = f"the {classes} names (0 to {classes - 1})" if classes is not None else "0, 1, 2 ..."
        return report("class id out of range", f"class id {text.split()[0][:40]} is not among {names}")
    if reading != "box":
        report(reading, why)
    return Row(line, _box(numbers[1:], reading, size), label)


def _label_text(file: Path, problems: list[Problem]) -> str | None:
    """Return a label file's text, or None (reported) where it cannot be read."""
    try:
        return read_label(file).decode("utf-8-sig")  # some editors put a byte order mark before the first row
    except FileNotFoundError:
        problems.append(Problem(file, 0, "no label file", "there is no label file"))
    except (OSError, ValueError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        problems.append(Problem(file, 0, "unreadable label file", f"the label file cannot be read ({reason})"))
    return None


def read_labels(
    file: Path, size: Size, classes: int | None, problems: list[Problem], style: Style = lambda: ""
) -> list[Row]:
    """Read a label file for an image of ``size`` (H, W); a missing file is reported and means no boxes.

    Args:
        file: The label file.
        size: Of the image.
        classes: Number of names; None where any id is taken.
        problems: Findings are added here.
        style: How rows are meant that can be polygons as well as poses; empty: they are left out.
    """
    text = _label_text(file, problems)
    if text is None:
        return []
    # not splitlines: it also splits where an editor counts no line
    lines = [(number, line.strip()) for number, line in enumerate(_NEW_LINE.split(text), 1) if line.strip()]
    if not lines:
        problems.append(Problem(file, 0, "empty label file", "there is no row in it"))
    rows = [_parse_row(line, number, file, classes, size, problems, style) for number, line in lines]
    return [row for row in rows if row is not None]


def read_yolo(
    entries: list[Path], classes: int | None, problems: list[Problem], others: Sequence[Path] = ()
) -> list[Sample]:
    """Read the samples of a role.

    Args:
        entries: Folders of images or lists of image paths.
        classes: Number of names; None where the data set has none (any id is taken).
        problems: Findings are added here.
        others: What plays the other roles: its labels are no orphans of this one.

    Raises:
        UserError: an entry does not exist or holds no image.
    """
    images = [image for entry in entries for image in images_of(entry, problems)]
    if not images:
        where = ", ".join(str(e) for e in entries)
        raise UserError(f"{where} holds no images ({', '.join(sorted(SUFFIXES))}): check the path")
    samples = []
    style = _survey([label_path(image) for image in images])
    seen: set[Path] = set()
    for image in images:
        said = [] if image in seen else problems  # a list may name an image twice: what is wrong with it is said once
        seen.add(image)
        try:
            size = image_size(image)
        except ImageError as error:
            said.append(Problem(image, 0, error.kind, str(error)))
            continue
        labels = label_path(image)
        rows = read_labels(labels, size, classes, said, style)
        samples.append(make_sample(image, size, rows, labels, image.stem, said))
    _report_shared([sample.path for sample in samples if sample.path], problems)
    for file, why in orphans(entries, images, others):
        if file != label_path(file) or _holds_rows(file):
            problems.append(Problem(file, 0, "label without image", why))
    return samples


def _report_shared(images: Sequence[Path], problems: list[Problem]) -> None:
    """Report label files that several images have, as their names differ in the ending alone."""
    sharing: dict[Path, list[str]] = {}
    for image in dict.fromkeys(images):  # a list may name an image twice
        sharing.setdefault(label_path(image), []).append(image.name)
    for file, names in sharing.items():
        if len(names) > 1:
            problems.append(Problem(file, 0, "shared label file", f"it belongs to {' and '.join(names)}"))


def _holds_rows(file: Path) -> bool:
    """Return whether a text file is empty, or begins with numbers."""
    text = _label_text(file, [])
    return text is not None and _numbers(text.strip().partition("\n")[0]) is not None


def class_count(entries: list[Path]) -> int:
    """Return how many classes the labels of these images need: the largest class id + 1.

    Raises:
        UserError: an entry does not exist, or the ids are no numbering of classes.
    """
    labels = [label_path(image) for entry in entries for image in images_of(entry, [])]
    # only the ids count here: the boxes are read, and what is wrong with them is reported, by `read_yolo`
    largest = [
        max((row.label for row in read_labels(file, (1, 1), None, [], lambda: "polygon")), default=0) for file in labels
    ]
    count = max(largest, default=0) + 1
    if count > MOST_CLASSES:
        worst = labels[largest.index(count - 1)]
        raise UserError(f"{worst} has the class id {count - 1}: mend it, or list the class names in a classes.txt")
    return count
