"""What was found on one picture, and the forms in which other programs take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from yolite.boxes import xyxy_to_xywh
from yolite.data.images import write_image
from yolite.draw import draw_detections
from yolite.errors import UserError
from yolite.geometry import Image
from yolite.structures import Detections


@dataclass(frozen=True)
class Result:
    """What was found on one picture, or on one frame of a video.

    Attributes:
        source: Where the picture is from: its path, the video's path, the stream's address, or ``picture N`` for the
            N-th one (from 0) that was given as pixels or bytes.
        detections: Boxes in image px; empty where ``error`` is set.
        names: Class names; ``detections.labels`` index them.
        error: Why the picture could not be read, or None.
        image: [H, W, 3] uint8 RGB, or None where it could not be read.
        path: The file, or None where there is none.
        frame: Number of the frame in its video, from 0, or None.
        seconds: When it is shown (of a stream: when it came), from the start of the video, or None.
        rate: Frames a second of its video as far as it states them, or None.
        note: What people should know though the picture could be read, or None.
    """

    source: str
    detections: Detections
    names: list[str]
    error: str | None
    image: Image | None
    path: Path | None = None
    frame: int | None = None
    seconds: float | None = None
    rate: float | None = None
    note: str | None = None

    @property
    def boxes(self) -> Tensor:
        """[N, 4] float32 xyxy, image px."""
        return self.detections.boxes

    @property
    def scores(self) -> Tensor:
        """[N] float32, best first."""
        return self.detections.scores

    @property
    def labels(self) -> Tensor:
        """[N] int64."""
        return self.detections.labels

    def drawn(self) -> Image:
        """Return the picture [H, W, 3] uint8 RGB with its boxes.

        Raises:
            UserError: the picture could not be read.
        """
        if self.image is None:
            raise UserError(f"{self.source} could not be read: {self.error}")
        return draw_detections(self.image, self.detections, self.names)

    def save(self, path: str | Path) -> None:
        """Write the picture with its boxes drawn; the format follows the ending of ``path``.

        Raises:
            UserError: the picture could not be read, or ``path`` cannot be written.
        """
        write_image(Path(path), self.drawn())

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this picture in detect's JSON; a frame has ``frame`` and ``seconds`` too."""
        height, width = self.detections.size
        entries = [
            {"label": label, "name": self.names[label], "score": round(score, 6), "box": [round(v, 3) for v in box]}
            for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        ]
        place = {} if self.frame is None else {"frame": self.frame, "seconds": self.seconds}
        return {
            "path": self.source, **place, "width": width, "height": height, "error": self.error, "detections": entries,
        }  # fmt: skip

    def to_coco(
        self, image_id: int | str | None = None, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Return the boxes as entries of a COCO results file: ``bbox`` is [left, top, width, height] in image px.

        Args:
            image_id: Id of the image; None takes the file's stem (as a number if it is one), which is COCO's own way.
            category_ids: The data set's id of each label; None takes 1 for label 0, and so on.

        Raises:
            UserError: no id was given and there is no file to take it from.
        """
        if image_id is None:
            if self.path is None:
                raise UserError(f"{self.source} is no file that could name its COCO image: give to_coco an image_id")
            image_id = int(self.path.stem) if self.path.stem.isdecimal() else self.path.stem
        ids = category_ids or range(1, len(self.names) + 1)
        rows = zip(xyxy_to_xywh(self.boxes).tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score} for box, score, label in rows
        ]

    def to_supervision(self) -> Any:
        """Return the boxes as ``supervision.Detections``, for its trackers, zones and annotators.

        Raises:
            UserError: supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError:
            raise UserError("to_supervision needs supervision: pip install 'yolite[supervision]'") from None
        import numpy as np

        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array([self.names[label] for label in self.labels.tolist()], dtype=str)},
        )
