"""Non-maximum suppression: of boxes that overlap, keep the one with the best score. `suppress` has all its variants.

Two boxes overlap too much if their IoU is *more than* the threshold, in every variant. Every candidate is considered;
no time limit cuts the work.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from yolite.boxes import matched_iou, pairwise_iou


def _torchvisions() -> Any:
    """Return torchvision's kernel from its library alone: importing the package takes two seconds more."""
    found, ops = find_spec("torchvision"), torch.ops
    for folder in found.submodule_search_locations or () if found else ():
        for library in sorted(Path(folder).glob("_C*")):
            try:
                ops.load_library(str(library))  # type: ignore[no-untyped-call]
                return ops.torchvision.nms
            except (OSError, AttributeError):  # a torchvision that lies otherwise than those known
                continue
    from torchvision.ops import nms

    return nms


_kernel = _torchvisions()
Method = Literal["hard", "agnostic", "soft", "diou", "fusion"]


class Picked(NamedTuple):
    """What a suppression leaves, best score first.

    Attributes:
        boxes: [K, 4] xyxy.
        scores: [K].
        labels: [K] int64.
        capped: Whether more than ``max_det`` would have been left.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    capped: bool


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, max_det: int, method: Method = "hard", conf: float = 0.0
) -> Picked:
    """Thin out boxes that mean one object.

    * ``hard``: a box that overlaps a better one of its class goes.
    * ``agnostic``: a box that overlaps a better one of any class goes.
    * ``soft``: it stays with the score s · (1 − IoU), and goes when that is not above ``conf`` (Soft-NMS, linear
      penalty, arXiv 1704.04503, section 3).
    * ``diou``: like ``hard``, by IoU − d² / c² in place of IoU, so that neighbours whose centres differ stay
      (DIoU-NMS, arXiv 1911.08287, section 3.4).
    * ``fusion``: boxes that overlap become one: the mean of their coordinates weighted by score, with the mean of their
      scores (weighted boxes fusion, arXiv 1910.13302, section 3, for one model).

    Args:
        boxes: [N, 4] float, xyxy.
        scores: [N] float.
        labels: [N] int64.
        iou: Overlap threshold in [0, 1]; a pair at exactly this overlap stays apart.
        max_det: Most boxes to keep.
        method: One of the above.
        conf: The threshold that ``scores`` have passed; only ``soft`` can fall below it.
    """
    if method in ("hard", "agnostic"):
        kept, capped = hard_nms(boxes, scores, labels, iou, max_det, class_wise=method == "hard")
        return Picked(boxes[kept], scores[kept], labels[kept], capped)
    if method == "fusion":
        return _fusion(boxes, scores, labels, iou, max_det)
    factor = _FACTORS[method]
    kept, left, capped = _greedy(boxes, scores, labels, iou, max_det, conf if method == "soft" else 0.0, factor)
    return Picked(boxes[kept], left, labels[kept], capped)


def _diou_factor(best: Tensor, boxes: Tensor, iou: float) -> Tensor:
    return (matched_iou(best.expand_as(boxes), boxes, "diou") <= iou).double()


def _soft_factor(best: Tensor, boxes: Tensor, iou: float) -> Tensor:
    overlap = matched_iou(best.expand_as(boxes), boxes)
    return torch.where(overlap > iou, 1 - overlap, 1.0)


_FACTORS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"diou": _diou_factor, "soft": _soft_factor}


def _greedy(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, max_det: int, conf: float,
    factor: Callable[[Tensor, Tensor, float], Tensor],
) -> tuple[Tensor, Tensor, bool]:  # fmt: skip
    """Take the best box, multiply the scores of its class by ``factor``, and so on while one is above ``conf``.

    Returns:
        Indices [K] int64, their scores [K] when they were taken, and whether ``max_det`` ended it.
    """
    boxes64, left, classes = boxes.double().cpu(), scores.double().cpu(), labels.cpu()
    kept: list[int] = []
    taken: list[float] = []
    while len(left):
        place = int(left.argmax())  # of equal scores the first
        if not left[place] > conf:
            break
        if len(kept) == max_det:
            return _indices(kept, boxes), scores.new_tensor(taken), True
        kept.append(place)
        taken.append(float(left[place]))
        same = ((classes == classes[place]) & (left > conf)).nonzero()[:, 0]
        left[same] *= factor(boxes64[place], boxes64[same], iou)
        left[place] = -1.0
    return _indices(kept, boxes), scores.new_tensor(taken), False


def _indices(places: list[int], like: Tensor) -> Tensor:
    return torch.tensor(places, dtype=torch.int64, device=like.device)


def _fusion(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, max_det: int) -> Picked:
    """Weighted boxes fusion within each class (arXiv 1910.13302, section 3, steps 1 to 5; one model, so no step 6)."""
    order = torch.sort(scores, descending=True, stable=True).indices
    boxes64, weights, classes = boxes[order].double().cpu(), scores[order].double().cpu(), labels[order].cpu()
    sums, mass = torch.zeros_like(boxes64), torch.zeros_like(weights)  # Σ s · box and Σ s of each cluster
    fused, count, label = torch.zeros_like(boxes64), torch.zeros_like(weights), torch.full_like(classes, -1)
    n = 0
    for box, weight, own in zip(boxes64, weights, classes, strict=True):
        overlap = pairwise_iou(box[None], fused[:n])[0].masked_fill(label[:n] != own, -1.0)
        near = int(overlap.argmax()) if n else 0
        if not n or not overlap[near] > iou:
            near, n = n, n + 1
            label[near] = own
        sums[near] += weight * box
        mass[near] += weight
        count[near] += 1
        # weights of zero: the box that founded the cluster stands
        fused[near] = sums[near] / mass[near] if mass[near] > 0 else (box if count[near] == 1 else fused[near])
    mean = mass[:n] / count[:n]
    best = torch.sort(mean, descending=True, stable=True).indices[:max_det]
    out = fused[best].to(boxes), mean[best].to(scores), label[best].to(labels)
    return Picked(*out, n > max_det)


def hard_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou: float,
    max_det: int,
    class_wise: bool = True,
) -> tuple[Tensor, bool]:
    """Greedy NMS: walk the boxes from the best score down; drop each that overlaps a kept one by *more than* ``iou``.

    A box can only be dropped by a better one, so the
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
