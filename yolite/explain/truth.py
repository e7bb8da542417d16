"""What training asks of predictions: who is positive, ignored, negative, and what each object costs.

All of it is said by `yolite.training`: `assign` chooses the positives, `DetectionLoss.goals` what is asked of the rest,
and its parts are summed over each object's own predictions instead of over all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolite.anchors import side_ratio
from yolite.boxes import matched_iou, shape_iou, xyxy_to_cxcywh
from yolite.codec import Decoded, anchors_of, decode, decode_at, probability, split
from yolite.explain.trace import Place
from yolite.structures import Assignment, HeadSpec, LossOutput, Targets
from yolite.training.assign import assign
from yolite.training.loss import DetectionLoss
from yolite.training.parts import class_loss, objectness_loss


@dataclass(frozen=True)
class Positive:
    """A prediction that answers for an object.

    Attributes:
        image: Of the batch.
        place: Which prediction.
        target: The object: a row of the targets.
        shape_iou: IoU of the shapes of its anchor and the object.
        iou: IoU of its box, as predicted now, with the object.
        objectness: As predicted now.
        goal: What its objectness aims at.
    """

    image: int
    place: Place
    target: int
    shape_iou: float
    iou: float
    objectness: float
    goal: float


@dataclass(frozen=True)
class Truth:
    """What is asked of all predictions.

    Attributes:
        targets: The objects, input px.
        positives: Every one.
        positive, ignored: [B, A, H, W] bool of each level; what is neither is negative.
        parts: [M, 3] what each object costs: box, objectness, classes; weighted and divided as in training.
        rest: What the predictions without an object cost: objectness alone.
        loss: Of the whole, as training computes it: ``parts`` and ``rest`` add up to its parts.
        divisor: What the sums are divided by.
    """

    targets: Targets
    positives: list[Positive]
    positive: list[Tensor]
    ignored: list[Tensor]
    parts: Tensor
    rest: float
    loss: LossOutput
    divisor: float

    @property
    def orphans(self) -> list[int]:
        """Objects to be learned that no prediction answers for: rows of the targets."""
        answered = {p.target for p in self.positives}
        return [i for i in (~self.targets.ignore).nonzero()[:, 0].tolist() if i not in answered]


def read_truth(maps: Sequence[Tensor], specs: Sequence[HeadSpec], targets: Targets, loss: DetectionLoss) -> Truth:
    """Say what training asks of these raw maps.

    Args:
        maps: One [B, channels, H, W] a level.
        specs: How each is read.
        targets: The objects of the batch, input px.
        loss: That of the training.
    """
    decoded = [decode(raw, spec) for raw, spec in zip(maps, specs, strict=True)]
    grids = [(raw.shape[2], raw.shape[3]) for raw in maps]
    found = assign(targets, specs, grids, loss.rule, loss.ratio, loss.neighbours, [one.boxes for one in decoded])
    parts, rest = torch.zeros(len(targets.boxes), 3), 0.0
    positives: list[Positive] = []
    positive, ignored = [], []
    for level, (raw, one, own, spec) in enumerate(zip(maps, decoded, found, specs, strict=True)):
        values = split(raw, spec)[own.image, own.anchor, own.row, own.column].float()
        boxes = decode_at(values[:, :4], spec, own.anchor, own.row, own.column)
        wanted = targets.boxes[own.target]
        goal, weight, is_positive = loss.goals(one, own, boxes, wanted, targets)
        positive.append(is_positive)
        ignored.append((weight == 0) & ~is_positive)
        positives += _positives(level, own, boxes, wanted, one, goal, spec)
        parts += _costs(loss, own, values, boxes, one, goal, weight, targets, spec)
        rest += float(_objectness(loss, one, goal, weight, ~is_positive, spec))
    divisor = loss.divisor(len(positives), maps[0].shape[0])
    weights = torch.tensor([loss.box, loss.objectness, loss.classes])
    return Truth(targets, positives, positive, ignored, parts * weights / divisor, rest * loss.objectness / divisor,
                 loss(maps, targets, specs, seen=math.inf), divisor)  # fmt: skip


def _positives(
    level: int, own: Assignment, boxes: Tensor, wanted: Tensor, one: Decoded, goal: Tensor, spec: HeadSpec
) -> list[Positive]:
    """Return the positives of a level with what is to be known of them."""
    shape = shape_iou(xyxy_to_cxcywh(wanted)[:, 2:], anchors_of(spec, wanted))
    rows = zip(own.image.tolist(), own.anchor.tolist(), own.row.tolist(), own.column.tolist(), own.target.tolist(),
               shape[torch.arange(len(wanted)), own.anchor].tolist(), matched_iou(boxes, wanted).tolist(),
               strict=True)  # fmt: skip
    out = []
    for image, anchor, row, column, target, by_shape, iou in rows:
        at = (image, anchor, row, column)
        present = float(probability(one.objectness[at], spec.objectness))
        out.append(Positive(image, Place(level, anchor, row, column), target, by_shape, iou, present, float(goal[at])))
    return out


def _objectness(
    loss: DetectionLoss, one: Decoded, goal: Tensor, weight: Tensor, which: Tensor, spec: HeadSpec
) -> Tensor:
    """Return the summed objectness error of those predictions [B, A, H, W] that ``which`` selects."""
    return objectness_loss(one.objectness[which], goal[which], weight[which], loss.objectness_by, spec.objectness)


def _costs(
    loss: DetectionLoss, own: Assignment, values: Tensor, boxes: Tensor, one: Decoded, goal: Tensor, weight: Tensor,
    targets: Targets, spec: HeadSpec,
) -> Tensor:  # fmt: skip
    """Return the sums (box, objectness, classes) [M, 3] of each object on one level, neither weighted nor divided.

    A prediction that several objects want is one term of the objectness: it counts for the one whose IoU it aims at.
    """
    out = torch.zeros(len(targets.boxes), 3)
    wanted = targets.boxes[own.target]
    rows, columns = one.objectness.shape[2:]
    errors = loss.box_errors(values[:, :4], boxes, wanted, own, spec, (rows * spec.stride, columns * spec.stride))
    labels = targets.labels[own.target]
    quality = matched_iou(boxes, wanted)
    taken = torch.zeros_like(goal, dtype=torch.bool)
    for p in quality.argsort(descending=True, stable=True).tolist():
        target = int(own.target[p])
        out[target, 0] += errors[p]
        out[target, 2] += class_loss(values[p : p + 1, 5:], labels[p : p + 1], spec, loss.label_smoothing,
                                     loss.class_weights, loss.classes_by)  # fmt: skip
        at = (int(own.image[p]), int(own.anchor[p]), int(own.row[p]), int(own.column[p]))
        if not taken[at]:
            taken[at] = True
            this = torch.zeros_like(taken)
            this[at] = True
            out[target, 1] += _objectness(loss, one, goal, weight, this, spec)
    return out


def why_alone(truth: Truth, row: int, specs: Sequence[HeadSpec], loss: DetectionLoss) -> str:
    """Say why an object has no positive.

    Args:
        truth: What was asked.
        row: The object, of ``truth.orphans``.
        specs: How each level is read.
        loss: That of the training.
    """
    if loss.rule != "ratio":
        what = "cell" if loss.rule == "best_iou" else "anchor of that cell"
        return f"another object, listed before it, has its {what}"
    wh = xyxy_to_cxcywh(truth.targets.boxes[row])[None, 2:]
    best = min(float(side_ratio(wh, anchors_of(spec, wh)).min()) for spec in specs)
    return f"its sides differ from those of the nearest anchor by a factor of {best:.2f}; {loss.ratio:g} is too much"
