"""The largest batch that fits on a GPU, found by trying."""

from __future__ import annotations

from collections.abc import Callable

import torch

from yolite.defaults import input_step
from yolite.devices import HALF
from yolite.models.detector import Detector
from yolite.structures import Size, Targets
from yolite.training.loss import DetectionLoss
from yolite.training.step import sizes_of

USUAL = 16
"""The batch where there is no GPU to fill."""
MOST = 512
SHARE = 0.9
"""Share of the GPU's memory that a step may take."""
BOXES = 8
"""Boxes a picture of the trial."""
KEPT = 3
"""Times the weights that a training keeps besides them: two moments of the optimiser, the average."""


def largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest power of two up to ``most`` that fits, trying upwards (0: not even 1 does)."""
    batch = 0
    trial = 1
    while trial <= most and fits(trial):
        batch, trial = trial, trial * 2
    return batch


def try_step(detector: Detector, loss: DetectionLoss, batch: int, size: Size, precision: str) -> None:
    """Compute the gradients of a batch of noise of ``size`` (H, W) with some boxes a picture."""
    device = next(detector.parameters()).device
    images = torch.rand(batch, 3, *size, device=device)
    height, width = size
    box = torch.tensor([0.3 * width, 0.3 * height, 0.6 * width, 0.7 * height], device=device)
    place = torch.arange(batch, device=device).repeat_interleave(BOXES)
    none = torch.zeros_like(place)
    targets = Targets(box.expand(len(place), 4), none, place, none.bool())
    dtype = HALF.get(precision)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        maps = detector(images)
    loss([m.float() for m in maps], targets, detector.specs, float(len(place)), 0).total.backward()


def choose_batch(
    detector: Detector, loss: DetectionLoss, imgsz: Size, multi_scale: float, precision: str, images: int
) -> tuple[int, str]:
    """Decide ``train.batch: auto`` for one process; return (batch, reason).

    Args:
        detector: On its device; its gradients are used and thrown away, its BN statistics left as they were.
        loss: Of the training.
        imgsz: Input (H, W).
        multi_scale: The largest size it will see is (1 + this) times ``imgsz``.
        precision: Of the step.
        images: Training images of this process: no batch is larger.
    """
    device = next(detector.parameters()).device
    if device.type != "cuda":
        return min(USUAL, images), "no GPU to fill"
    size = sizes_of(imgsz, multi_scale, input_step(spec.stride for spec in detector.specs))[-1]
    total = torch.cuda.get_device_properties(device).total_memory
    later = KEPT * sum(4 * p.numel() for p in detector.parameters())

    def fits(batch: int) -> bool:
        torch.cuda.reset_peak_memory_stats(device)
        try:
            try_step(detector, loss, batch, size, precision)
        except torch.cuda.OutOfMemoryError:
            return False
        return torch.cuda.max_memory_reserved(device) + later <= SHARE * total

    state = {name: value.clone() for name, value in detector.state_dict().items()}
    batch = largest(fits, min(MOST, images))
    detector.load_state_dict(state)
    detector.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    # a batch that does not fit fails at the first step with torch's own words
    return max(1, batch), f"the largest power of two that fits in {SHARE:.0%} of {total / 2**30:.0f} GiB"
