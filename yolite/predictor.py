"""The Python API: weights + pictures → boxes (docs/detect.md).

>>> from yolite import Predictor
>>> predictor = Predictor("runs/mine")  # doctest: +SKIP
>>> for result in predictor.predict(["a.jpg", "folder"]):  # doctest: +SKIP
...     print(result.path, result.boxes, result.scores, result.labels)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from yolite.defaults import CONF, IOU, MAX_DET, NMS, OVERLAP
from yolite.errors import UserError, nearest
from yolite.geometry import Letterbox
from yolite.inference import Inference, Model
from yolite.nms import Method
from yolite.postprocess import Thresholds
from yolite.result import Result
from yolite.sources import Picture, items_of, read_items
from yolite.structures import Detections, Size
from yolite.views import merge, views
from yolite.weights import choose_device, open_model


@dataclass(frozen=True)
class _Ready:
    """A picture, and what the network gets of it: [3, H, W] uint8 and its letterbox; None: it could not be read."""

    picture: Picture
    input: tuple[torch.Tensor, Letterbox] | None


class Predictor:
    """A trained detector, ready for pictures.

    Args:
        weights: A checkpoint, a run folder (its best), or a `Model` that is open already.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; an open model has its own.
        imgsz: Input (H, W) in px that a picture is scaled to fit, multiples of the coarsest stride; None takes what it
            was trained at.
        half: Compute a checkpoint in 16 bits (bf16, on older GPUs fp16): faster, other in a score's second decimal.

    Attributes:
        names: Class names; labels index them.
        preprocess: How pictures become network input.

    Raises:
        UserError: the weights cannot be read, or the device does not exist or has no 16-bit type.
    """

    def __init__(
        self, weights: str | Path | Model, device: str = "auto", imgsz: Size | None = None, half: bool = False
    ) -> None:
        if isinstance(weights, Model):
            if device != "auto" or imgsz is not None or half:
                raise UserError("an open model has its device, input size and precision already: leave them out")
            model = weights
        else:
            model = open_model(weights, choose_device(weights, device), imgsz, half)
        self.names = model.names
        self.preprocess = model.preprocess
        self.inference = Inference(model.network, model.preprocess)
        self._mirrors = model.mirrors

    def predict(
        self,
        sources: Any,
        conf: float = CONF,
        iou: float = IOU,
        max_det: int = MAX_DET,
        batch: int = 1,
        nms: Method = "hard",
        tile: bool = False,
        overlap: float = OVERLAP,
        tta: bool = False,
        stride: int = 1,
        bgr: bool = False,
    ) -> Iterator[Result]:
        """Detect on pictures and videos, one result at a time, in order; memory stays the same however many there are.

        A picture that cannot be read gives a result with ``error``; the others are carried on.

        Args:
            sources: One source or an iterable of them (a generator is asked as it goes): paths, folders, patterns,
                lists (``.txt``), videos, camera numbers, stream addresses, bytes of image files, Pillow images, NumPy
                arrays (RGB) and tensors; see `yolite.sources.items_of`. Cameras and streams come last, all at once.
            conf: Least score, 0 to 1; a box gets its best class.
            iou: NMS threshold, 0 to 1.
            max_det: Most boxes a picture; ``result.detections.capped`` says where there were more.
            batch: Pictures (with ``tile`` or ``tta``: looks at a picture) at once, those of one input size
                through the network together. The boxes do not depend on it.
            nms: ``hard`` (within each class), ``agnostic``, ``soft``, ``diou`` or ``fusion`` (`yolite.nms.suppress`).
            tile: Look at large pictures in tiles of the input's size too, for small objects.
            overlap: Least share of a tile's side that neighbours have in common, 0 to below 1.
            tta: Look at each picture in several sizes, and mirrored if the network was trained with mirrored ones.
            stride: Every so many-th frame of a video file.
            bgr: Whether NumPy arrays have OpenCV's channel order; other sources are not touched by it.

        Raises:
            UserError: an argument is out of range, or a source does not exist.
        """
        ranges: Sequence[tuple[str, float, bool]] = (
            ("conf", conf, 0 <= conf <= 1), ("iou", iou, 0 <= iou <= 1), ("max_det", max_det, max_det >= 1),
            ("batch", batch, batch >= 1), ("overlap", overlap, 0 <= overlap < 1), ("stride", stride, stride >= 1),
        )  # fmt: skip
        for name, value, fits in ranges:
            if not fits:
                raise UserError(f"{name} {value} is out of range: see the documentation of predict")
        if nms not in NMS:
            raise UserError(f"nms {nms!r} is not known{nearest(nms, NMS)}: give {', '.join(NMS)}")
        if tta and self.inference.network.fixed:
            height, width = self.preprocess.size
            raise UserError(f"tta looks in several sizes, but these weights take {height}x{width} alone: leave it out")
        limits = Thresholds(conf, iou, max_det, best_class=True, nms=nms)
        items: Iterable[Any] = items_of(sources, bgr)
        if not isinstance(sources, Iterator):
            items = list(items)  # mistakes are said now, not at the first result
        if tile or tta:
            pictures = read_items(items, lambda picture: picture, stride)
            return (self._looked(p, limits, batch, tile, overlap, tta) for p in pictures)
        return self._in_batches(read_items(items, self._ready, stride, batch), limits, batch)

    def _ready(self, picture: Picture) -> _Ready:
        """Letterbox a picture."""
        if picture.image is None:
            return _Ready(picture, None)
        letterbox = self.inference.letterbox((picture.image.shape[0], picture.image.shape[1]))
        return _Ready(picture, (_input(letterbox.pixels(picture.image)), letterbox))

    def _in_batches(self, ready: Iterator[_Ready], limits: Thresholds, batch: int) -> Iterator[Result]:
        """Detect on ``batch`` pictures at once; those that could not be read take no place in it."""
        while group := list(islice(ready, batch)):
            inputs = [one.input for one in group if one.input is not None]
            found = iter(self.inference([pixels for pixels, _ in inputs], [box for _, box in inputs], limits))
            for one in group:
                yield self._result(one.picture, next(found) if one.input is not None else None)

    def _looked(
        self, picture: Picture, limits: Thresholds, batch: int, tile: bool, overlap: float, tta: bool
    ) -> Result:
        """Detect on one picture by several views of it."""
        if picture.image is None:
            return self._result(picture, None)
        size = (picture.image.shape[0], picture.image.shape[1])
        plan = views(size, self.preprocess, self.inference.step, tile, overlap, tta, self._mirrors)
        found: list[Detections] = []
        for at in range(0, len(plan), batch):
            group = plan[at : at + batch]
            pixels = [_input(view.pixels(picture.image)) for view in group]
            shown = self.inference.candidates(pixels, [view.letterbox for view in group], limits)
            found += [view.back(one, size) for view, one in zip(group, shown, strict=True)]
        return self._result(picture, merge(found, plan, limits))

    def _result(self, picture: Picture, found: Detections | None) -> Result:
        if found is None:
            none = torch.zeros(0)
            found = Detections(torch.zeros(0, 4), none, none.long(), (0, 0))
        return Result(
            picture.source, found, self.names, picture.error, picture.image, picture.path, picture.frame,
            picture.seconds, picture.rate, picture.note,
        )  # fmt: skip


def _input(pixels: Any) -> torch.Tensor:
    """Return network input [3, H, W] uint8 of pixels [H, W, 3]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)
