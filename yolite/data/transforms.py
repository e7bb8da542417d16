"""Crop, rotation, flips, colour, blur, noise, holes; the one module that knows albumentations.

albumentations looks for a newer version of itself over the network when it is imported; that is switched off first.
Zoom and shift, which mosaic needs too, are in `yolite.data.mosaic`. What every sample goes through (zoom, flip, colour)
calls OpenCV directly: albumentations takes a multiple of the time for it.

`A.Compose` gives all its transforms one seed, so that two of them draw the same numbers: what happens with a chance
is therefore decided here, and every step has a seed of its own.
"""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

from dataclasses import dataclass

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

from yolite.boxes import mirrored
from yolite.data.colour import recolour
from yolite.data.hidden import visible_share
from yolite.geometry import Image
from yolite.structures import Size


@dataclass(frozen=True)
class Augment:
    """What training does to the pictures (defaults and meaning: `yolite.config.AugmentConfig`).

    Attributes:
        mosaic: Share of samples put together from four images.
        scale: Zoom by a factor from 1 − s to 1 / (1 − s).
        translate: Shift by up to this share of the input.
        hflip, vflip: Chances of a flip.
        hue, saturation, brightness: Half ranges of the colour changes.
        min_visible: A box cut or covered to less than this share of its area is left out.
        crop: Chance of a crop that keeps all boxes, enlarged to the input.
        rotate: Rotation by up to so many degrees either way.
        shear: Shear by up to so many degrees, in x and in y.
        blur, noise: Chances of a blurred and of a noisy picture.
        cutout: Chance of grey holes.
        mixup: Share of samples blended with another picture.
        copy_paste: Share of samples into which boxes of another picture are pasted.
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
    crop: float = 0.0
    rotate: float = 0.0
    shear: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0


Changed = tuple[Image, Tensor, Tensor]
"""A changed picture, its boxes [K, 4], and which of the former boxes they are [K]."""


class FlipAndColour:
    """Flip and recolour a picture with its boxes; the same seed gives the same result."""

    def __init__(self, augment: Augment) -> None:
        self._flips = (augment.hflip, augment.vflip)
        b = augment.brightness
        self._ranges = np.array([augment.hue, augment.saturation, b, b / 2])
        self._recolours = bool(self._ranges.any())
        self.active = bool(any(self._flips) or self._recolours)

    def __call__(self, image: Image, boxes: Tensor, seed: int) -> Changed:
        """Transform one picture.

        Args:
            image: [H, W, 3] uint8 RGB.
            boxes: [N, 4] float32 xyxy, px of ``image``, inside it.
            seed: Of this sample's draws.

        Returns:
            The picture, the boxes [K, 4], and which of the N boxes they are [K].
        """
        rng = np.random.default_rng(seed)
        for axis, (draw, chance) in enumerate(zip(rng.random(2), self._flips, strict=True)):
            if draw < chance:
                image = np.asarray(cv2.flip(image, 1 - axis), np.uint8)
                boxes = mirrored(boxes, image.shape[1 - axis], axis)
        if self._recolours:
            hue, *factors = rng.uniform(-self._ranges, self._ranges)
            image = recolour(image, hue, *(1 + factor for factor in factors))
        return image, boxes, torch.arange(len(boxes))


def _with_boxes(compose: A.Compose, image: Image, boxes: Tensor) -> Changed:
    """Run a pipeline that moves boxes."""
    out = compose(image=image, bboxes=boxes.numpy(), rows=np.arange(len(boxes)))
    moved = torch.as_tensor(np.asarray(out["bboxes"], np.float32).reshape(-1, 4))
    rows = torch.as_tensor(np.asarray(out["rows"], np.int64).reshape(-1))
    return np.ascontiguousarray(out["image"]), moved, rows


class Warp:
    """Crop, rotate and shear a picture on a canvas of one size; boxes become the bounds of what they were.

    A box is left out when less than ``min_visible`` of its area or less than 2 px of a side remains on the canvas.
    """

    def __init__(self, augment: Augment, canvas: Size, pad: int) -> None:
        crop = [
            A.BBoxSafeRandomCrop(),
            A.LongestMaxSize(max_size_hw=canvas),
            A.PadIfNeeded(*canvas, fill=pad),
        ]
        turn, tilt = augment.rotate, augment.shear
        affine = A.Affine(rotate=(-turn, turn), shear={"x": (-tilt, tilt), "y": (-tilt, tilt)}, fill=pad, p=1.0)
        boxes = A.BboxParams(
            format="pascal_voc", label_fields=["rows"], min_width=2, min_height=2,
            min_visibility=augment.min_visible * (1 - 1e-5),  # a whole box may lose its last bit
        )  # fmt: skip
        self._steps = [
            (chance, A.Compose(steps, bbox_params=boxes))
            for chance, steps in ((augment.crop, crop), (float(bool(turn or tilt)), [affine]))
            if chance
        ]
        self.active = bool(self._steps)

    def __call__(self, image: Image, boxes: Tensor, seed: int) -> Changed:
        """Transform one picture of the canvas's size; see `FlipAndColour`."""
        rng, rows = np.random.default_rng(seed), torch.arange(len(boxes))
        for chance, compose in self._steps:
            own = int(rng.integers(2**31))
            if rng.random() < chance:
                compose.set_random_seed(own)
                image, boxes, kept = _with_boxes(compose, image, boxes)
                rows = rows[kept]
        return image, boxes, rows


class Damage:
    """Blur, noise and grey holes: the boxes stay where they are, but go where a hole covers too much of one."""

    def __init__(self, augment: Augment, pad: int) -> None:
        self._min_visible = augment.min_visible
        # MotionBlur smears to one side, which moves the objects, unless told not to
        blurs = [A.GaussianBlur(blur_limit=0, sigma_limit=(0.5, 2.0), p=1.0),
                 A.MotionBlur(blur_limit=(3, 7), allow_shifted=False, direction_range=(0.0, 0.0), p=1.0)]  # fmt: skip
        noise = A.GaussNoise(std_range=(0.02, 0.1), p=1.0)
        # The holes are read from a mask: told of boxes, albumentations cuts all of them to whole px.
        holes = A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.05, 0.25), hole_width_range=(0.05, 0.25),
                                fill=pad, fill_mask=0, p=1.0)  # fmt: skip
        self._steps = [
            (chance, [A.Compose([one]) for one in either])
            for chance, either in ((augment.blur, blurs), (augment.noise, [noise]), (augment.cutout, [holes]))
            if chance
        ]
        self.active = bool(self._steps)

    def __call__(self, image: Image, boxes: Tensor, seed: int) -> Changed:
        """Transform one picture; see `FlipAndColour`."""
        rng, shown = np.random.default_rng(seed), np.ones(image.shape[:2], np.uint8)
        for chance, either in self._steps:
            own, which = int(rng.integers(2**31)), int(rng.integers(len(either)))
            if rng.random() < chance:
                either[which].set_random_seed(own)
                out = either[which](image=image, mask=shown)
                image, shown = out["image"], out["mask"]
        rows = (visible_share(shown == 0, boxes) >= self._min_visible).nonzero()[:, 0]
        return np.ascontiguousarray(image), boxes[rows], rows
