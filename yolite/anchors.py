"""Anchors from data: k-means over box shapes with the distance 1 − IoU (YOLO9000, section 2, "Dimension Clusters").

The Euclidean distance would make large boxes weigh more than small ones; 1 − IoU does not depend on the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from yolite.boxes import shape_iou
from yolite.errors import UserError
from yolite.structures import HeadSpec

Centroid = Literal["mean", "median"]
AT_ONCE = 1 << 14
"""So many boxes are compared with all centres at once."""
RUN = 1024
"""So many sorted boxes are counted together to find a median."""
ROUNDING = 1e-4
"""More than what rounding does to an IoU, and to the sum of a hundred of them."""


@dataclass(frozen=True)
class AnchorReport:
    """Anchors and how well they fit the boxes they were made from.

    Attributes:
        anchors: [k, 2] float32 (w, h) in input px, by area.
        avg_iou: Mean over the boxes of the IoU of shapes with their best anchor, 0 to 1.
        best_possible_recall: Share of boxes whose best anchor differs by less than ``ratio`` in width and height,
            that is, of boxes that the trainer can give to an anchor at all.
        ratio: The side ratio meant above.
        boxes: Number of boxes used.
        dropped: Number of boxes left out (a side of zero or less, NaN or infinite).
        best: [boxes] int64, the best anchor of each box.
    """

    anchors: Tensor
    avg_iou: float
    best_possible_recall: float
    ratio: float
    boxes: int
    dropped: int
    best: Tensor


def usable(wh: Tensor) -> Tensor:
    """Return [N] bool: which shapes [N, 2] are finite with two positive sides."""
    return torch.isfinite(wh).all(-1) & (wh > 0).all(-1)


def side_ratio(wh: Tensor, anchors: Tensor) -> Tensor:
    """Return [N, A]: the largest factor (≥ 1) by which a side of each box shape differs from that of each anchor."""
    ratio = wh[:, None, :] / anchors[None, :, :]
    return torch.maximum(ratio, 1 / ratio).amax(-1)


def fit_report(wh: Tensor, anchors: Tensor, ratio: float = 4.0) -> AnchorReport:
    """Say how well ``anchors`` [k, 2] fit the box shapes ``wh`` [N, 2] (both input px)."""
    good = wh[usable(wh)].float()
    anchors = anchors.float()[anchors.float().prod(-1).argsort(stable=True)]
    best_iou, best = shape_iou(good, anchors).max(-1)
    recall = (side_ratio(good, anchors).amin(-1) < ratio).float().mean()
    return AnchorReport(anchors, float(best_iou.mean()), float(recall), ratio, len(good), len(wh) - len(good), best)


def _seed_plus_plus(wh: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose k starting shapes: each next one with a probability that grows with (1 − IoU)² to the chosen ones."""
    chosen = wh[torch.randint(len(wh), (1,), generator=generator)]
    nearest = 1 - shape_iou(wh, chosen)[:, 0]
    while len(chosen) < k:
        weight = nearest.double().square()
        # All boxes sit on a chosen shape (fewer distinct shapes than k): any of them will do.
        if float(weight.sum()) <= 0:
            weight = torch.ones_like(weight)
        # Not torch.multinomial: it takes at most 2^24 categories.
        target = torch.rand(1, generator=generator, dtype=torch.float64) * weight.sum()
        index = torch.searchsorted(weight.cumsum(0), target).clamp(max=len(wh) - 1)
        chosen = torch.cat((chosen, wh[index]))
        nearest = torch.minimum(nearest, 1 - shape_iou(wh, wh[index])[:, 0])
    return chosen


def _nearest(wh: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centre [N] int64 with the highest IoU, of equal ones the first, and by how much it is higher [N]."""
    owners, gaps = [], []
    for part in torch.split(wh, AT_ONCE):  # parts that stay in the processor's cache: several times as fast
        iou = shape_iou(part, centres)
        best, owner = iou.max(-1)
        owners.append(owner)
        gaps.append(best - iou.scatter_(1, owner[:, None], -1.0).amax(-1))
    return torch.cat(owners), torch.cat(gaps)


class _Medians:
    """The median of each cluster by side (of an even number the lower), kept up while boxes change their cluster.

    The boxes stand sorted, in runs of `RUN`; how many of each run are in each cluster is known, so that one run has to
    be looked into to find a median.

    Args:
        wh: [N, 2].
        k: Number of clusters.
    """

    def __init__(self, wh: Tensor, k: int) -> None:
        self.wh = wh
        self.order = wh.argsort(dim=0)  # [N, 2] boxes from the smallest to the largest side
        place = torch.arange(len(wh))[:, None].expand(-1, 2)
        self.run = torch.empty_like(self.order).scatter_(0, self.order, place // RUN)
        self.runs = (len(wh) - 1) // RUN + 1
        self.owner = torch.full((len(wh),), k)  # one more cluster, of the boxes that are in none yet
        self.count = torch.zeros(2, k + 1, self.runs, dtype=torch.int64)

    def move(self, rows: Tensor, owner: Tensor) -> None:
        """Give the boxes ``rows`` [M] to the clusters ``owner`` [M]."""
        for side, count in enumerate(self.count):
            run = self.run[rows, side]
            count -= (self.owner[rows] * self.runs + run).bincount(minlength=count.numel()).view_as(count)
            count += (owner * self.runs + run).bincount(minlength=count.numel()).view_as(count)
        self.owner[rows] = owner

    def __call__(self, old: Tensor) -> Tensor:
        """Return the medians [k, 2]; an empty cluster keeps its ``old`` centre."""
        centres = old.clone()
        for side in (0, 1):
            below = self.count[side, :-1].cumsum(1)
            for cluster, total in enumerate(below[:, -1].tolist()):
                if total:
                    middle = (total - 1) // 2
                    run = int(torch.searchsorted(below[cluster], middle, right=True))
                    boxes = self.order[run * RUN : (run + 1) * RUN, side]
                    before = int(below[cluster, run - 1]) if run else 0
                    box = boxes[(self.owner[boxes] == cluster).nonzero()[middle - before, 0]]
                    centres[cluster, side] = self.wh[box, side]
        return centres


def _means(wh: Tensor, owner: Tensor, old: Tensor) -> Tensor:
    """Return the mean of each cluster; an empty cluster keeps its old centre."""
    members = (wh[owner == i] for i in range(len(old)))
    return torch.stack([own.mean(dim=0) if len(own) else was for own, was in zip(members, old, strict=True)])


def _cluster(wh: Tensor, medians: _Medians | None, k: int, generator: torch.Generator, iterations: int) -> Tensor:
    """Run one k-means from one k-means++ start; return the centres [k, 2]. Without ``medians`` centroids are means.

    Most boxes need not be compared with the centres again (Hamerly 2010): 1 − IoU of shapes is a metric (Jaccard's), so
    no box changes its cluster while the centres have moved by less than its nearest one was nearer than the next.
    """
    centres = _seed_plus_plus(wh, k, generator)
    owner, slack = torch.full((len(wh),), -1), torch.zeros(len(wh))
    for _ in range(iterations):
        stale = (slack <= ROUNDING).nonzero()[:, 0]
        nearest, slack[stale] = _nearest(wh[stale], centres)
        changed = nearest != owner[stale]
        if not bool(changed.any()):
            break
        owner[stale] = nearest
        if medians:
            medians.move(stale[changed], nearest[changed])
        before, centres = centres, medians(centres) if medians else _means(wh, owner, centres)
        moved = 1 - shape_iou(before, centres).diagonal()
        slack -= (moved + moved.max()).index_select(0, owner)
    return centres


def kmeans_anchors(
    wh: Tensor,
    k: int,
    seed: int = 0,
    restarts: int = 10,
    centroid: Centroid = "median",
    iterations: int = 100,
    ratio: float = 4.0,
) -> AnchorReport:
    """Cluster box shapes into k anchors and report the fit of the best of several starts.

    Args:
        wh: [N, 2] widths and heights, input px; unusable rows are left out and counted.
        k: Number of anchors.
        seed: Seed of the starts; the same seed gives the same anchors.
        restarts: Number of starts; the one with the highest average IoU wins.
        centroid: ``median`` (by side; on COCO clearly the better fit) or ``mean`` (the paper's).
        iterations: Most rounds a start.
        ratio: Side ratio for the best-possible recall.

    Raises:
        UserError: no usable box, or k larger than their number.
    """
    good = wh[usable(wh)].float()
    if k < 1:
        raise UserError(f"k is {k}: give at least 1 anchor")
    if len(good) < k:
        raise UserError(
            f"{k} anchors were asked for, but there are only {len(good)} boxes with a width and a height "
            f"({len(wh) - len(good)} unusable ones left out): give a smaller k or more labels"
        )
    generator = torch.Generator().manual_seed(seed)
    medians = _Medians(good, k) if centroid == "median" else None
    runs = [_cluster(good, medians, k, generator, iterations) for _ in range(restarts)]
    best = max(runs, key=lambda centres: float(shape_iou(good, centres).amax(-1).mean()))
    return fit_report(wh, best, ratio)


def split_by_level(anchors: Tensor, levels: int) -> list[tuple[tuple[float, float], ...]]:
    """Give the anchors [k, 2], sorted by area, to the levels in equal parts, the smallest to the finest level.

    Raises:
        UserError: if k is not a multiple of ``levels``.
    """
    k = len(anchors)
    if k % levels:
        raise UserError(f"{k} anchors cannot be shared by {levels} levels: give a multiple of {levels}")
    ordered = anchors[anchors.prod(-1).argsort(stable=True)].tolist()
    each = k // levels
    return [tuple((float(w), float(h)) for w, h in ordered[i * each : (i + 1) * each]) for i in range(levels)]


def all_anchors(specs: tuple[HeadSpec, ...]) -> Tensor:
    """Return every anchor [k, 2] of these levels, float32, input px."""
    return torch.tensor([anchor for spec in specs for anchor in spec.anchors], dtype=torch.float32)
