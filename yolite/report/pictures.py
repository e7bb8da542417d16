"""Pictures inside the page: small JPEGs as text, no more of them than the page may weigh."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from yolite.data.images import ImageError, read_image
from yolite.geometry import Image, resize
from yolite.structures import Sample

MOST_BYTES = 11 * 2**20
"""So much of a page may be pictures (as base64): with tables and curves it stays below 15 MB."""
QUALITY = 80
CONTEXT = 0.6
"""A crop shows so much around a box, as a share of its longer side on every side; at least `LEAST` px in all."""
LEAST = 48

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Embedded:
    """A picture in the page.

    Attributes:
        source: ``data:`` address.
        width, height: px of the embedded picture.
        frame: Which part (x1, y1, x2, y2) of the image it shows, image px.
    """

    source: str
    width: int
    height: int
    frame: Box

    def share(self, box: Box) -> Box:
        """Return left, top, width and height of an xyxy box (image px) in percent of the picture, cut at its edges."""
        x1, y1, x2, y2 = self.frame
        left, right = (min(max((v - x1) / (x2 - x1), 0.0), 1.0) for v in (box[0], box[2]))
        top, bottom = (min(max((v - y1) / (y2 - y1), 0.0), 1.0) for v in (box[1], box[3]))
        return tuple(round(100 * v, 2) for v in (left, top, right - left, bottom - top))  # type: ignore[return-value]


def jpeg(image: Image, quality: int = QUALITY) -> bytes:
    """Return an RGB picture as a JPEG file."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR),
                           [cv2.IMWRITE_JPEG_QUALITY, quality])  # fmt: skip
    return data.tobytes()


def address(data: bytes) -> str:
    """Return a JPEG file as a ``data:`` address."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


class Album:
    """Embeds pictures as long as there is room.

    Args:
        most: Bytes of the page that they may take.

    Attributes:
        left: Bytes that are left.
        refused: Pictures that found no room.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.left = most
        self.refused = 0
        self._last: tuple[object, Image | None] = (None, None)

    def _read(self, sample: Sample) -> Image | None:
        """Return the pixels of a sample (the last one is kept: crops of one picture come together)."""
        if self._last[0] != sample.path:
            try:
                pixels = read_image(sample.path) if sample.path else None
            except ImageError:
                pixels = None
            self._last = (sample.path, pixels)
        return self._last[1]

    def _embed(self, image: Image, frame: Box, side: int) -> Embedded | None:
        """Return a picture of at most ``side`` px, None when there is no room."""
        ratio = min(1.0, side / max(image.shape[:2]))
        small = resize(image, (max(1, round(image.shape[0] * ratio)), max(1, round(image.shape[1] * ratio))))
        source = address(jpeg(small))
        if len(source) > self.left:
            self.refused += 1
            return None
        self.left -= len(source)
        return Embedded(source, small.shape[1], small.shape[0], frame)

    def whole(self, sample: Sample, side: int) -> Embedded | None:
        """Embed a whole picture; None where it cannot be read or there is no room."""
        image = self._read(sample)
        if image is None:
            return None
        return self._embed(image, (0.0, 0.0, float(image.shape[1]), float(image.shape[0])), side)

    def crop(self, sample: Sample, box: Box, side: int) -> Embedded | None:
        """Embed what is around a box; None where it cannot be read, nothing of it is inside, or there is no room."""
        image = self._read(sample)
        if image is None:
            return None
        height, width = image.shape[:2]
        reach = max(CONTEXT * max(box[2] - box[0], box[3] - box[1]), LEAST / 2)
        x1, y1 = (int(max(0.0, low - reach)) for low in box[:2])
        x2, y2 = (int(min(float(most), high + reach + 1)) for high, most in zip(box[2:], (width, height), strict=True))
        if x2 <= x1 or y2 <= y1:
            return None
        return self._embed(image[y1:y2, x1:x2], (float(x1), float(y1), float(x2), float(y2)), side)
