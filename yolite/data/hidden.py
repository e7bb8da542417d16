"""What lies under something else: how much of each box a hole or a pasted picture leaves to be seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def visible_share(hidden: np.ndarray, boxes: Tensor) -> Tensor:
    """Return the share [N] of each box's area that is not hidden.

    Args:
        hidden: [H, W] bool.
        boxes: [N, 4] xyxy, px of ``hidden``, inside it; their edges are taken outwards to whole px.
    """
    low, high = np.floor(boxes[:, :2].numpy()).astype(int), np.ceil(boxes[:, 2:].numpy()).astype(int)
    shares = [1 - hidden[y1:y2, x1:x2].mean() for (x1, y1), (x2, y2) in zip(low, high, strict=True)]
    return torch.tensor(shares, dtype=torch.float32)
