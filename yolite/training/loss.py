"""The multipart loss: where the box is, whether there is one, and what it is.

Every generation of YOLO is a choice of parts (`yolite.training.parts`), of the rule that gives objects to predictions
(`yolite.training.assign`) and of weights: the ``loss`` section of its file in configs/.

Each part is a sum over predictions divided by the number of positives (at least one an image), or by that of images.
So its size does not depend on that of the grid, and a batch without any object has a finite loss (objectness alone).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from yolite.boxes import IoUKind, matched_iou
from yolite.codec import Decoded, decode, decode_at, split
from yolite.structures import Assignment, HeadSpec, LossOutput, Size, Targets
from yolite.training.assign import Rule, assign
from yolite.training.parts import (
    Error,
    box_loss,
    class_loss,
    ignored,
    objectness_loss,
    prior_loss,
    small_box_factor,
    squared_box_loss,
)


@dataclass(frozen=True)
class DetectionLoss:
    """The loss of a whole batch over all levels; it never sees the network.

    Attributes:
        box, objectness, classes: Weights of the parts.
        iou: Overlap measure of the box part.
        ratio, neighbours, rule: Who answers for whom; see `yolite.training.assign.assign`.
        ignore_iou: Negatives above this overlap are ignored; 1 switches the rule off.
        label_smoothing, class_weights: See `class_loss`; the divisor stays the number of positives.
        box_by: ``overlap`` (1 − IoU of the decoded boxes) or ``squared`` (errors in the code's own numbers).
        favour_small: Multiply each box error by `small_box_factor`.
        objectness_by, classes_by: The error of these parts.
        objectness_target: Of a positive: the ``iou`` it reaches, or ``one``.
        object, no_object: Weights, inside the objectness part, of positives and of the others.
        prior, prior_images: Weight, inside the box part, of `prior_loss` while fewer images than these were seen.
        divide_by: ``positives`` or ``images`` of the batch.
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
    rule: Rule = "ratio"
    box_by: Literal["overlap", "squared"] = "overlap"
    favour_small: bool = False
    objectness_by: Error = "cross_entropy"
    classes_by: Error = "cross_entropy"
    objectness_target: Literal["iou", "one"] = "iou"
    object: float = 1.0
    no_object: float = 1.0
    prior: float = 0.01
    prior_images: int = 0
    divide_by: Literal["positives", "images"] = "positives"
    names: tuple[str, ...] = field(default=("box", "objectness", "classes"), init=False)

    def check(self, spec: HeadSpec) -> None:
        """Raise ValueError if a part needs another code than that of the head."""
        for part, kind, read in (
            ("objectness", self.objectness_by, spec.objectness), ("classes", self.classes_by, spec.class_code)
        ):  # fmt: skip
            if kind == "cross_entropy" and read == "linear":
                raise ValueError(f"loss.{part}_by is cross_entropy, which a linear code has none of: give squared")

    def box_errors(
        self, t: Tensor, boxes: Tensor, wanted: Tensor, found: Assignment, spec: HeadSpec, size: Size
    ) -> Tensor:
        """Return the box error [P] of each positive: raw numbers ``t`` and ``boxes`` against ``wanted`` [P, 4]."""
        if self.box_by == "overlap":
            each = box_loss(boxes, wanted, self.iou)
        else:
            each = squared_box_loss(t, wanted, spec, found.anchor, found.row, found.column)
        return each * small_box_factor(wanted, size) if self.favour_small else each

    def goals(
        self, decoded: Decoded, found: Assignment, boxes: Tensor, wanted: Tensor, targets: Targets
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Say what the objectness of every prediction of a level aims at.

        Args:
            decoded: The level.
            found: Its positives.
            boxes: [P, 4] their boxes, input px.
            wanted: [P, 4] their objects, input px.
            targets: All objects.

        Returns:
            The goal, its weight (0: ignored) and whether it is a positive (bool), each [B, A, H, W].
        """
        _, anchors, rows, columns = shape = decoded.objectness.shape
        quality = matched_iou(boxes.detach(), wanted)
        if self.objectness_target == "one":
            quality = torch.ones_like(quality)
        # Several objects may want one prediction; its confidence then aims at the best of them.
        flat = ((found.image * anchors + found.anchor) * rows + found.row) * columns + found.column
        target = torch.zeros_like(decoded.objectness).flatten().scatter_reduce(0, flat, quality, "amax")
        positive = torch.zeros_like(target, dtype=torch.bool).index_fill_(0, flat, True)
        weight = torch.full_like(target, self.no_object).masked_fill(positive, self.object)
        if self.ignore_iou < 1:
            near = ignored(decoded.boxes.detach().flatten(1, 3), targets, self.ignore_iou).flatten()
            weight = weight.masked_fill(near & ~positive, 0.0)
        return target.view(shape), weight.view(shape), positive.view(shape)

    def _level(
        self, raw: Tensor, decoded: Decoded, found: Assignment, targets: Targets, spec: HeadSpec, seen: float
    ) -> Tensor:
        """Return the unweighted sums (box, objectness, classes) [3] of one level."""
        rows, columns = raw.shape[2:]
        values = split(raw, spec)
        t = values[found.image, found.anchor, found.row, found.column].to(decoded.boxes.dtype)
        boxes = decode_at(t[:, :4], spec, found.anchor, found.row, found.column)
        wanted = targets.boxes[found.target].to(boxes.dtype)
        box = self.box_errors(t[:, :4], boxes, wanted, found, spec, (rows * spec.stride, columns * spec.stride)).sum()
        target, weight, positive = self.goals(decoded, found, boxes, wanted, targets)
        objectness = objectness_loss(decoded.objectness, target, weight, self.objectness_by, spec.objectness)
        if seen < self.prior_images:
            others = values[..., :4][~positive].to(boxes.dtype)
            box = box + self.prior * prior_loss(others, spec)
        classes = class_loss(t[:, 5:], targets.labels[found.target], spec, self.label_smoothing,
                             self.class_weights, self.classes_by)  # fmt: skip
        return torch.stack((box, objectness, classes))

    def count(self, targets: Targets, specs: Sequence[HeadSpec], size: Size) -> Tensor:
        """Return the number of positives of each class [classes] that the loss of these targets will have.

        Known before the network has answered, so that a batch may be computed in parts and over several processes
        and still be divided by the positives of the whole.

        Args:
            targets: Boxes, input px.
            specs: How each map is read.
            size: (H, W) of the input in px.
        """
        grids = [(size[0] // spec.stride, size[1] // spec.stride) for spec in specs]
        found = assign(targets, specs, grids, self.rule, self.ratio, self.neighbours)
        labels = torch.cat([targets.labels[level.target] for level in found])
        return torch.bincount(labels, minlength=specs[0].classes)

    def divisor(self, positives: float, images: float) -> float:
        """Return what the sums of a batch with so many positives and images are divided by."""
        return max(positives, images) if self.divide_by == "positives" else images

    def __call__(
        self, maps: Sequence[Tensor], targets: Targets, specs: Sequence[HeadSpec], divisor: float | None = None,
        seen: float = math.inf,
    ) -> LossOutput:  # fmt: skip
        """Compute the loss.

        Args:
            maps: One raw map [B, channels, H, W] a level.
            targets: The batch's boxes, input px.
            specs: How to read each map.
            divisor: What the sums are divided by; None: by what `divisor` says of this batch.
            seen: Images that the run has trained on before this batch.
        """
        sums = maps[0].new_zeros(3, dtype=torch.float64 if maps[0].dtype == torch.float64 else torch.float32)
        decoded = [decode(raw, spec) for raw, spec in zip(maps, specs, strict=True)]
        grids = [(raw.shape[2], raw.shape[3]) for raw in maps]
        boxes = [level.boxes.detach() for level in decoded]
        found = assign(targets, specs, grids, self.rule, self.ratio, self.neighbours, boxes)
        for raw, level, own, spec in zip(maps, decoded, found, specs, strict=True):
            sums = sums + self._level(raw, level, own, targets, spec, seen)
        positives = sum(len(own.target) for own in found)
        weights = sums.new_tensor([self.box, self.objectness, self.classes])
        parts = sums * weights / (self.divisor(positives, maps[0].shape[0]) if divisor is None else divisor)
        named = dict(zip(self.names, parts.detach().unbind(), strict=True))
        return LossOutput(parts.sum(), named, positives)
