"""The multipart loss: where the box is, whether there is one, and what it is.

Each part is a sum over predictions divided by the number of positives (at least one an image), so its size does not
depend on the size of the grid, and a batch without any object has a finite loss (objectness alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from yolite.boxes import IoUKind, matched_iou, pairwise_iou, pairwise_overlap_share
from yolite.codec import decode, decode_at, split
from yolite.structures import Assignment, HeadSpec, LossOutput, Size, Targets
from yolite.training.assign import assign


def box_loss(predicted: Tensor, target: Tensor, kind: IoUKind = "ciou") -> Tensor:
    """Return 1 − IoU [P] of the chosen kind between paired boxes [P, 4] (arXiv 1911.08287, eq. 10 for CIoU)."""
    return 1 - matched_iou(predicted, target, kind)


def objectness_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the summed binary cross entropy of all predictions of a level.

    Args:
        logits: [B, A, H, W].
        target: The same shape, in [0, 1]: at a positive the IoU of its box with its object (YOLOv1: "confidence is
            Pr(Object) · IoU"), elsewhere 0.
        weight: The same shape: 0 where a prediction is ignored.
    """
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")


def class_loss(
    logits: Tensor, labels: Tensor, spec: HeadSpec, smoothing: float = 0.0, weights: Sequence[float] = ()
) -> Tensor:
    """Return the summed class loss of the positives.

    Args:
        logits: [P, classes].
        labels: [P] int64.
        spec: ``sigmoid``: one binary cross entropy a class (YOLOv3, section 2.2); ``softmax``: cross entropy.
        smoothing: Share s of the target spread evenly over the K classes: (1 - s) · one-hot + s / K
            (label smoothing: arXiv 1512.00567, section 7).
        weights: One a class: a positive's whole class loss is multiplied by that of its label; empty: all 1.
    """
    # without weights the sum is torch's own: the bits of earlier runs
    reduction = "none" if weights else "sum"
    if spec.class_code == "softmax":
        loss = F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=smoothing)
    else:
        wanted = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        if smoothing:
            wanted = wanted * (1 - smoothing) + smoothing / logits.shape[-1]
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
    for place in range(boxes.shape[0]):
        own = targets.image == place
        real, crowd = targets.boxes[own & ~targets.ignore], targets.boxes[own & targets.ignore]
        if len(real):
            out[place] |= pairwise_iou(boxes[place], real.to(boxes.dtype)).amax(1) > iou
        if len(crowd):
            out[place] |= pairwise_overlap_share(boxes[place], crowd.to(boxes.dtype)).amax(1) > iou
    return out


@dataclass(frozen=True)
class DetectionLoss:
    """The loss of a whole batch over all levels; it never sees the network.

    Attributes:
        box, objectness, classes: Weights of the parts.
        iou: Overlap measure of the box part.
        ratio, neighbours: The assignment's rule; see `yolite.training.assign.assign`.
        ignore_iou: Negatives above this overlap are ignored; 1 switches the rule off.
        label_smoothing, class_weights: See `class_loss`; the divisor stays the number of positives.
    """

    box: float
    objectness: float
    classes: float
    iou: IoUKind = "ciou"
    ratio: float = 4.0
    neighbours: bool = True
    ignore_iou: float = 0.7
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    names: tuple[str, ...] = field(default=("box", "objectness", "classes"), init=False)

    def level(self, raw: Tensor, targets: Targets, spec: HeadSpec) -> tuple[Tensor, Assignment]:
        """Return the unweighted sums (box, objectness, classes) [3] of one level, and its positives."""
        decoded = decode(raw, spec)
        _, anchors, rows, columns = decoded.objectness.shape
        found = assign(targets, spec, (rows, columns), self.ratio, self.neighbours)
        at = (found.image, found.anchor, found.row, found.column)
        t = split(raw, spec)[at].to(decoded.boxes.dtype)
        boxes = decode_at(t[:, :4], spec, found.anchor, found.row, found.column)
        wanted = targets.boxes[found.target].to(boxes.dtype)
        box = box_loss(boxes, wanted, self.iou).sum()
        quality = matched_iou(boxes.detach(), wanted)
        # Several objects may want one prediction; its confidence then aims at the best of them.
        flat = ((found.image * anchors + found.anchor) * rows + found.row) * columns + found.column
        target = torch.zeros_like(decoded.objectness).flatten().scatter_reduce(0, flat, quality, "amax")
        positive = torch.zeros_like(target, dtype=torch.bool).index_fill_(0, flat, True)
        weight = torch.ones_like(target)
        if self.ignore_iou < 1:
            near = ignored(decoded.boxes.detach().flatten(1, 3), targets, self.ignore_iou).flatten()
            weight = weight.masked_fill(near & ~positive, 0.0)
        shape = decoded.objectness.shape
        objectness = objectness_loss(decoded.objectness, target.view(shape), weight.view(shape))
        classes = class_loss(t[:, 5:], targets.labels[found.target], spec, self.label_smoothing, self.class_weights)
        return torch.stack((box, objectness, classes)), found

    def count(self, targets: Targets, specs: Sequence[HeadSpec], size: Size) -> Tensor:
        """Return the number of positives of each class [classes] that the loss of these targets will have.

        Known before the network has answered, so that a batch may be computed in parts and over several processes
        and still be divided by the positives of the whole.

        Args:
            targets: Boxes, input px.
            specs: How each map is read.
            size: (H, W) of the input in px.
        """
        labels = []
        for spec in specs:
            grid = (size[0] // spec.stride, size[1] // spec.stride)
            labels.append(targets.labels[assign(targets, spec, grid, self.ratio, self.neighbours).target])
        return torch.bincount(torch.cat(labels), minlength=specs[0].classes)

    def __call__(
        self, maps: Sequence[Tensor], targets: Targets, specs: Sequence[HeadSpec], divisor: float | None = None
    ) -> LossOutput:
        """Compute the loss.

        Args:
            maps: One raw map [B, A·(5 + classes), H, W] a level.
            targets: The batch's boxes, input px.
            specs: How to read each map.
            divisor: What the sums are divided by; None: the number of positives, at least one an image.
        """
        sums = maps[0].new_zeros(3, dtype=torch.float64 if maps[0].dtype == torch.float64 else torch.float32)
        positives = 0
        for raw, spec in zip(maps, specs, strict=True):
            level, found = self.level(raw, targets, spec)
            sums = sums + level
            positives += len(found.target)
        weights = sums.new_tensor([self.box, self.objectness, self.classes])
        parts = sums * weights / (max(positives, maps[0].shape[0]) if divisor is None else divisor)
        named = dict(zip(self.names, parts.detach().unbind(), strict=True))
        return LossOutput(parts.sum(), named, positives)
