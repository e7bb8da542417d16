"""Drawing on the network's input: boxes, cells, grids and heat, all given in input px."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from yolite.draw import draw_boxes
from yolite.geometry import Image

SIDE = 640
"""Least longer side of a picture, px: small inputs are enlarged by a whole number."""
FAR = 20_000
"""Nothing is drawn further out than so many px."""
RED, GREEN, BLUE, YELLOW, WHITE = (235, 60, 50), (60, 200, 90), (70, 140, 255), (255, 215, 0), (255, 255, 255)
Colour = tuple[int, int, int]
Box = Sequence[float]


class Canvas:
    """An enlarged copy of the input that is drawn on.

    Args:
        pixels: [H, W, 3] uint8 RGB.
        faint: Towards grey, so that what is drawn stands out.
        side: See `SIDE`.
    """

    def __init__(self, pixels: Image, faint: float = 0.0, side: int = SIDE) -> None:
        self.zoom = max(1, -(-side // max(pixels.shape[:2])))
        size = (pixels.shape[1] * self.zoom, pixels.shape[0] * self.zoom)
        big = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.float32)
        if faint:
            big = (1 - faint) * big + faint * 128
        self.image: Image = big.astype(np.uint8)

    def _px(self, *values: float) -> list[int]:
        # a net that diverged can give any box, and OpenCV draws no further
        return [round(v) for v in np.clip(np.nan_to_num(np.array(values) * self.zoom), -FAR, FAR).tolist()]

    def box(self, box: Box, colour: Colour, width: int = 2, dashed: bool = False) -> None:
        """Draw a box; dashed for what is not there yet (an anchor)."""
        x1, y1, x2, y2 = self._px(*box)
        if not dashed:
            cv2.rectangle(self.image, (x1, y1), (x2, y2), colour, width, cv2.LINE_AA)
            return
        for low, high, other in ((x1, x2, y1), (x1, x2, y2), (y1, y2, x1), (y1, y2, x2)):
            across = other in (y1, y2) and (low, high) == (x1, x2)
            for start in range(low, high, 12):
                end = min(start + 7, high)
                a, b = ((start, other), (end, other)) if across else ((other, start), (other, end))
                cv2.line(self.image, a, b, colour, width, cv2.LINE_AA)

    def boxes(self, boxes: Sequence[Box], labels: Sequence[int], texts: Sequence[str]) -> None:
        """Draw boxes with words, in the colours of their classes."""
        self.image = draw_boxes(self.image, [self._px(*box) for box in boxes], labels, texts)

    def grid(self, stride: int, colour: Colour = WHITE) -> None:
        """Draw the borders of the cells of a level."""
        over = self.image.copy()
        height, width = self.image.shape[:2]
        for x in range(0, width + 1, stride * self.zoom):
            cv2.line(over, (x, 0), (x, height), colour, 1)
        for y in range(0, height + 1, stride * self.zoom):
            cv2.line(over, (0, y), (width, y), colour, 1)
        self.image = cv2.addWeighted(over, 0.45, self.image, 0.55, 0).astype(np.uint8)

    def cells(self, places: Sequence[tuple[int, int]], stride: int, colour: Colour, strength: float = 0.45) -> None:
        """Fill cells (row, column) of a level."""
        over = self.image.copy()
        for row, column in places:
            x1, y1, x2, y2 = self._px(*(v * stride for v in (column, row, column + 1, row + 1)))
            cv2.rectangle(over, (x1, y1), (x2 - 1, y2 - 1), colour, -1)
        self.image = cv2.addWeighted(over, strength, self.image, 1 - strength, 0).astype(np.uint8)

    def dot(self, x: float, y: float, colour: Colour) -> None:
        """Draw a point."""
        cv2.circle(self.image, (self._px(x)[0], self._px(y)[0]), 5, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(self.image, (self._px(x)[0], self._px(y)[0]), 4, colour, -1, cv2.LINE_AA)

    def write(self, x: float, y: float, text: str, colour: Colour) -> None:
        """Write below and right of a point, inside the picture, on a black plate."""
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 1)
        left = min(max(self._px(x)[0], 0), self.image.shape[1] - width - 6)
        top = min(max(self._px(y)[0], 0), self.image.shape[0] - height - 6)
        cv2.rectangle(self.image, (left, top), (left + width + 5, top + height + 5), (0, 0, 0), -1)
        at = (left + 3, top + height + 2)
        cv2.putText(self.image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)

    def heat(self, values: np.ndarray, strength: float = 0.7) -> None:
        """Lay values [h, w] from 0 to 1 over the whole picture: dark is 0, bright yellow 1."""
        size = (self.image.shape[1], self.image.shape[0])
        big = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        bgr = cv2.applyColorMap((np.nan_to_num(big).clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
        grey = cv2.cvtColor(cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        heat = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        self.image = cv2.addWeighted(heat, strength, grey, 1 - strength, 0).astype(np.uint8)


def side_by_side(pictures: Sequence[Image], height: int, gap: int = 6) -> Image:
    """Return pictures in a row, all of one height, px kept as squares."""
    row = []
    for picture in pictures:
        width = max(1, round(picture.shape[1] * height / picture.shape[0]))
        row.append(np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8))
        row.append(np.full((height, gap, 3), 255, np.uint8))
    return np.concatenate(row[:-1], 1)
