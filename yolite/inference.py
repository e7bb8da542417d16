"""One trained network at work: the forward pass that validation, evaluation, detection and the Predictor share."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from yolite.errors import UserError
from yolite.geometry import Letterbox
from yolite.models.detector import Detector, fused
from yolite.postprocess import Thresholds, postprocess
from yolite.structures import Detections, Preprocess


class Inference:
    """A detector fused for inference, float32, with the seconds it spends.

    Args:
        detector: A trained detector; it is copied, not changed.
        preprocess: How its input is made.
        device: Where to run.

    Raises:
        UserError: its input size is fixed to another than that of ``preprocess``.

    Attributes:
        seconds: Spent on ``preprocess`` (normalisation), ``forward`` and ``postprocess`` so far.
    """

    def __init__(self, detector: Detector, preprocess: Preprocess, device: torch.device) -> None:
        try:
            detector.check_size(preprocess.size)
        except ValueError as error:
            raise UserError(f"this network cannot be used so: {error}") from None
        self.detector = fused(detector).to(device).to(memory_format=torch.channels_last)
        self.preprocess = preprocess
        self.device = device
        self.seconds = {"preprocess": 0.0, "forward": 0.0, "postprocess": 0.0}

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the raw maps of letterboxed uint8 images [B, 3, H, W]."""
        start = self._now()
        x = self.preprocess.normalise(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        ready = self._now()
        maps: list[Tensor] = self.detector(x)
        self.seconds["preprocess"] += ready - start
        self.seconds["forward"] += self._now() - ready
        return maps

    @torch.inference_mode()
    def finish(self, maps: Sequence[Tensor], letterboxes: Sequence[Letterbox], limits: Thresholds) -> list[Detections]:
        """Turn raw maps into boxes in image px."""
        start = self._now()
        found = postprocess(maps, self.detector.specs, letterboxes, limits)
        self.seconds["postprocess"] += self._now() - start
        return found

    def __call__(self, images: Tensor, letterboxes: Sequence[Letterbox], limits: Thresholds) -> list[Detections]:
        """Detect on letterboxed uint8 images [B, 3, H, W]."""
        return self.finish(self.forward(images), letterboxes, limits)
