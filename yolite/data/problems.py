"""What is wrong with a data set: every reader reports it in this form, nothing is dropped without a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from yolite.boxes import clip
from yolite.structures import Sample, Size


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        file: The file it is in.
        line: Line number from 1 (text), or annotation id (COCO), or 0 for the whole file.
        kind: Short name of the kind, e.g. ``class id``.
        message: What is wrong, with the value.
        action: What training and evaluation do about it.
    """

    file: Path
    line: int
    kind: str
    message: str
    action: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{where}: {self.message}; {self.action}"


def summarise(problems: Sequence[Problem], examples: int = 1) -> list[str]:
    """Return one line a kind: the count and the first example or two."""
    counts = Counter(problem.kind for problem in problems)
    lines = []
    for kind, count in counts.most_common():
        shown = [str(p) for p in problems if p.kind == kind][:examples]
        more = f" (and {count - len(shown)} more)" if count > len(shown) else ""
        lines.append(f"{count} x {kind}: " + " | ".join(shown) + more)
    return lines


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


def _clipped(row: Row, size: Size, file: Path, problems: list[Problem]) -> Tensor | None:
    """Return the row's box inside the image, or None (reported) if it is no box; as it is if the size is unknown."""
    box = torch.tensor(row.box, dtype=torch.float64)
    shown = "[" + ", ".join(f"{v:g}" for v in row.box) + "]"
    if not bool(torch.isfinite(box.float()).all()):
        problems.append(Problem(file, row.line, "not finite", f"box {shown} is not finite", "box left out"))
        return None
    if float(box[2] - box[0]) <= 0 or float(box[3] - box[1]) <= 0:
        problems.append(Problem(file, row.line, "zero size", f"box {shown} has no width or no height", "box left out"))
        return None
    if size == (0, 0):
        return box
    inside = clip(box, size)
    past = float((box - inside).abs().max())
    image = f"the image of {size[1]}x{size[0]} px"
    if float(inside[2] - inside[0]) <= 0 or float(inside[3] - inside[1]) <= 0:
        problems.append(Problem(file, row.line, "outside", f"box {shown} lies outside {image}", "box left out"))
        return None
    # YOLO files round to six digits, so a hundredth of a px is no finding at all
    if past > 0.01:
        kind = "out of bounds" if past >= 1 else "out of bounds by less than 1 px"
        problems.append(Problem(file, row.line, kind, f"box {shown} passes {image} by {past:.2f} px", "box clipped"))
    return inside


def make_sample(
    path: Path | None, size: Size, rows: Sequence[Row], file: Path, ident: int | str, problems: list[Problem]
) -> Sample:
    """Build a Sample from rows, leaving out and clipping boxes (each reported in ``problems``)."""
    kept: list[tuple[Row, Tensor]] = []
    for row in rows:
        box = _clipped(row, size, file, problems)
        if box is not None:
            kept.append((row, box))
    boxes = torch.stack([box for _, box in kept]) if kept else torch.zeros(0, 4, dtype=torch.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [float(s.prod()) if row.area is None else row.area for (row, _), s in zip(kept, sides, strict=True)]
    return Sample(
        path=path,
        size=size,
        boxes=boxes.float(),
        labels=torch.tensor([row.label for row, _ in kept], dtype=torch.int64),
        iscrowd=torch.tensor([row.iscrowd for row, _ in kept], dtype=torch.bool),
        area=torch.tensor(areas, dtype=torch.float32),
        difficult=torch.tensor([row.difficult for row, _ in kept], dtype=torch.bool),
        id=ident,
    )
