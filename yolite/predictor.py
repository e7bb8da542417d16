"""The Python API: weights + images → boxes.

>>> from yolite import Predictor
>>> predictor = Predictor("runs/mine")  # doctest: +SKIP
>>> for result in predictor.predict(["a.jpg", "folder"]):  # doctest: +SKIP
...     print(result.path, result.boxes, result.scores, result.labels)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yolite.build import build_device
from yolite.data.images import ImageError, read_image, write_image
from yolite.defaults import CONF, IOU, MAX_DET
from yolite.draw import draw_detections
from yolite.geometry import Image, Letterbox
from yolite.inference import Inference
from yolite.nms import Method
from yolite.postprocess import Thresholds
from yolite.sources import image_paths
from yolite.structures import Detections, Size
from yolite.weights import open_model


@dataclass(frozen=True)
class Result:
    """What was found on one picture.

    Attributes:
        path: The file.
        detections: Boxes in image px; empty where ``error`` is set.
        names: Class names; ``detections.labels`` index them.
        error: Why the file could not be read, or None.
        image: [H, W, 3] uint8 RGB, or None where it could not be read.
    """

    path: Path
    detections: Detections
    names: list[str]
    error: str | None
    image: Image | None

    @property
    def boxes(self) -> torch.Tensor:
        """[N, 4] float32 xyxy, image px."""
        return self.detections.boxes

    @property
    def scores(self) -> torch.Tensor:
        """[N] float32, best first."""
        return self.detections.scores

    @property
    def labels(self) -> torch.Tensor:
        """[N] int64."""
        return self.detections.labels

    def save(self, path: str | Path) -> None:
        """Write the picture with its boxes drawn.

        Raises:
            ValueError: the picture could not be read.
        """
        if self.image is None:
            raise ValueError(f"{self.path} could not be read: {self.error}")
        write_image(Path(path), draw_detections(self.image, self.detections, self.names))

    def to_json(self) -> dict[str, Any]:
        """Return this picture's entry of the command contract's JSON."""
        height, width = self.detections.size
        entries = [
            {"label": label, "name": self.names[label], "score": round(score, 6), "box": [round(v, 3) for v in box]}
            for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        ]
        return {"path": str(self.path), "width": width, "height": height, "error": self.error, "detections": entries}


class Predictor:
    """A trained detector, ready for pictures.

    Args:
        weights: A checkpoint, or a run folder (its best).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        imgsz: Input (H, W) in px, multiples of the coarsest stride; None takes what it was trained at.

    Raises:
        UserError: the weights cannot be read, or the device does not exist.
    """

    def __init__(self, weights: str | Path, device: str = "auto", imgsz: Size | None = None) -> None:
        model = open_model(weights, build_device(device), imgsz)
        self.names = model.names
        self.preprocess = model.preprocess
        self.inference = Inference(model.network, model.preprocess)

    def predict(
        self,
        sources: str | Path | Sequence[str | Path],
        conf: float = CONF,
        iou: float = IOU,
        max_det: int = MAX_DET,
        batch: int = 1,
        nms: Method = "hard",
    ) -> Iterator[Result]:
        """Detect on image files, folders and patterns, one picture's result at a time.

        Args:
            sources: One or several.
            conf: Least score; a box gets its best class.
            iou: NMS threshold.
            max_det: Most boxes a picture.
            batch: Pictures at once.
            nms: How overlapping boxes are thinned out (`yolite.nms.suppress`).

        Raises:
            UserError: a source does not exist.
        """
        paths = image_paths([sources] if isinstance(sources, (str, Path)) else sources)
        limits = Thresholds(conf, iou, max_det, best_class=True, nms=nms)
        for start in range(0, len(paths), batch):
            yield from self._batch(paths[start : start + batch], limits)

    def _batch(self, paths: Sequence[Path], limits: Thresholds) -> Iterator[Result]:
        """Detect on a few files; unreadable ones give a result with ``error``."""
        images: list[Image | str] = []
        for path in paths:
            try:
                images.append(read_image(path))
            except ImageError as error:
                images.append(str(error))
        good = [image for image in images if not isinstance(image, str)]
        letterboxes = [Letterbox.fit((i.shape[0], i.shape[1]), self.preprocess) for i in good]
        found: list[Detections] = []
        if good:
            pixels = [
                torch.from_numpy(box.pixels(i)).permute(2, 0, 1) for box, i in zip(letterboxes, good, strict=True)
            ]
            found = self.inference(torch.stack(pixels), letterboxes, limits)
        results = iter(found)
        for path, image in zip(paths, images, strict=True):
            if isinstance(image, str):
                none = torch.zeros(0)
                empty = Detections(torch.zeros(0, 4), none, none.long(), (0, 0))
                yield Result(path, empty, self.names, image, None)
            else:
                yield Result(path, next(results), self.names, None, image)
