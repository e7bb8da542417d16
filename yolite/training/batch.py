"""The largest batch that fits on a GPU, found by trying."""

from __future__ import annotations

from collections.abc import Callable

import torch

from yolite.devices import HALF
from yolite.models.detector import Detector
from yolite.structures import Size

USUAL = 16
"""The batch where there is no GPU to fill."""
MOST = 512
SHARE = 0.9
"""Share of the GPU's memory that a step may take."""


def largest(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest power of two up to ``most`` that fits, trying upwards (0: not even 1 does)."""
    batch = 0
    trial = 1
    while trial <= most and fits(trial):
        batch, trial = trial, trial * 2
    return batch


def choose_batch(detector: Detector, imgsz: Size, multi_scale: float, precision: str, images: int) -> tuple[int, str]:
    """Decide ``train.batch: auto`` for one process; return (batch, reason).

    Args:
        detector: On its device; its gradients are used and thrown away, its BN statistics left as they were.
        imgsz: Input (H, W).
        multi_scale: The largest size it will see is (1 + this) times ``imgsz``.
        precision: Of the step.
        images: Training images of this process: no batch is larger.
    """
    device = next(detector.parameters()).device
    if device.type != "cuda":
        return min(USUAL, images), "no GPU to fill"
    height, width = (round(side * (1 + multi_scale)) // 32 * 32 for side in imgsz)
    total = torch.cuda.get_device_properties(device).total_memory

    def fits(batch: int) -> bool:
        torch.cuda.reset_peak_memory_stats(device)
        try:
            dtype = HALF.get(precision)
            images = torch.rand(batch, 3, height, width, device=device)
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                maps = detector(images)
            sum(m.float().square().mean() for m in maps).backward()
        except torch.cuda.OutOfMemoryError:
            return False
        return torch.cuda.max_memory_reserved(device) <= SHARE * total

    state = {name: value.clone() for name, value in detector.state_dict().items()}
    batch = largest(fits, min(MOST, images))
    detector.load_state_dict(state)
    detector.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    # a batch that does not fit fails at the first step with torch's own words
    return max(1, batch), f"the largest power of two that fits in {SHARE:.0%} of {total / 2**30:.0f} GiB"
