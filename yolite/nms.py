"""Non-maximum suppression: of boxes that overlap, keep the one with the best score."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms as _kernel


def hard_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou: float,
    max_det: int,
    class_wise: bool = True,
) -> tuple[Tensor, bool]:
    """Greedy NMS: walk the boxes from the best score down; drop each that overlaps a kept one by *more than* ``iou``.

    Every candidate is considered; no time limit cuts the work. A box can only be dropped by a better one, so the
    first ``max_det`` survivors of the best k candidates are those of all candidates: k grows until it suffices,
    which makes a hundred thousand weak candidates cheap without changing the result.

    Args:
        boxes: [N, 4] float, xyxy.
        scores: [N] float.
        labels: [N] int64; boxes of different classes do not suppress each other if ``class_wise``.
        iou: Overlap threshold in [0, 1]; a pair at exactly this IoU stays.
        max_det: Most boxes to keep.
        class_wise: False lets any box suppress any other (class-agnostic).

    Returns:
        Indices [K] int64 of the kept boxes, best score first (equal scores: lower index first), and whether more
        than ``max_det`` would have survived.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    boxes64 = boxes[order].double()
    if class_wise and boxes.numel():
        # A shift wider than any box moves each class to a place of its own (float64, so that no IoU changes).
        span = boxes64.max() - boxes64.min() + 1
        boxes64 = boxes64 + (labels[order].double() * span)[:, None]
    rank = scores[order].double()
    take = max(1024, 4 * max_det)
    while True:
        kept = _kernel(boxes64[:take], rank[:take], iou)
        if len(kept) > max_det or take >= len(order):
            break
        take *= 4
    kept = kept.sort().values  # the kernel's own order of equal scores is not promised
    result: Tensor = order[kept[:max_det]]
    return result, len(kept) > max_det
