"""Zoom, shift and mosaic: pictures pasted into regions of one canvas, their boxes with them.

A single picture is a mosaic of one region. Mosaic (YOLOv4, arXiv 2004.10934, section 3.3) shows four pictures at
once, so that objects appear in more places, sizes and neighbourhoods.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from yolite.boxes import area, clip
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


@dataclass(frozen=True)
class Patch:
    """Where a picture goes: ``x_canvas = x_picture · scale + shift``, seen through a window of the canvas.

    Attributes:
        scale: Canvas px a picture px.
        shift: (x, y) of the picture's corner, canvas px.
        window: (x1, y1, x2, y2) whole canvas px.
    """

    scale: float
    shift: tuple[float, float]
    window: tuple[int, int, int, int]


def paste(canvas: Image, picture: Labelled, patch: Patch, pad: int, min_visible: float) -> Labelled:
    """Draw ``picture`` into ``canvas`` (changed in place) and return it with the boxes that stay visible.

    A box is clipped to the window and left out when less than ``min_visible`` of its area or less than 2 px of a
    side remains.
    """
    x1, y1, x2, y2 = patch.window
    s, (tx, ty) = patch.scale, patch.shift
    # OpenCV's coordinates name pixel centres, ours pixel corners: hence the half px.
    matrix = np.array([[s, 0, tx - x1 + (s - 1) / 2], [0, s, ty - y1 + (s - 1) / 2]], np.float32)
    canvas[y1:y2, x1:x2] = cv2.warpAffine(
        picture.image, matrix, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR, borderValue=(pad, pad, pad)
    )
    whole = picture.boxes * s + torch.tensor([tx, ty, tx, ty])
    origin = torch.tensor([x1, y1, x1, y1], dtype=torch.float32)
    seen = clip(whole - origin, (y2 - y1, x2 - x1)) + origin
    sides = seen[:, 2:] - seen[:, :2]
    keep = (area(seen) >= min_visible * area(whole)) & (sides >= 2).all(-1)
    return Labelled(canvas, seen[keep], picture.labels[keep], picture.ignore[keep])


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
    return Patch(s, (float(tx), float(ty)), (0, 0, canvas[1], canvas[0]))


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
        patches.append(Patch(s, (tx, ty), window))
    return patches


def compose(pictures: list[Labelled], patches: list[Patch], canvas: Size, pad: int, min_visible: float) -> Labelled:
    """Paste the pictures onto a new canvas (H, W) and join their boxes."""
    image = np.full((*canvas, 3), pad, np.uint8)
    parts = [paste(image, picture, patch, pad, min_visible) for picture, patch in zip(pictures, patches, strict=True)]
    return join(image, parts)


def join(image: Image, parts: list[Labelled]) -> Labelled:
    """Return ``image`` with the boxes of all parts."""
    return Labelled(
        image,
        torch.cat([p.boxes for p in parts]),
        torch.cat([p.labels for p in parts]),
        torch.cat([p.ignore for p in parts]),
    )
