"""YOLO txt: one text file an image, one row a box: ``class cx cy w h``, the four normalised by the image's size."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from yolite.boxes import cxcywh_to_xyxy
from yolite.data.images import SUFFIXES, ImageError, image_files, image_size
from yolite.data.problems import Problem, Row, make_sample
from yolite.errors import UserError
from yolite.files import read_lines
from yolite.structures import Sample, Size

MOST_CLASSES = 10_000
"""A class id past this, in a data set without names, is taken for a slip."""


def label_path(image: Path) -> Path:
    """Return the label file of an image: the last folder named ``images`` becomes ``labels``, the ending ``.txt``."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _images_of(entry: Path) -> list[Path]:
    """List the images that a role's entry names: a folder (searched through), or a text file with a path a line."""
    if entry.is_dir():
        return image_files(entry)
    if entry.suffix == ".txt" and entry.is_file():
        return [entry.parent / line for line in read_lines(entry)]
    if entry.is_file():
        raise UserError(f"{entry} is no list of images: give a folder or a .txt file with one image path a line")
    raise UserError(f"{entry} does not exist: check the path in the data set's description")


def _parse_row(
    text: str, line: int, file: Path, classes: int | None, size: Size, problems: list[Problem]
) -> Row | None:
    """Read one row, or report what is wrong with it and return None."""

    def bad(kind: str, message: str) -> None:
        problems.append(Problem(file, line, kind, message, "row left out"))

    fields = text.split()
    if len(fields) != 5:
        bad("field count", f"{len(fields)} fields where 5 are due (class cx cy w h)")
        return None
    try:
        numbers = [float(f) for f in fields]
    except ValueError:
        bad("not a number", f"{text[:60]!r} holds something that is not a number")
        return None
    if not all(map(math.isfinite, numbers)):
        bad("not finite", f"{text[:60]!r} holds NaN or infinity")
        return None
    label = int(numbers[0])
    if label != numbers[0] or label < 0:
        bad("class id", f"class id {fields[0]} is not a whole number from 0")
        return None
    if classes is not None and label >= classes:
        bad("class id", f"class id {label} is past the {classes} names (0 to {classes - 1})")
        return None
    height, width = size
    scale = torch.tensor([width, height, width, height], dtype=torch.float64)
    x1, y1, x2, y2 = (cxcywh_to_xyxy(torch.tensor(numbers[1:], dtype=torch.float64)) * scale).tolist()
    return Row(line, (x1, y1, x2, y2), label)


def read_labels(file: Path, size: Size, classes: int | None, problems: list[Problem]) -> list[Row]:
    """Read a label file for an image of ``size`` (H, W); a missing file is reported and means no boxes."""
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors put a byte order mark before the first row
    except FileNotFoundError:
        problems.append(Problem(file, 0, "no label file", "there is no label file", "image counts as background"))
        return []
    except (OSError, UnicodeDecodeError) as error:
        message = f"the label file cannot be read ({type(error).__name__})"
        problems.append(Problem(file, 0, "unreadable label file", message, "image counts as background"))
        return []
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            row = _parse_row(line, number, file, classes, size, problems)
            if row is not None:
                rows.append(row)
    return rows


def read_yolo(entries: list[Path], classes: int | None, problems: list[Problem]) -> list[Sample]:
    """Read the samples of a role.

    Args:
        entries: Folders of images or lists of image paths.
        classes: Number of names; None where the data set has none (any id is taken).
        problems: Findings are added here.

    Raises:
        UserError: an entry does not exist or holds no image.
    """
    images = [image for entry in entries for image in _images_of(entry)]
    if not images:
        where = ", ".join(str(e) for e in entries)
        raise UserError(f"{where} holds no images ({', '.join(sorted(SUFFIXES))}): check the path")
    samples = []
    for image in images:
        try:
            size = image_size(image)
        except ImageError as error:
            problems.append(Problem(image, 0, "unreadable image", str(error), "image left out"))
            continue
        labels = label_path(image)
        rows = read_labels(labels, size, classes, problems)
        samples.append(make_sample(image, size, rows, labels, image.stem, problems))
    report_orphans(images, problems)
    return samples


def class_count(entries: list[Path]) -> int:
    """Return how many classes the labels of these images need: the largest class id + 1.

    Raises:
        UserError: an entry does not exist, or the ids are no numbering of classes.
    """
    labels = [label_path(image) for entry in entries for image in _images_of(entry)]
    # only the ids count here: the boxes are read, and what is wrong with them is reported, by `read_yolo`
    largest = [max((row.label for row in read_labels(file, (1, 1), None, [])), default=0) for file in labels]
    count = max(largest, default=0) + 1
    if count > MOST_CLASSES:
        worst = labels[largest.index(count - 1)]
        raise UserError(f"{worst} has the class id {count - 1}: mend it, or list the class names in a classes.txt")
    return count


def report_orphans(images: list[Path], problems: list[Problem]) -> None:
    """Report label files beside those of ``images`` that belong to no image, in the list or not."""
    beside = {file for folder in {image.parent for image in images} if folder.is_dir() for file in folder.iterdir()}
    known = {label_path(file) for file in beside if file.suffix.lower() in SUFFIXES}
    for folder in sorted({label_path(image).parent for image in images}):
        if folder.name == "labels" or "labels" in folder.parts:
            for file in sorted(folder.glob("*.txt")):
                if file not in known and file.name != "classes.txt":
                    problems.append(Problem(file, 0, "label without image", "no image belongs to it", "file left out"))
