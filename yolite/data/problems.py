"""What is wrong with a data set: every reader reports it in this form, nothing is dropped without a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from yolite.boxes import clip
from yolite.structures import Sample, Size


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        what: What is the case, for docs/data.md.
        action: What training and evaluation do about it.
        note: Worth knowing, but nothing to be mended: it leaves ``yolite check`` at exit status 0.
    """

    what: str
    action: str
    note: bool = False


_BOX = "box left out"
_IMAGE = "image left out"
_BACKGROUND = "image counts as background"
_BOTH = "both are used"
KINDS: dict[str, Kind] = {
    # files
    "missing image": Kind("an image that a list, json or annotation names is not there", _IMAGE),
    "unreadable image": Kind("no image, damaged, or no ordinary file", _IMAGE),
    "truncated image": Kind("an image whose end is missing", _IMAGE),
    "damaged image": Kind("a JPEG that is damaged inside, as far as its decoder can tell", "used as it decodes"),
    "no label file": Kind("an image without a label file", _BACKGROUND),
    "empty label file": Kind("a label file without a box", _BACKGROUND, note=True),
    "unreadable label file": Kind("no UTF-8 text, no XML, a document type, or no ordinary file", _BACKGROUND),
    "label without image": Kind("a label file, or annotation of a json, that belongs to no image", "not used"),
    "shared label file": Kind("YOLO: images that differ in the ending alone have one label file", _BOTH),
    "linked folder": Kind("YOLO: a link to a folder inside a folder of images", "not followed"),
    "file not read": Kind("YOLO: files in a folder of images that do not end like one", "not used", note=True),
    "unreadable role": Kind("train, val or test names what is not there or cannot be read", "the role cannot be used"),
    # rows and entries
    "field count": Kind("a row that is neither box, polygon nor pose; COCO, VOC: a box that is not four values", _BOX),
    "ambiguous row": Kind("a row that can be read as polygon and as pose", _BOX),
    "polygon": Kind("a row with the corners of a polygon", "its box is taken", note=True),
    "pose": Kind("a row with a box and keypoints", "its box is taken", note=True),
    "not a number": Kind("text where a number is due", _BOX),
    "not finite": Kind("NaN, infinite, or too large for float32", _BOX),
    "zero size": Kind("a box whose width or height is zero (also: in float32) or negative", _BOX),
    "outside": Kind("a box wholly outside the image", _BOX),
    "out of bounds": Kind("a box that passes the image by 1 px or more", "box clipped"),
    "out of bounds by less than 1 px": Kind("a box that passes the image by less", "box clipped", note=True),
    "duplicate box": Kind(
        "the same box (clipped, in float32) of the same class twice in an image", "the second is left out"
    ),
    "class id not an integer": Kind("a class id such as 0.5", _BOX),
    "class id out of range": Kind("a class id below 0 or past the names", _BOX),
    "unknown class": Kind("a class name that is not one of the data set's", _BOX),
    "unknown category": Kind("COCO: a category id that is not in the list of categories", _BOX),
    "image entry": Kind("COCO: an image without id or file_name", _IMAGE),
    "annotation entry": Kind("COCO: an annotation that names no image", _BOX),
    "misplaced object": Kind("VOC: an object not directly in the root, in an XML namespace, or spelt Object", _BOX),
    "flag": Kind("COCO, VOC: an iscrowd, ignore or difficult that is neither 0 nor 1", "taken as 0"),
    "area": Kind("COCO: an area that is no number, below 0, or larger than the image", "that of the box is taken"),
    "duplicate image id": Kind("COCO: two images have one id", "the second is left out"),
    "duplicate annotation id": Kind("COCO: two annotations have one id", _BOTH),
    "no size": Kind("COCO, read without its images: an image without width and height", _IMAGE),
    "no stated size": Kind("COCO, VOC: an image's size is missing or 0x0", "that of the file is taken", note=True),
    "size differs": Kind("COCO, VOC: the file has another size than stated", "boxes are taken as px of the file"),
    # pictures
    "extension": Kind("a file name that ends like another format", "read by its content"),
    "EXIF orientation": Kind("a photo that is stored turned", "shown upright, boxes are taken as upright", note=True),
    "grayscale": Kind("one channel", "becomes RGB", note=True),
    "alpha": Kind("transparency", "dropped", note=True),
    "CMYK": Kind("the four colours of print", "becomes RGB", note=True),
    "16-bit": Kind("more than 8 bits a channel", "the upper 8 bits are used", note=True),
    "duplicate image": Kind("two files of the same content in one role", _BOTH),
    "duplicate image across splits": Kind("a file of the same content, or the same file, in two roles", _BOTH),
    "similar image": Kind("nearly the same picture twice in one role", _BOTH, note=True),
    "similar image across splits": Kind("nearly the same picture in two roles", _BOTH),
}
"""Every kind of finding there is; docs/data.md lists them."""


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        file: The file it is in.
        line: Line number from 1 (text), annotation id (COCO), number of the object (VOC), or 0 for the whole file.
        kind: One of `KINDS`.
        message: What is wrong, with the value.
        action: What training and evaluation do about it; left empty, what `KINDS` says.
    """

    file: Path
    line: int
    kind: str
    message: str
    action: str = ""

    def __post_init__(self) -> None:
        if not self.action:
            object.__setattr__(self, "action", KINDS[self.kind].action)

    @property
    def note(self) -> bool:
        """Whether this is worth knowing but nothing to be mended."""
        return KINDS[self.kind].note

    @property
    def place(self) -> str:
        """File and line, for people."""
        return f"{self.file}:{self.line}" if self.line else str(self.file)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}; {self.action}"


def summarise(problems: Iterable[Problem]) -> str:
    """Return one line with the counts by kind and what is done about each; empty if there is none."""
    parts = []
    every = list(problems)
    for title, some in (("problem", [p for p in every if not p.note]), ("note", [p for p in every if p.note])):
        counts = Counter((p.kind, p.action) for p in some).most_common()
        kinds = ", ".join(f"{count} x {kind} ({action})" for (kind, action), count in counts)
        parts += [f"{len(some)} {title}{'s' * (len(some) != 1)}: {kinds}"] if some else []
    return "; ".join(parts)


def number(text: str) -> float:
    """Return the number that a text states; Python alone would read ``1_0`` and digits of other scripts too.

    Raises:
        ValueError: it states none.
    """
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return float(text)


@dataclass(frozen=True)
class Row:
    """One box as a file states it, already in image px.

    Attributes:
        line: Where it stands (see `Problem`).
        box: (x1, y1, x2, y2), image px.
        label: Class, 0 … classes − 1.
        iscrowd, difficult: The flags of COCO and VOC.
        area: px², or None for the area of the box.
    """

    line: int
    box: tuple[float, float, float, float]
    label: int
    iscrowd: bool = False
    difficult: bool = False
    area: float | None = None


def _have_size(boxes: Tensor) -> list[bool]:
    """Return which boxes [N, 4] have a width and a height in float32, which is what training sees."""
    seen = boxes.float()
    found: list[bool] = (seen[:, 2:] > seen[:, :2]).all(1).tolist()
    return found


def _fault(row: Row, finite: bool, sized: bool, inside: bool, past: float, size: Size) -> tuple[str, str] | None:
    """Return the kind of what is wrong with a box and its description; None if nothing is.

    Args:
        row: The box.
        finite: Whether it is.
        sized: Whether it has a size.
        inside: Whether it has one inside the image.
        past: By how many px it passes the image.
        size: Of the image; (0, 0) if unknown.
    """
    # YOLO files round to six digits, so a hundredth of a px is no finding at all
    if finite and sized and inside and past <= 0.01:
        return None
    shown = "[" + ", ".join(f"{v:g}" for v in row.box) + "]"
    image = f"the image of {size[1]}x{size[0]} px"
    if not finite:
        return "not finite", f"box {shown} is not finite"
    if not sized:
        return "zero size", f"box {shown} has no width or no height"
    if not inside:
        return "outside", f"box {shown} lies outside {image}"
    kind = "out of bounds" if past >= 1 else "out of bounds by less than 1 px"
    return kind, f"box {shown} passes {image} by {past:.2f} px"


def make_sample(
    path: Path | None, size: Size, rows: Sequence[Row], file: Path, ident: int | str, problems: list[Problem]
) -> Sample:
    """Build a Sample from rows, leaving out and clipping boxes (each reported in ``problems``)."""
    stated = torch.tensor([row.box for row in rows], dtype=torch.float64).reshape(-1, 4)
    inside = stated if size == (0, 0) else clip(stated, size)
    looks = zip(
        rows, inside.float().tolist(), torch.isfinite(stated.float()).all(1).tolist(), _have_size(stated),
        _have_size(inside), (stated - inside).abs().amax(1).tolist(), strict=True,
    )  # fmt: skip
    kept: list[int] = []
    first: dict[tuple[int, bool, tuple[float, ...]], int] = {}
    for place, (row, box, finite, sized, within, past) in enumerate(looks):
        if fault := _fault(row, finite, sized, within, past, size):
            problems.append(Problem(file, row.line, *fault))
        if not (finite and sized and within):
            continue
        # by what training sees of it: two that differ outside the image alone, or past float32, are one box there
        same = first.setdefault((row.label, row.iscrowd, tuple(box)), row.line)
        if len(first) > len(kept):
            kept.append(place)
        else:
            problems.append(Problem(file, row.line, "duplicate box", f"the same box and class as in {same}"))
    boxes, rows = inside[kept], [rows[place] for place in kept]
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [own if row.area is None else row.area for row, own in zip(rows, sides.prod(1).tolist(), strict=True)]
    return Sample(
        path=path,
        size=size,
        boxes=boxes.float(),
        labels=torch.tensor([row.label for row in rows], dtype=torch.int64),
        iscrowd=torch.tensor([row.iscrowd for row in rows], dtype=torch.bool),
        area=torch.tensor(areas, dtype=torch.float32),
        difficult=torch.tensor([row.difficult for row in rows], dtype=torch.bool),
        id=ident,
    )
