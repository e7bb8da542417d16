"""Box formats and overlap: the only place where areas, intersections and IoUs are computed.

Boxes are tensors whose last dimension is 4. Unless a name says otherwise they are ``xyxy``: (x1, y1, x2, y2) with
x1 <= x2 and y1 <= y2, continuous coordinates, no "+1" on widths. Every function keeps the dtype and device of its
input and works for an empty [0, 4].
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

IoUKind = Literal["iou", "giou", "diou", "ciou"]


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert [..., 4] (x1, y1, x2, y2) to (centre x, centre y, width, height), same units."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert [..., 4] (centre x, centre y, width, height) to (x1, y1, x2, y2), same units."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert [..., 4] COCO boxes (left, top, width, height) to (x1, y1, x2, y2), same units."""
    x, y, w, h = boxes.unbind(-1)
    return torch.stack((x, y, x + w, y + h), dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Convert [..., 4] (x1, y1, x2, y2) to COCO boxes (left, top, width, height), same units."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1, y1, x2 - x1, y2 - y1), dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Return the area [...] of xyxy boxes [..., 4]; an inverted side counts as zero."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip xyxy boxes [..., 4] in px to an image of ``size`` (height, width)."""
    height, width = size
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def mirrored(boxes: Tensor, length: float, axis: int) -> Tensor:
    """Mirror xyxy boxes [..., 4] in an image of this ``length`` along ``axis`` (0: left-right, 1: top-bottom)."""
    out = boxes.clone()
    out[..., axis], out[..., axis + 2] = length - boxes[..., axis + 2], length - boxes[..., axis]
    return out


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the overlap area of broadcastable xyxy boxes [..., 4]."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    side = (high - low).clamp(min=0)
    return side[..., 0] * side[..., 1]


def _iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return (IoU, union) of broadcastable xyxy boxes [..., 4]; 0 / 0 counts as 0."""
    inter = _intersection(a, b)
    union = area(a) + area(b) - inter
    return inter / union.clamp(min=torch.finfo(union.dtype).tiny), union


def _columns(boxes: Tensor) -> Tensor:
    """Return the same boxes [N, 4] with each coordinate lying in one piece: torch then works on many boxes at once."""
    return boxes.t().contiguous().t()


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU [N, M] of every box of ``a`` [N, 4] with every box of ``b`` [M, 4] (both xyxy, same space)."""
    return _iou(_columns(a)[:, None, :], b[None, :, :])[0]


def overlap_share(a: Tensor, b: Tensor) -> Tensor:
    """Return [N]: the share of each box of ``a`` [N, 4] that lies inside the box of ``b`` [N, 4] in the same row.

    This is what pycocotools uses in place of IoU where ``b`` is a crowd.
    """
    own = area(a)
    return _intersection(a, b) / own.clamp(min=torch.finfo(own.dtype).tiny)


def pairwise_overlap_share(a: Tensor, b: Tensor) -> Tensor:
    """Return [N, M]: `overlap_share` of every box of ``a`` [N, 4] with every box of ``b`` [M, 4]."""
    return overlap_share(_columns(a)[:, None, :], b[None, :, :])


def matched_iou(a: Tensor, b: Tensor, kind: IoUKind = "iou") -> Tensor:
    """Return the elementwise overlap measure [N] of ``a`` [N, 4] with ``b`` [N, 4] (xyxy, same space).

    Args:
        a: Predicted boxes; gradients flow through them.
        b: Target boxes, paired with ``a`` row by row.
        kind: ``iou``; ``giou`` = IoU − (C − U) / C with C the area of the enclosing box (arXiv 1902.09630, eq. 4);
            ``diou`` = IoU − d² / c² with d the distance of the centres and c the diagonal of the enclosing box
            (arXiv 1911.08287, eq. 6 to 7); ``ciou`` = DIoU − αv with v = 4/π² (atan(w_b / h_b) − atan(w_a / h_a))²
            and α = v / (1 − IoU + v), held constant in the backward pass (same paper, eq. 8 to 12).

    Returns:
        [N]: IoU in [0, 1]; the others in (−1, 1] (CIoU a little below −1 at the worst).
    """
    iou, union = _iou(a, b)
    if kind == "iou":
        return iou
    tiny = torch.finfo(iou.dtype).eps
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    side = high - low
    if kind == "giou":
        enclosing = side[..., 0] * side[..., 1]
        return iou - (enclosing - union) / enclosing.clamp(min=tiny)
    diagonal2 = side.square().sum(-1)
    offset = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    diou = iou - offset.square().sum(-1) / diagonal2.clamp(min=tiny)
    if kind == "diou":
        return diou
    wa, ha = (a[..., 2:] - a[..., :2]).unbind(-1)
    wb, hb = (b[..., 2:] - b[..., :2]).unbind(-1)
    aspect = torch.atan(wb / hb.clamp(min=tiny)) - torch.atan(wa / ha.clamp(min=tiny))
    v = 4 / math.pi**2 * aspect.square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + tiny)
    return diou - alpha * v


def shape_iou(a_wh: Tensor, b_wh: Tensor) -> Tensor:
    """Return the IoU [N, M] of box shapes (width, height) [N, 2] and [M, 2] laid on one common corner.

    It is what the k-means of YOLO9000 (section 2, "Dimension Clusters") and the anchor choice of YOLOv2 and v3 use.
    """
    corner_a = torch.cat((torch.zeros_like(a_wh), a_wh), dim=-1)
    corner_b = torch.cat((torch.zeros_like(b_wh), b_wh), dim=-1)
    return pairwise_iou(corner_a, corner_b)
