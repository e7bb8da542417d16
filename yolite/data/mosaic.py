"""Zoom, shift and mosaic: pictures pasted into regions of one canvas, their boxes with them.

A single picture is a mosaic of one region. Mosaic (YOLOv4, arXiv 2004.10934, section 3.3) shows four pictures at
once, so that objects appear in more places, sizes and neighbourhoods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from yolite.boxes import area
from yolite.data.transforms import Augment
from yolite.geometry import Image
from yolite.structures import Size


@dataclass(frozen=True)
class Labelled:
    """A picture with its boxes in px of this picture.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        boxes: [N, 4] float32 xyxy.
        labels: [N] int64.
        ignore: [N] bool.
    """

    image: Image
    boxes: Tensor
    labels: Tensor
    ignore: Tensor

    def __getitem__(self, index: Tensor) -> Labelled:
        """Select boxes; the picture stays."""
        return Labelled(self.image, self.boxes[index], self.labels[index], self.ignore[index])


Window = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole px."""


@dataclass(frozen=True)
class Patch:
    """Where a picture goes: a rectangle of it, enlarged or shrunk to a rectangle of the canvas.

    Both are whole px, and the boxes move by exactly what the pixels do: the scale is that of the two rectangles.

    Attributes:
        source: What is seen of the picture, picture px.
        target: Where it is seen, canvas px.
    """

    source: Window
    target: Window

    @classmethod
    def seen(cls, picture: Size, scale: float, shift: tuple[float, float], window: Window) -> Patch:
        """Return what a window of the canvas shows of a picture [H, W] that is scaled and then shifted (x, y)."""
        spans = []
        for length, move, low, high in zip(picture[::-1], shift, window[:2], window[2:], strict=True):
            begin, scaled = math.floor(move), max(1, round(length * scale))
            start, stop = (min(max(edge, low), high) for edge in (begin, begin + scaled))
            first = min(max(round((start - begin) * length / scaled), 0), length - 1)
            last = min(max(round((stop - begin) * length / scaled), first + 1), length)
            spans.append((first, last, start, stop))
        (sx1, sx2, x1, x2), (sy1, sy2, y1, y2) = spans
        return cls((sx1, sy1, sx2, sy2), (x1, y1, x2, y2))

    def draw(self, canvas: Image, image: Image) -> None:
        """Draw the picture into the canvas."""
        (sx1, sy1, sx2, sy2), (x1, y1, x2, y2) = self.source, self.target
        part, size = image[sy1:sy2, sx1:sx2], (x2 - x1, y2 - y1)
        if min(size) > 0:
            same = size == (sx2 - sx1, sy2 - sy1)
            canvas[y1:y2, x1:x2] = part if same else cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)

    def move(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return where boxes [N, 4] of the picture lie on the canvas: whole, and clipped to what is seen."""
        (sx1, sy1, sx2, sy2), (x1, y1, x2, y2) = self.source, self.target
        x, y = (x2 - x1) / (sx2 - sx1), (y2 - y1) / (sy2 - sy1)
        numbers = [[x, y, x, y], [x1 - sx1 * x, y1 - sy1 * y] * 2, [x1, y1] * 2, [x2, y2] * 2]
        scale, shift, low, high = torch.tensor(numbers, dtype=torch.float32)
        whole = torch.addcmul(shift, boxes, scale)
        return whole, whole.clamp(low, high)


def paste(canvas: Image, pictures: list[Labelled], patches: list[Patch], min_visible: float) -> Labelled:
    """Draw pictures into ``canvas`` (changed in place) and return it with those of their boxes that stay visible.

    A box is clipped to its patch and left out when less than ``min_visible`` of its area or less than 2 px of a side
    remains.
    """
    moved = []
    for picture, patch in zip(pictures, patches, strict=True):
        patch.draw(canvas, picture.image)
        moved.append(patch.move(picture.boxes))
    whole, seen = (torch.cat(boxes) for boxes in zip(*moved, strict=True))
    sides = seen[:, 2:] - seen[:, :2]
    keep = (area(seen) >= min_visible * area(whole)) & (sides >= 2).all(-1)
    return replace(join(canvas, pictures), boxes=seen)[keep]


def zoom(rng: np.random.Generator, scale: float) -> float:
    """Draw a factor from 1 − scale to 1 / (1 − scale), even on a log scale."""
    reach = abs(np.log(1 - scale))  # never -0.0, below which NumPy draws nothing
    return float(np.exp(rng.uniform(-reach, reach)))


def single_patch(rng: np.random.Generator, picture: Size, canvas: Size, augment: Augment) -> Patch:
    """Draw a zoom and shift for one picture [H, W] on a canvas (H, W); none where both are switched off."""
    s = zoom(rng, augment.scale) if augment.scale else 1.0
    jitter = rng.uniform(-augment.translate, augment.translate, 2) if augment.translate else np.zeros(2)
    tx = (canvas[1] - picture[1] * s) * (0.5 if s <= 1 else float(rng.uniform(0, 1))) + jitter[0] * canvas[1]
    ty = (canvas[0] - picture[0] * s) * (0.5 if s <= 1 else float(rng.uniform(0, 1))) + jitter[1] * canvas[0]
    return Patch.seen(picture, s, (float(tx), float(ty)), (0, 0, canvas[1], canvas[0]))


def mosaic_patches(rng: np.random.Generator, pictures: list[Size], canvas: Size, augment: Augment) -> list[Patch]:
    """Draw a cross point and, for four pictures, zooms and shifts that fill the quarters around it."""
    height, width = canvas
    cx = int(rng.uniform(0.3, 0.7) * width)
    cy = int(rng.uniform(0.3, 0.7) * height)
    windows = [(0, 0, cx, cy), (cx, 0, width, cy), (0, cy, cx, height), (cx, cy, width, height)]
    patches = []
    for (h, w), window in zip(pictures, windows, strict=True):
        s = zoom(rng, augment.scale)
        # Where the zoomed picture is larger than the window, look at a random part of it; else a random place in it.
        tx = window[0] + float(rng.uniform(0, 1)) * (window[2] - window[0] - w * s)
        ty = window[1] + float(rng.uniform(0, 1)) * (window[3] - window[1] - h * s)
        patches.append(Patch.seen((h, w), s, (tx, ty), window))
    return patches


def compose(pictures: list[Labelled], patches: list[Patch], canvas: Size, pad: int, min_visible: float) -> Labelled:
    """Paste the pictures onto a new canvas (H, W) and join their boxes."""
    return paste(np.full((*canvas, 3), pad, np.uint8), pictures, patches, min_visible)


def join(image: Image, parts: list[Labelled]) -> Labelled:
    """Return ``image`` with the boxes of all parts."""
    return Labelled(
        image,
        torch.cat([p.boxes for p in parts]),
        torch.cat([p.labels for p in parts]),
        torch.cat([p.ignore for p in parts]),
    )
