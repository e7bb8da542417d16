"""From image px to input px and back: the letterbox, applied and inverted by one record."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from yolite.boxes import clip
from yolite.structures import Preprocess, Size

Image = npt.NDArray[np.uint8]
"""[H, W, 3] uint8, RGB."""


def resize(image: Image, size: Size) -> Image:
    """Resize to ``size`` (H, W): area-averaged when shrinking (no aliasing), bilinear when growing."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    shrinks = size[0] <= height and size[1] <= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method), np.uint8)


@dataclass(frozen=True)
class Letterbox:
    """The map of one image into the network input: scale, then shift by the padding.

    ``x_input = x_image · scale_x + pad_x``. The scale is that of the *rounded* content size, so that boxes and pixels
    agree exactly; the padding is whole px, half of it on the left and on top (the smaller half if odd).

    Attributes:
        image: (H, W) of the image in px.
        content: (H, W) of the resized image inside the input.
        input: (H, W) of the network input.
        pad_y, pad_x: Rows above and columns left of the content.
        pad_value: Grey of the padding.
    """

    image: Size
    content: Size
    input: Size
    pad_y: int
    pad_x: int
    pad_value: int

    @classmethod
    def fit(cls, image: Size, preprocess: Preprocess, step: int = 0) -> Letterbox:
        """Build the record for an image of size ``image`` (H, W).

        Args:
            image: (H, W) in px.
            preprocess: How pictures become network input.
            step: Pad the content only to the next multiples of so many px, not to all of ``preprocess.size``: rows of
                grey cost as much as rows of picture. 0: to all of it.
        """
        height, width = preprocess.size
        if preprocess.mode == "stretch":
            return cls(image, preprocess.size, preprocess.size, 0, 0, preprocess.pad)
        ratio = min(height / image[0], width / image[1])
        content = (
            min(height, max(1, round(image[0] * ratio))),
            min(width, max(1, round(image[1] * ratio))),
        )
        if step:
            height = min(height, math.ceil(content[0] / step) * step)
            width = min(width, math.ceil(content[1] / step) * step)
        pad_y, pad_x = (height - content[0]) // 2, (width - content[1]) // 2
        return cls(image, content, (height, width), pad_y, pad_x, preprocess.pad)

    @property
    def scale_y(self) -> float:
        """Input px an image px, vertically."""
        return self.content[0] / self.image[0]

    @property
    def scale_x(self) -> float:
        """Input px an image px, horizontally."""
        return self.content[1] / self.image[1]

    def pixels(self, image: Image) -> Image:
        """Return the letterboxed picture [H, W, 3] of an image that has this record's ``image`` size."""
        return self.pad(resize(image, self.content))

    def pad(self, content: Image) -> Image:
        """Return the network input [H, W, 3] around an already resized ``content``."""
        if self.content == self.input:
            return np.array(content)  # a copy: cached pictures are not to be changed
        out = np.full((*self.input, 3), self.pad_value, np.uint8)
        out[self.pad_y : self.pad_y + self.content[0], self.pad_x : self.pad_x + self.content[1]] = content
        return out

    def resized(self, boxes: Tensor) -> Tensor:
        """Map xyxy boxes [N, 4] from image px to px of the resized content, which is not padded yet."""
        return boxes * boxes.new_tensor([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    def apply(self, boxes: Tensor) -> Tensor:
        """Map xyxy boxes [N, 4] from image px to input px."""
        return self.resized(boxes) + boxes.new_tensor([self.pad_x, self.pad_y, self.pad_x, self.pad_y])

    def invert(self, boxes: Tensor) -> Tensor:
        """Map xyxy boxes [N, 4] from input px back to image px, clipped to the image."""
        scale = boxes.new_tensor([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        shift = boxes.new_tensor([self.pad_x, self.pad_y, self.pad_x, self.pad_y])
        return clip((boxes - shift) / scale, self.image)
