"""Positives: which predictions answer for which objects.

A *positive* is a prediction (anchor of a cell of a level) that is trained to be one object's box. All others are
*negatives* (background), except those the loss *ignores* because they overlap an object well anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from yolite.anchors import side_ratio
from yolite.boxes import matched_iou, shape_iou, xyxy_to_cxcywh
from yolite.codec import anchors_of
from yolite.structures import Assignment, HeadSpec, Size, Targets

Rule = Literal["ratio", "best_anchor", "best_iou"]


def _cells(centre: Tensor, size: Size, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """List the cells whose centre code reaches a point: its own and up to two direct neighbours.

    A cell's code reaches ``reach`` of a cell beyond its border (0 for grid_scale 1, 0.5 for grid_scale 2), so the left
    neighbour of a point is taken when the point lies less than that from its own cell's left border, and so on.

    Args:
        centre: [N, 2] (x, y), grid cells.
        size: (rows, columns) of the grid.
        reach: See above.

    Returns:
        Index of the point [P], row [P] and column [P].
    """
    rows, columns = size
    limit = centre.new_tensor([columns - 1, rows - 1])
    own = centre.floor().minimum(limit).clamp(min=0)
    inside = centre - own
    points, cells = [torch.arange(len(centre), device=centre.device)], [own]
    for axis in (0, 1):
        for step, near in ((-1.0, inside[:, axis] < reach), (1.0, inside[:, axis] > 1 - reach)):
            shifted = own.clone()
            shifted[:, axis] += step
            exists = (shifted[:, axis] >= 0) & (shifted[:, axis] <= limit[axis])
            index = (near & exists).nonzero()[:, 0]
            points.append(index)
            cells.append(shifted[index])
    cell = torch.cat(cells).long()
    return torch.cat(points), cell[:, 1], cell[:, 0]


def by_ratio(targets: Targets, spec: HeadSpec, size: Size, ratio: float = 4.0, neighbours: bool = True) -> Assignment:
    """Give every object to all fitting anchors of the cells around its centre, on one level.

    An anchor fits if neither side of the object differs from the anchor's by the factor ``ratio`` or more; several
    anchors, levels and cells may answer for one object (the rule of the YOLOv5 family; numbers.md of the plan lists
    it as "the modern anchor loss"). An object to be ignored (crowd, difficult) gets no positive.

    Args:
        targets: Boxes in input px.
        spec: The level.
        size: (rows, columns) of its grid.
        ratio: Largest side ratio.
        neighbours: Also take the neighbour cells whose code reaches the centre.

    Returns:
        The positives; ``target`` indexes the rows of ``targets``.
    """
    index = (~targets.ignore).nonzero()[:, 0]
    cxcywh = xyxy_to_cxcywh(targets.boxes[index])
    fits = side_ratio(cxcywh[:, 2:], anchors_of(spec, cxcywh)) < ratio
    which, anchor = fits.nonzero(as_tuple=True)
    centre = cxcywh[which, :2] / spec.stride
    reach = (spec.grid_scale - 1) / 2 if neighbours else 0.0
    point, row, column = _cells(centre, size, reach)
    target = index[which[point]]
    return Assignment(targets.image[target], anchor[point], row, column, target)


def _first(keys: Tensor) -> Tensor:
    """Return the places, ascending, at which each distinct number of ``keys`` [N] stands for the first time."""
    order = keys.argsort(stable=True)
    ordered = keys[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first].sort().values


def by_best_anchor(targets: Targets, specs: Sequence[HeadSpec], sizes: Sequence[Size]) -> list[Assignment]:
    """Give every object to one prediction: in the cell of its centre, the anchor with the most similar shape.

    The anchors of all levels compete by the IoU of shapes (YOLO9000, section 2; YOLOv3, section 2.1: "one bounding box
    prior for each ground truth object"). Where two objects want the same prediction, the first one listed has it.

    Args:
        targets: Boxes in input px; crowd and difficult ones get no positive.
        specs: The levels.
        sizes: (rows, columns) of each.
    """
    index = (~targets.ignore).nonzero()[:, 0]
    cxcywh = xyxy_to_cxcywh(targets.boxes[index])
    best = shape_iou(cxcywh[:, 2:], torch.cat([anchors_of(spec, cxcywh) for spec in specs])).argmax(1)
    found = []
    for spec, size in zip(specs, sizes, strict=True):
        own = ((best >= 0) & (best < len(spec.anchors))).nonzero()[:, 0]
        _, row, column = _cells(cxcywh[own, :2] / spec.stride, size, 0.0)
        target, anchor = index[own], best[own]
        kept = _first(((targets.image[target] * len(spec.anchors) + anchor) * size[0] + row) * size[1] + column)
        target = target[kept]
        found.append(Assignment(targets.image[target], anchor[kept], row[kept], column[kept], target))
        best = best - len(spec.anchors)  # from here on counted from the next level's first anchor
    return found


def by_best_iou(targets: Targets, spec: HeadSpec, size: Size, boxes: Tensor | None) -> Assignment:
    """Give every object to that box of its centre cell which overlaps it most at present.

    YOLOv1, section 2.2: "responsible ... which prediction has the highest current IOU"; where none overlaps it, the
    nearest one (as Darknet's src/detection_layer.c does), so that no box is left out from the start. A cell has one
    object: of several the first one listed, as its class scores can name but one.

    Args:
        targets: Boxes in input px; crowd and difficult ones get no positive.
        spec: The level.
        size: (rows, columns) of its grid.
        boxes: [B, A, rows, columns, 4] the present predictions, input px; None: take anchor 0 (who is responsible is
            then not known, but which objects have a cell is).
    """
    index = (~targets.ignore).nonzero()[:, 0]
    cxcywh = xyxy_to_cxcywh(targets.boxes[index])
    _, row, column = _cells(cxcywh[:, :2] / spec.stride, size, 0.0)
    kept = _first((targets.image[index] * size[0] + row) * size[1] + column)
    target, row, column = index[kept], row[kept], column[kept]
    image = targets.image[target]
    if boxes is None:
        return Assignment(image, torch.zeros_like(image), row, column, target)
    there = boxes[image, :, row, column]
    wanted = targets.boxes[target].to(there.dtype)[:, None].expand_as(there)
    overlap = matched_iou(there.flatten(0, 1), wanted.flatten(0, 1)).view(there.shape[:2])
    distance = (xyxy_to_cxcywh(there) - xyxy_to_cxcywh(wanted)).square().sum(-1)
    anchor = torch.where(overlap.amax(1) > 0, overlap.argmax(1), distance.argmin(1))
    return Assignment(image, anchor, row, column, target)


def assign(
    targets: Targets, specs: Sequence[HeadSpec], sizes: Sequence[Size], rule: Rule = "ratio", ratio: float = 4.0,
    neighbours: bool = True, boxes: Sequence[Tensor] | None = None,
) -> list[Assignment]:  # fmt: skip
    """Return the positives of every level; their number and labels do not depend on ``boxes``.

    Args:
        targets: Boxes in input px.
        specs: The levels.
        sizes: (rows, columns) of each.
        rule: ``ratio`` (`by_ratio`), ``best_anchor`` (`by_best_anchor`) or ``best_iou`` (`by_best_iou`).
        ratio: Of `by_ratio`.
        neighbours: Of `by_ratio`.
        boxes: Present predictions of each level, for `by_best_iou`.
    """
    if rule == "best_anchor":
        return by_best_anchor(targets, specs, sizes)
    if rule == "best_iou":
        present = boxes if boxes is not None else [None] * len(specs)
        return [by_best_iou(targets, *level) for level in zip(specs, sizes, present, strict=True)]
    return [by_ratio(targets, spec, size, ratio, neighbours) for spec, size in zip(specs, sizes, strict=True)]


def reachable(targets: Targets, specs: Sequence[HeadSpec], size: Size, rule: Rule = "ratio", ratio: float = 4.0) -> int:
    """Return how many objects the rule gives to any prediction: no recall can be higher than their share.

    Args:
        targets: Boxes, input px.
        specs: The levels.
        size: (H, W) of the input in px.
        rule: As in `assign`.
        ratio: As in `assign`.
    """
    grids = [(size[0] // spec.stride, size[1] // spec.stride) for spec in specs]
    found = assign(targets, specs, grids, rule, ratio, neighbours=False)
    return len(torch.cat([level.target for level in found]).unique())  # type: ignore[no-untyped-call]
