"""A stand-in for a trained network that sees red squares, and nothing else: tests of what stands around a network."""

import cv2
import numpy as np
import torch
from torch import Tensor

from yolite.codec import encode
from yolite.inference import Model
from yolite.structures import HeadSpec, Preprocess, Size

RED = (230, 20, 20)


class SquareFinder:
    """Answers with the boxes of the red patches whose sides are at least ``least`` px of input.

    The nearer a patch is to ``favoured`` px in area, the surer.
    """

    def __init__(self, favoured: float = 1e9, least: int = 2) -> None:
        self.specs = (HeadSpec(4, ((16.0, 16.0),), 2),)
        self.device = torch.device("cpu")
        self.fixed = False
        self.favoured, self.least = favoured, least
        self.shapes: list[tuple[int, ...]] = []  # of every input

    def __call__(self, images: Tensor) -> list[Tensor]:
        self.shapes.append(tuple(images.shape))
        spec = self.specs[0]
        batch, _, height, width = images.shape
        maps = torch.full((batch, spec.channels, height // spec.stride, width // spec.stride), -12.0)
        for place, image in enumerate(images):
            mask = ((image[0] > 0.6) & (image[1] < 0.3) & (image[2] < 0.3)).numpy().astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
            for x, y, w, h, pixels in stats[1:].tolist():
                if min(w, h) < self.least:
                    continue
                box = torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32)
                column, row = ((box[:, :2] + box[:, 2:]) / 2 // spec.stride).long().unbind(1)
                maps[place, :4, row, column] = encode(box, spec, torch.zeros(1, dtype=torch.int64), row, column).T
                maps[place, 4, row, column] = 4 - abs(np.log(pixels / self.favoured)) / 8
                maps[place, 5, row, column] = 12.0
        return [maps]


def square_model(size: Size = (96, 96), favoured: float = 1e9, least: int = 2) -> Model:
    """A `Model` of it with an input of ``size``."""
    return Model(SquareFinder(favoured, least), Preprocess(size), ["square", "other"], {})


def squares(size: Size, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """A grey picture [H, W, 3] with these boxes (x1, y1, x2, y2) in red."""
    image = np.full((*size, 3), 100, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = RED
    return image
