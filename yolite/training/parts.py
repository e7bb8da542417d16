"""The parts of the loss, one function each: where the box is, whether there is one, what it is.

All return sums; `yolite.training.loss.DetectionLoss` chooses among them, weighs them and divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from yolite.boxes import IoUKind, area, matched_iou, pairwise_iou, pairwise_overlap_share
from yolite.codec import code, encode_code, prior_code, probability
from yolite.structures import HeadSpec, ObjectnessCode, Size, Targets

Error = Literal["cross_entropy", "squared"]


def box_loss(predicted: Tensor, target: Tensor, kind: IoUKind = "ciou") -> Tensor:
    """Return 1 − IoU [P] of the chosen kind between paired boxes [P, 4] (arXiv 1911.08287, eq. 10 for CIoU)."""
    return 1 - matched_iou(predicted, target, kind)


def squared_box_loss(t: Tensor, target: Tensor, spec: HeadSpec, anchor: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return the squared error [P] of the four numbers that the code makes of a box.

    YOLOv1 (arXiv 1506.02640, eq. 3, first two lines): the centre's place in its cell, and √w and √h as shares of the
    input. YOLOv2 and v3 (YOLO9000, eq. 1 to 4): σ(t_xy), and t_wh against ln(side / anchor). Darknet's gradients are
    half of this one's.

    Args:
        t: [P, 4] raw tx, ty, tw, th at (anchor, row, column).
        target: [P, 4] xyxy, input px.
        spec: How to read them.
        anchor: [P].
        row: [P].
        column: [P].
    """
    return (code(t, spec) - encode_code(target, spec, anchor, row, column)).square().sum(-1)


def small_box_factor(target: Tensor, size: Size) -> Tensor:
    """Return 2 − w·h [P] of boxes [P, 4] (input px) in an input of ``size`` (H, W), w and h as shares of it.

    YOLOv3's code (src/yolo_layer.c) weighs the box errors so: the same error in px matters more on a small box.
    """
    return 2 - area(target) / (size[0] * size[1])


def prior_loss(t: Tensor, spec: HeadSpec) -> Tensor:
    """Return the summed squared error of raw tx, ty, tw, th [N, 4] to each anchor's own box in the middle of its cell.

    YOLOv2's code (src/region_layer.c) adds 0.01 times this for predictions without an object while it sees the first
    12,800 images, so that every anchor begins as what k-means made it.
    """
    return (code(t, spec) - prior_code(spec, t)).square().sum()


def objectness_loss(
    raw: Tensor, target: Tensor, weight: Tensor, kind: Error = "cross_entropy", read: ObjectnessCode = "sigmoid"
) -> Tensor:
    """Return the summed error of the objectness of all predictions of a level.

    Args:
        raw: [B, A, H, W].
        target: The same shape, in [0, 1]: at a positive the IoU of its box with its object (YOLOv1: "confidence is
            Pr(Object) · IoU") or 1 (YOLOv3), elsewhere 0.
        weight: The same shape: 0 where a prediction is ignored.
        kind: ``cross_entropy`` (binary, YOLOv3, section 2.1), or ``squared`` (YOLOv1, eq. 3, lines three and four;
            YOLOv2, of σ(t)).
        read: How raw objectness is coded; a cross entropy needs ``sigmoid``.
    """
    if kind == "squared":
        return (weight * (probability(raw, read) - target).square()).sum()
    return F.binary_cross_entropy_with_logits(raw, target, weight=weight, reduction="sum")


def class_loss(
    logits: Tensor, labels: Tensor, spec: HeadSpec, smoothing: float = 0.0, weights: Sequence[float] = (),
    kind: Error = "cross_entropy",
) -> Tensor:  # fmt: skip
    """Return the summed class loss of the positives.

    Args:
        logits: [P, classes] raw numbers.
        labels: [P] int64.
        spec: Says how they are coded; of cross entropies ``sigmoid`` has one a class (YOLOv3, section 2.2),
            ``softmax`` one in all (YOLOv2), ``linear`` none.
        smoothing: Share s of the target spread evenly over the K classes: (1 - s) · one-hot + s / K
            (label smoothing: arXiv 1512.00567, section 7).
        weights: One a class: a positive's whole class loss is multiplied by that of its label; empty: all 1.
        kind: ``cross_entropy``, or ``squared``: Σ (p − p̂)² over the classes (YOLOv1, eq. 3, last line).
    """
    # without weights the sum is torch's own: the bits of earlier runs
    reduction = "none" if weights else "sum"
    if kind == "cross_entropy" and spec.class_code == "softmax":
        loss = F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=smoothing)
    else:
        wanted = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        if smoothing:
            wanted = wanted * (1 - smoothing) + smoothing / logits.shape[-1]
        if kind == "squared":
            loss = F.mse_loss(probability(logits, spec.class_code), wanted, reduction=reduction)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction=reduction)
        loss = loss.sum(-1) if weights else loss
    return (loss * logits.new_tensor(weights)[labels]).sum() if weights else loss


@torch.no_grad()
def ignored(boxes: Tensor, targets: Targets, iou: float) -> Tensor:
    """Say which predictions overlap an object so well that calling them background would be wrong.

    Args:
        boxes: [B, N, 4] decoded, input px.
        targets: Objects; for crowd and difficult ones the share of the prediction inside counts instead of the IoU.
        iou: Threshold.

    Returns:
        [B, N] bool.
    """
    out = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    # one question to the device for all pictures: which boxes are whose, and which of them count as crowd
    group = 2 * targets.image + targets.ignore
    counts = (group == torch.arange(2 * len(boxes), device=group.device)[:, None]).sum(1).tolist()
    parts = targets.boxes[group.argsort(stable=True)].to(boxes.dtype).split(counts)
    for place in range(boxes.shape[0]):
        real, crowd = parts[2 * place : 2 * place + 2]
        if len(real):
            out[place] |= pairwise_iou(boxes[place], real).amax(1) > iou
        if len(crowd):
            out[place] |= pairwise_overlap_share(boxes[place], crowd).amax(1) > iou
    return out
