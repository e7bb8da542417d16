"""Several looks at one picture: overlapping tiles at full resolution, mirrored and resized copies; merged into one.

What two tiles see of one object must not count twice, and what a tile's border cuts must not count as an object. The
boxes of all views therefore come in three tiers, each held against those before it:

1. What a tile shows whole, and what the view of the whole picture shows that is larger than the overlap (smaller
   objects are whole in at least one tile, and sharper there). NMS, of the variant that was asked for, thins these out.
2. What the view of the whole picture alone shows. It counts where no box of tier 1 covers it.
3. What a border between tiles cuts. It counts where no box before covers it: pieces of two tiles that agree on the
   strip that both see are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from torch import Tensor

from yolite.boxes import matched_iou, mirrored, pairwise_overlap_share
from yolite.geometry import Image, Letterbox
from yolite.nms import hard_nms, suppress
from yolite.postprocess import Thresholds
from yolite.structures import Detections, Preprocess, Size

SCALES = ((1.0, False), (1.0, True), (0.8, False), (1.25, True))
"""Test-time augmentation: input size and mirror image of each look (the first is the ordinary one)."""
COVERED = 0.5
"""A lower tier's box is another look at an object if more than this share of it lies inside that object's box."""
NEAR = 1 / 64
"""A box that ends closer to a tile's border than this share of the tile's side is taken for cut by it."""

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """One look at a picture.

    Attributes:
        window: x1, y1, x2, y2 of the part that is shown, image px.
        letterbox: How that part becomes network input.
        mirrored: Whether it is shown mirrored, left and right exchanged.
        whole: Whether it shows the whole picture.
    """

    window: Window
    letterbox: Letterbox
    mirrored: bool
    whole: bool

    def pixels(self, image: Image) -> Image:
        """Return the network input [H, W, 3] of this view of ``image``."""
        x1, y1, x2, y2 = self.window
        part = image[y1:y2, x1:x2]
        return self.letterbox.pixels(np.ascontiguousarray(part[:, ::-1] if self.mirrored else part))

    def back(self, found: Detections, size: Size) -> Detections:
        """Map what was found, in px of the part, to image px of the picture of ``size``."""
        boxes = found.boxes
        if self.mirrored:
            boxes = mirrored(boxes, self.window[2] - self.window[0], axis=0)
        return replace(found, boxes=boxes + boxes.new_tensor(self.window[:2] * 2), size=size)


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles of ``tile`` px begin that cover ``length`` px, neighbours sharing ``overlap`` or more."""
    if length <= tile:
        return [0]
    count = 1 + ceil((length - tile) / max(1, tile - round(overlap * tile)))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def views(
    size: Size, preprocess: Preprocess, step: int, tile: bool, overlap: float, tta: bool, mirrors: bool
) -> list[View]:
    """Plan the looks at a picture.

    Args:
        size: (H, W) of the picture.
        preprocess: How network input is made.
        step: Input sides are padded to multiples of it (`Letterbox.fit`); 0: the input has one size, and no ``tta``.
        tile: Look at tiles of the input's size, at full resolution, besides the whole picture.
        overlap: Least share of a tile's side that neighbours have in common.
        tta: Look at each in several sizes, and mirrored.
        mirrors: Whether a mirrored picture still shows the classes (digits and letters do not).
    """
    (height, width), (tile_h, tile_w) = size, preprocess.size
    windows: list[Window] = [(0, 0, width, height)]
    if tile and (height > tile_h or width > tile_w):
        for y in starts(height, tile_h, overlap):
            windows += [(x, y, min(x + tile_w, width), min(y + tile_h, height))
                        for x in starts(width, tile_w, overlap)]  # fmt: skip
    looks = [(scale, mirror and mirrors) for scale, mirror in SCALES] if tta else [SCALES[0]]
    out = []
    for scale, mirror in dict.fromkeys(looks):
        sized = preprocess
        if scale != 1:
            sides = [max(step, round(side * scale / step) * step) for side in preprocess.size]
            sized = replace(preprocess, size=(sides[0], sides[1]))
        for i, window in enumerate(windows):
            part = (window[3] - window[1], window[2] - window[0])
            out.append(View(window, Letterbox.fit(part, sized, step), mirror, i == 0))
    return out


def _near(view: View) -> float:
    return max(2.0, NEAR * max(view.letterbox.image))


def _cut(found: Detections, view: View) -> Tensor:
    """Return [N] bool: whether a border of the view inside the picture cuts the box."""
    height, width = found.size
    window = found.boxes.new_tensor(view.window)
    near = _near(view)
    inner = torch.tensor([view.window[0] > 0, view.window[1] > 0, view.window[2] < width, view.window[3] < height])
    return (((found.boxes - window).abs() < near) & inner).any(1)


def _shared(plan: Sequence[View]) -> float:
    """Return the side in px up to which every object is whole in some tile; 0 where there are no tiles."""
    tiles = [v for v in plan if not v.whole]
    if not tiles:
        return 0.0
    spans = [sorted({(v.window[axis], v.window[axis + 2]) for v in tiles}) for axis in (0, 1)]
    least = min(a[1] - b[0] for along in spans for a, b in pairwise(along))
    return max(1.0, least - 2 * max(map(_near, tiles)))  # closer to a border it would be taken for cut


def merge(found: Sequence[Detections], plan: Sequence[View], limits: Thresholds) -> Detections:
    """Merge what the views of one picture show.

    Args:
        found: What passed the confidence threshold in each view, image px of the picture, before any NMS.
        plan: The views.
        limits: The thresholds and the variant of NMS.

    Returns:
        The objects, best first.
    """
    size = found[0].size
    shared = _shared(plan)
    boxes = torch.cat([f.boxes for f in found])
    everything = Detections(boxes, torch.cat([f.scores for f in found]), torch.cat([f.labels for f in found]), size)
    view = torch.cat([torch.full((len(f),), i) for i, f in enumerate(found)])
    cut = torch.cat([_cut(f, v) for f, v in zip(found, plan, strict=True)])
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    coarse = torch.tensor([v.whole for v in plan])[view] & (side <= shared)
    grain = max(1 / min(v.letterbox.scale_x, v.letterbox.scale_y) for v in plan if v.whole)  # image px an input px
    kept = _thinned(everything[~cut & ~coarse], limits)
    alone = everything[coarse & ~_covered(everything, kept, grain, limits)]
    kept = _together(kept, _thinned(alone, limits))
    piece = cut & ~_covered(everything, kept, 1.0, limits)
    kept = _together(kept, _joined(everything[piece], view[piece], plan, limits))
    best = torch.sort(kept.scores, descending=True, stable=True).indices
    return replace(kept[best[: limits.max_det]], capped=len(kept) > limits.max_det)


def _together(a: Detections, b: Detections) -> Detections:
    parts = [torch.cat(pair) for pair in ((a.boxes, b.boxes), (a.scores, b.scores), (a.labels, b.labels))]
    return replace(a, boxes=parts[0], scores=parts[1], labels=parts[2])


def _thinned(found: Detections, limits: Thresholds) -> Detections:
    """Thin out the boxes of all views; the cap comes later."""
    most = max(1, len(found))
    left = suppress(found.boxes, found.scores, found.labels, limits.iou, most, limits.nms, limits.conf)
    return replace(found, boxes=left.boxes, scores=left.scores, labels=left.labels)


def _alike(a: Tensor, b: Tensor, limits: Thresholds) -> Tensor:
    """Return [N, M]: whether boxes of these labels may be one object."""
    return (a[:, None] == b[None, :]) | (limits.nms == "agnostic")


def _covered(found: Detections, by: Detections, grown: float, limits: Thresholds) -> Tensor:
    """Return [N] bool: whether a box lies mostly inside one of ``by`` grown by ``grown`` px on every side."""
    if not len(by) or not len(found):
        return torch.zeros(len(found), dtype=torch.bool)
    larger = by.boxes + by.boxes.new_tensor([-grown, -grown, grown, grown])
    share = pairwise_overlap_share(found.boxes, larger)
    return ((share > COVERED) & _alike(found.labels, by.labels, limits)).any(1)


def _joined(pieces: Detections, view: Tensor, plan: Sequence[View], limits: Thresholds) -> Detections:
    """Join pieces of one object that several tiles show: those that agree where both tiles look.

    Args:
        pieces: Boxes [N, 4] that a border cuts.
        view: [N] int64, the view of each.
        plan: The views.
        limits: The overlap at which two pieces agree.
    """
    kept: list[Tensor] = []
    for number in view.unique().tolist():
        own = (view == number).nonzero()[:, 0]
        some = pieces[own]
        index, _ = hard_nms(some.boxes, some.scores, some.labels, limits.iou, len(own), limits.nms != "agnostic")
        kept.append(own[index])
    if not kept:
        return pieces
    chosen = torch.cat(kept)
    pieces, view = pieces[chosen], view[chosen]
    windows = torch.tensor([v.window for v in plan], dtype=pieces.boxes.dtype)[view]
    # the part of the picture that the tiles of both pieces show, and each piece of the pair there: [N, N, 4]
    low = torch.maximum(windows[:, None, :2], windows[None, :, :2])
    high = torch.minimum(windows[:, None, 2:], windows[None, :, 2:])
    first, second = (
        torch.cat((torch.maximum(b[..., :2], low), torch.minimum(b[..., 2:], high)), -1)
        for b in (pieces.boxes[:, None], pieces.boxes[None, :])
    )
    agree = (matched_iou(first, second) > limits.iou) & (view[:, None] != view[None, :])
    return _united(pieces, agree & _alike(pieces.labels, pieces.labels, limits))


def _united(pieces: Detections, linked: Tensor) -> Detections:
    """Return the smallest box around each group of ``linked`` [N, N] pieces, with the best one's score and label."""
    group = torch.arange(len(pieces))
    for _ in range(len(pieces)):  # the lowest number spreads through each group
        spread = torch.where(linked, group[None, :], len(pieces)).amin(1).minimum(group)
        if torch.equal(spread, group):
            break
        group = spread
    boxes, best = [], []
    for number in group.unique().tolist():
        members = (group == number).nonzero()[:, 0]
        own = pieces.boxes[members]
        boxes.append(torch.cat((own[:, :2].amin(0), own[:, 2:].amax(0))))
        best.append(members[pieces.scores[members].argmax()])
    return replace(pieces[torch.stack(best)], boxes=torch.stack(boxes))
