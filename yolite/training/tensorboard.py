"""What TensorBoard shows of a run: every number of metrics.jsonl and some predictions, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from yolite.data.images import ImageError, read_image
from yolite.draw import draw_detections
from yolite.structures import Detections, Sample

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PICTURES = 4
"""Validation pictures that are drawn every epoch, the first ones."""

CONFIDENCE = 0.25
"""Least score of a drawn box; the metric's own threshold would cover the picture with boxes."""

LONGEST = 640
"""Pictures are shrunk to this many px: they are written every epoch."""


def tag(key: str) -> str:
    """Return the name under which TensorBoard groups a number of metrics.jsonl."""
    if key == "val_loss":
        return "loss/validation"
    if key.startswith("loss_"):
        return f"loss/{key.removeprefix('loss_')}"
    return f"{'metric' if key.startswith(('AP', 'AR')) else 'training'}/{key}"


class TensorBoard:
    """A listener of the trainer that writes event files; a step is an epoch.

    Args:
        folder: Where the event files go.
        samples: The validation samples.
        names: Class names.
    """

    def __init__(self, folder: Path, samples: Sequence[Sample], names: Sequence[str]) -> None:
        self.folder, self.names = folder, names
        self.paths = [sample.path for sample in samples[:PICTURES]]
        self._writer: SummaryWriter | None = None

    def __call__(self, row: dict[str, Any], found: list[Detections]) -> None:
        """Write an epoch's numbers and pictures."""
        epoch = int(row["epoch"])
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # After a resume: whatever an earlier sitting wrote from this epoch on does not count.
            self._writer = SummaryWriter(str(self.folder), purge_step=epoch)
        for key, value in row.items():
            if key not in ("epoch", "step"):
                self._writer.add_scalar(tag(key), value, epoch)
        for path, detections in zip(self.paths, found, strict=False):
            if path is not None and (picture := self._draw(path, detections)) is not None:
                self._writer.add_image(f"validation/{path.name}", picture, epoch, dataformats="HWC")
        # whoever looks while the run goes on sees whole epochs, and a kill loses none
        self._writer.flush()

    def _draw(self, path: Path, found: Detections) -> np.ndarray | None:
        """Return the picture [H, W, 3] with its boxes; None where its file cannot be read (the trainer says so)."""
        try:
            image = read_image(path)
        except ImageError:
            return None
        drawn = draw_detections(image, found[found.scores >= CONFIDENCE], self.names)
        scale = min(1.0, LONGEST / max(drawn.shape[:2]))
        return drawn if scale == 1 else cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
