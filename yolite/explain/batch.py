"""The page of a training batch: augmented pictures, their targets, and what was assigned to what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolite.explain.canvas import BLUE, GREEN, RED, YELLOW, Canvas
from yolite.explain.pictures import Shelf
from yolite.explain.truth import Truth, why_alone
from yolite.geometry import Image
from yolite.report.page import write_page
from yolite.structures import Batch, HeadSpec
from yolite.training.loss import DetectionLoss

PICTURES = 32
"""So many pictures of a batch are shown; the tables have all."""
LEVELS = ((GREEN, "green"), (BLUE, "blue"), ((230, 110, 230), "pink"), ((250, 150, 50), "orange"))
"""Colours of the cells of each level, the finest first."""


def write_batch_page(
    path: Path, batch: Batch, truth: Truth, specs: Sequence[HeadSpec], loss: DetectionLoss, names: Sequence[str],
    title: str, steps: Sequence[str],
) -> int:  # fmt: skip
    """Write the page PATH and, beside it, a folder of its pictures; return the page's size in bytes.

    Args:
        path: The .html.
        batch: As training gets it.
        truth: What training asks of the predictions on it.
        specs: How each level is read.
        loss: That of the training.
        names: Class names.
        title: Of the page.
        steps: What was done to the pictures: settings that are not 0.

    Raises:
        UserError: it cannot be written.
    """
    shelf = Shelf(path.with_suffix(""))
    rows = _objects(truth, specs, loss, names)
    shown = []
    for image, pixels in enumerate(batch.images[:PICTURES]):
        own = [row for row in rows if row["image"] == image]
        alone = sum(row["alone"] for row in own)
        words = f"Picture {image}: {len(own)} objects, {sum(row['count'] for row in own)} positives"
        words += f", {alone} without any." if alone else "."
        shown.append(
            shelf.add(f"picture-{image}", draw_picture(pixels.permute(1, 2, 0).numpy(), truth, image, specs), words)
        )
    counts = [sum(p.place.level == level for p in truth.positives) for level in range(len(specs))]
    colours = [LEVELS[level % len(LEVELS)][1] for level in range(len(specs))]
    return write_page(path, "explain_batch.html", title, shown=shown, rows=rows, truth=truth, loss=loss, specs=specs,
                      counts=counts, colours=colours, steps=steps, images=len(batch.images))  # fmt: skip


def _objects(
    truth: Truth, specs: Sequence[HeadSpec], loss: DetectionLoss, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row an object, those without a positive first."""
    alone, out = set(truth.orphans), []
    numbers: dict[int, int] = {}
    for row, (box, label, image) in enumerate(
        zip(truth.targets.boxes.tolist(), truth.targets.labels.tolist(), truth.targets.image.tolist(), strict=True)
    ):
        number = numbers[image] = numbers.get(image, -1) + 1
        levels = [sum(p.target == row and p.place.level == n for p in truth.positives) for n in range(len(specs))]
        out.append({
            "image": image, "number": number, "name": names[label], "w": box[2] - box[0], "h": box[3] - box[1],
            "levels": levels, "count": sum(levels), "alone": row in alone, "ignore": bool(truth.targets.ignore[row]),
            "why": why_alone(truth, row, specs, loss) if row in alone else "", "parts": truth.parts[row].tolist(),
        })  # fmt: skip
    return sorted(out, key=lambda row: not row["alone"])


def draw_picture(pixels: Image, truth: Truth, image: int, specs: Sequence[HeadSpec]) -> Image:
    """Draw the objects of a picture and the cells of all levels that answer for them."""
    canvas = Canvas(pixels, faint=0.2)
    for level in reversed(range(len(specs))):
        places = {(p.place.row, p.place.column) for p in truth.positives if p.image == image and p.place.level == level}
        canvas.cells(sorted(places), specs[level].stride, LEVELS[level % len(LEVELS)][0], 0.5)
    alone = set(truth.orphans)
    for number, row in enumerate((truth.targets.image == image).nonzero()[:, 0].tolist()):
        box, colour = truth.targets.boxes[row].tolist(), RED if row in alone else YELLOW
        canvas.box(box, colour, 2, dashed=bool(truth.targets.ignore[row]))
        canvas.dot((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, colour)
        canvas.write(box[0], box[1], str(number), colour)
    return canvas.image
