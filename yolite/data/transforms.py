"""Flips and colour, through albumentations: the one module that knows this library.

albumentations looks for a newer version of itself over the network when it is imported; that is switched off first.
Geometry that mosaic needs too (zoom, shift) is in `yolite.data.mosaic`, so that it exists once.
"""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

from dataclasses import dataclass

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from yolite.geometry import Image


@dataclass(frozen=True)
class Augment:
    """What training does to the pictures (defaults and meaning: `yolite.config.AugmentConfig`).

    Attributes:
        mosaic: Share of samples put together from four images.
        scale: Zoom by a factor from 1 − s to 1 / (1 − s).
        translate: Shift by up to this share of the input.
        hflip, vflip: Chances of a flip.
        hue, saturation, brightness: Half ranges of the colour changes.
        min_visible: A box cut to less than this share of its area is left out.
    """

    mosaic: float
    scale: float
    translate: float
    hflip: float
    vflip: float
    hue: float
    saturation: float
    brightness: float
    min_visible: float


class FlipAndColour:
    """Flip and recolour a picture with its boxes; the same seed gives the same result."""

    def __init__(self, augment: Augment) -> None:
        b, s, h = augment.brightness, augment.saturation, augment.hue
        steps: list[A.BasicTransform] = []
        if augment.hflip:
            steps.append(A.HorizontalFlip(p=augment.hflip))
        if augment.vflip:
            steps.append(A.VerticalFlip(p=augment.vflip))
        if b or s or h:
            steps.append(
                A.ColorJitter(brightness=(1 - b, 1 + b), contrast=(1 - b / 2, 1 + b / 2), saturation=(1 - s, 1 + s),
                              hue=(-h, h), p=1.0)
            )  # fmt: skip
        # Colour alone moves no box; albumentations warns if it is told of boxes then.
        self._moves = bool(augment.hflip or augment.vflip)
        boxes = A.BboxParams(format="pascal_voc", label_fields=["rows"]) if self._moves else None
        self._compose = A.Compose(steps, bbox_params=boxes) if steps else None

    def __call__(self, image: Image, boxes: Tensor, seed: int) -> tuple[Image, Tensor, Tensor]:
        """Transform one picture.

        Args:
            image: [H, W, 3] uint8 RGB.
            boxes: [N, 4] float32 xyxy, px of ``image``, inside it.
            seed: Of this sample's draws.

        Returns:
            The picture, the boxes [K, 4], and which of the N boxes they are [K].
        """
        if self._compose is None:
            return image, boxes, torch.arange(len(boxes))
        self._compose.set_random_seed(seed)
        if not self._moves:
            recoloured = self._compose(image=image)["image"]
            return np.ascontiguousarray(recoloured), boxes, torch.arange(len(boxes))
        out = self._compose(image=image, bboxes=boxes.numpy(), rows=np.arange(len(boxes)))
        moved = torch.as_tensor(np.asarray(out["bboxes"], np.float32).reshape(-1, 4))
        rows = torch.as_tensor(np.asarray(out["rows"], np.int64).reshape(-1))
        return np.ascontiguousarray(out["image"]), moved, rows
