"""The pictures of an explanation: drawn from a trace, kept as files in a folder and inside the page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from yolite.draw import colour as class_colour
from yolite.explain.canvas import BLUE, GREEN, RED, SIDE, WHITE, YELLOW, Box, Canvas, side_by_side
from yolite.explain.formula import Cell
from yolite.explain.sight import Sight, Stage
from yolite.explain.trace import Place, Trace
from yolite.explain.truth import Truth
from yolite.geometry import Image
from yolite.report.pictures import address, jpeg

QUALITY = 86
NAMES = 40
"""Up to so many boxes of a picture are named."""
STRIP = 150
"""Height of the pictures of what down-sampling leaves, px."""
AROUND = 0.25
"""They show so much around the object, as a share of its sides."""
CLOSE = 2560
"""The input is enlarged to no more than this many px before a part is cut out of it."""


@dataclass(frozen=True)
class Shown:
    """A picture in the page and in the folder.

    Attributes:
        source: ``data:`` address.
        width, height: In px.
        caption: What it shows.
        file: Its name in the folder.
    """

    source: str
    width: int
    height: int
    caption: str
    file: str


class Shelf:
    """Keeps pictures as numbered files.

    Args:
        folder: Where they go; made with the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def add(self, name: str, image: Image, caption: str) -> Shown:
        """Write a picture; return it for the page."""
        self.count += 1
        data = jpeg(image, QUALITY)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = f"{self.count:02d}-{name}.jpg"
        (self.folder / file).write_bytes(data)
        return Shown(address(data), image.shape[1], image.shape[0], caption, file)


def draw_letterbox(trace: Trace) -> Image:
    """Draw the input with the border of what is picture in it."""
    canvas, box = Canvas(trace.pixels), trace.letterbox
    canvas.box((box.pad_x, box.pad_y, box.pad_x + box.content[1], box.pad_y + box.content[0]), YELLOW)
    return canvas.image


def draw_found(trace: Trace, names: Sequence[str], after: bool) -> Image:
    """Draw the candidates before NMS, or what it keeps."""
    found = trace.candidates
    rows = found.kept.tolist() if after else found.scores.argsort(descending=True, stable=True).tolist()
    canvas = Canvas(trace.pixels)
    texts = [f"{names[int(found.labels[i])]} {float(found.scores[i]):.2f}" for i in rows[: NAMES * after]]
    for i in rows[len(texts) :]:
        canvas.box(found.boxes[i].tolist(), class_colour(int(found.labels[i])), 1)
    few = rows[: len(texts)]
    canvas.boxes([found.boxes[i].tolist() for i in few], [int(found.labels[i]) for i in few], texts)
    return canvas.image


def draw_objectness(trace: Trace, level: int) -> Image:
    """Lay the highest objectness of each cell over the input."""
    canvas = Canvas(trace.pixels)
    canvas.heat(trace.objectness(level).amax(0).clamp(0, 1).numpy())
    return canvas.image


def draw_grid(trace: Trace, level: int, chosen: Place) -> Image:
    """Draw the cells of a level, and its anchors around the cell in which the chosen prediction's centre lies."""
    spec = trace.specs[level]
    canvas = Canvas(trace.pixels)
    canvas.grid(spec.stride)
    x, y = ((v + 0.5) * trace.specs[chosen.level].stride for v in (chosen.column, chosen.row))
    cell = int(y // spec.stride), int(x // spec.stride)
    canvas.cells([cell], spec.stride, YELLOW, 0.5)
    for number, (w, h) in enumerate(spec.anchors):
        cx, cy = ((v + 0.5) * spec.stride for v in (cell[1], cell[0]))
        own = level == chosen.level and number == chosen.anchor
        canvas.box((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), YELLOW if own else WHITE, 2, dashed=not own)
    return canvas.image


def draw_cell(trace: Trace, cell: Cell, step: int) -> Image:
    """Draw how the anchor of one cell becomes a box, input px.

    Args:
        trace: The picture's way.
        cell: The prediction.
        step: 1: the anchor in the middle of the cell; 2: it has moved to the box's centre; 3: it has the box's size.
    """
    spec, place = cell.spec, cell.place
    left, top, right, bottom = _view(trace, cell)
    longest = max(trace.pixels.shape[:2])
    canvas = Canvas(trace.pixels, faint=0.35, side=min(CLOSE, SIDE * longest // max(right - left, bottom - top)))
    canvas.grid(spec.stride)
    canvas.cells([(place.row, place.column)], spec.stride, YELLOW, 0.55)
    w, h = spec.anchors[place.anchor]
    x1, y1, x2, y2 = cell.input_box.tolist()
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    if step == 1:
        x, y = ((v + 0.5) * spec.stride for v in (place.column, place.row))
    canvas.box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), WHITE, 2, dashed=True)
    if step == 3:
        canvas.box((x1, y1, x2, y2), GREEN, 2)
    canvas.dot(x, y, WHITE if step == 1 else GREEN)
    return canvas.image[top * canvas.zoom : bottom * canvas.zoom, left * canvas.zoom : right * canvas.zoom]


def _view(trace: Trace, cell: Cell) -> tuple[int, int, int, int]:
    """Return the part of the input (xyxy, input px) that holds the cell, its anchor and its box, and a little more."""
    spec, place = cell.spec, cell.place
    out: list[list[int]] = [[], []]
    for axis, (index, most) in enumerate(zip((place.column, place.row), trace.pixels.shape[1::-1], strict=True)):
        middle, half = (index + 0.5) * spec.stride, max(spec.anchors[place.anchor][axis] / 2, 2 * spec.stride)
        low = min(middle - half, max(float(cell.input_box[axis]), 0.0))
        high = max(middle + half, min(float(cell.input_box[axis + 2]), float(most)))
        more = AROUND * (high - low)
        out[0].append(min(max(int(low - more), 0), most - 1))
        out[1].append(max(min(int(high + more) + 1, most), out[0][-1] + 1))
    return out[0][0], out[0][1], out[1][0], out[1][1]


def draw_on_picture(trace: Trace, cell: Cell) -> Image:
    """Draw the box where it ends: on the picture, made smaller where that is large."""
    height, width = trace.image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Canvas(np.asarray(cv2.resize(trace.image, size, interpolation=cv2.INTER_AREA), np.uint8))
    canvas.box((cell.box * scale).tolist(), GREEN, 2)
    return canvas.image


def draw_truth(pixels: Image, truth: Truth, image: int, level: int, stride: int) -> Image:
    """Draw the objects of a picture, the cells that answer for them on a level, and the ignored ones."""
    canvas = Canvas(pixels, faint=0.35)
    canvas.grid(stride)
    some = [[int(v) for v in place] for place in truth.ignored[level][image].any(0).nonzero().tolist()]
    canvas.cells([(row, column) for row, column in some], stride, BLUE, 0.35)
    places = {(p.place.row, p.place.column) for p in truth.positives if p.image == image and p.place.level == level}
    canvas.cells(sorted(places), stride, GREEN, 0.55)
    orphans = set(truth.orphans)
    own = (truth.targets.image == image).nonzero()[:, 0].tolist()
    for number, row in enumerate(own):
        box = truth.targets.boxes[row].tolist()
        canvas.box(box, RED if row in orphans else YELLOW, 2, dashed=bool(truth.targets.ignore[row]))
        canvas.dot((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, RED if row in orphans else YELLOW)
        canvas.write(box[0], box[1], str(number), YELLOW)
    return canvas.image


def draw_influence(trace: Trace, sight: Sight, cell: Cell) -> Image:
    """Draw how much each px moves the objectness of the prediction, and the squares that hold most of it."""
    canvas = Canvas(trace.pixels)
    canvas.heat(np.sqrt(sight.influence), 0.8)  # the root: small influences would be black
    x, y = sight.centre
    for side, colour in zip((*sight.sides, sight.receptive), (GREEN, BLUE, WHITE), strict=True):
        if side:
            canvas.box((x - side / 2, y - side / 2, x + side / 2, y + side / 2), colour, 2)
    canvas.box(cell.input_box.tolist(), YELLOW, 1)
    return canvas.image


def draw_cam(trace: Trace, sight: Sight, cell: Cell) -> Image:
    """Lay Grad-CAM over the input."""
    canvas = Canvas(trace.pixels)
    canvas.heat(sight.cam, 0.55)
    canvas.box(cell.input_box.tolist(), YELLOW, 2)
    return canvas.image


def draw_remains(trace: Trace, box: Box, strides: Sequence[int]) -> Image:
    """Show an object of the input (xyxy, input px) as it is, then one px for each cell of each stride."""
    w, h = max(box[2] - box[0], 8.0), max(box[3] - box[1], 8.0)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    reach = 0.5 + AROUND
    height, width = trace.pixels.shape[:2]
    shown = []
    tensor = torch.from_numpy(trace.pixels).permute(2, 0, 1)[None].float()
    for stride in (1, *strides):
        small = torch.nn.functional.avg_pool2d(tensor, stride)[0].permute(1, 2, 0).round().byte().numpy()
        low = [max(0, int((c - s * reach) // stride)) for c, s in ((x, w), (y, h))]
        high = [-(-min(c + s * reach, most) // stride) for c, s, most in ((x, w, width), (y, h, height))]
        x1, y1 = (min(v, most - 1) for v, most in zip(low, (small.shape[1], small.shape[0]), strict=True))
        x2, y2 = max(x1 + 1, int(high[0])), max(y1 + 1, int(high[1]))
        shown.append(small[y1:y2, x1:x2])
    return side_by_side(shown, STRIP)


def draw_stages(trace: Trace, found: Sequence[Stage]) -> Image:
    """Show how active each place of the last layer of each scale is."""
    pictures = []
    for stage in found:
        canvas = Canvas(trace.pixels, side=max(trace.pixels.shape[:2]))
        canvas.heat(stage.activity, 0.85)
        pictures.append(canvas.image)
    return side_by_side(pictures, STRIP + 50)
