"""Pictures of what training will see: augmented batches with their boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from yolite.data.images import write_image
from yolite.data.loader import TrainLoader
from yolite.draw import draw_boxes
from yolite.geometry import Image
from yolite.structures import Batch

TILE = 320
"""Least side of a picture in the grid, px: smaller ones are enlarged, so that names can be read."""
GAP = 4


def draw_batch(batch: Batch, names: Sequence[str]) -> Image:
    """Return the pictures of a batch side by side, boxes in the colours of their classes, ignored ones marked so."""
    tiles = []
    for place, pixels in enumerate(batch.images):
        targets = batch.targets[batch.targets.image == place]
        image = pixels.permute(1, 2, 0).numpy()
        factor = max(1, math.ceil(TILE / min(image.shape[:2])))
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        labels = targets.labels.tolist()
        texts = [names[n] + " (ignored)" * ignore for n, ignore in zip(labels, targets.ignore.tolist(), strict=True)]
        tiles.append(draw_boxes(np.asarray(image), (targets.boxes * factor).tolist(), labels, texts))
    height, width = tiles[0].shape[:2]
    columns = min(len(tiles), max(1, round(math.sqrt(len(tiles) * height / width))))
    rows = math.ceil(len(tiles) / columns)
    grid = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        y, x = place // columns * (height + GAP), place % columns * (width + GAP)
        grid[y : y + height, x : x + width] = tile
    return grid


def write_batches(folder: Path, count: int, loader: TrainLoader, names: Sequence[str]) -> list[Path]:
    """Write the first ``count`` batches of training as pictures; return their files.

    Args:
        folder: Where ``batch-001.png`` and so on go; files of these names are replaced.
        count: Number of batches; past the end of an epoch the next one goes on.
        loader: Makes them.
        names: Class names.

    Raises:
        UserError: a file cannot be written.
    """
    epochs = range(math.ceil(count / loader.steps))
    files = []
    for number, shown in enumerate(islice((b for e in epochs for b in loader.epoch(e)), count), 1):
        files.append(folder / f"batch-{number:03d}.png")
        write_image(files[-1], draw_batch(shown, names))
    return files
