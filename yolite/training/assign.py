"""Positives: which predictions answer for which objects.

A *positive* is a prediction (anchor of a cell of a level) that is trained to be one object's box. All others are
*negatives* (background), except those the loss *ignores* because they overlap an object well anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yolite.anchors import side_ratio
from yolite.boxes import xyxy_to_cxcywh
from yolite.codec import anchors_of
from yolite.structures import Assignment, HeadSpec, Size, Targets


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


def assign(targets: Targets, spec: HeadSpec, size: Size, ratio: float = 4.0, neighbours: bool = True) -> Assignment:
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
