"""From raw maps to boxes on the picture: decode, threshold, NMS, invert the letterbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolite.codec import decode_likely
from yolite.geometry import Letterbox
from yolite.nms import Method, suppress
from yolite.structures import Detections, HeadSpec


@dataclass(frozen=True)
class Thresholds:
    """Which boxes are let through.

    Attributes:
        conf: Least score.
        iou: NMS threshold.
        max_det: Most boxes an image.
        best_class: True gives each box its best class; False lets it score for every class above ``conf`` (the
            metric asks for that).
        nms: How overlapping boxes are thinned out (`yolite.nms.suppress`).
    """

    conf: float
    iou: float
    max_det: int
    best_class: bool
    nms: Method = "hard"


def passing(boxes: Tensor, values: Tensor, limits: Thresholds) -> tuple[Tensor, Tensor, Tensor]:
    """Say which boxes of one image score above ``conf``.

    Args:
        boxes: [N, 4] any space.
        values: [N, classes] scores.
        limits: What to let through.

    Returns:
        Row in ``boxes``, score and label [K] of each, in the order of ``boxes``.
    """
    if limits.best_class:
        score, label = values.max(-1)
        row = (score > limits.conf).nonzero()[:, 0]
        score, label = score[row], label[row]
    else:
        row, label = (values > limits.conf).nonzero(as_tuple=True)
        score = values[row, label]
    # A net that diverged can give infinite boxes; they are no boxes.
    finite = torch.isfinite(boxes[row]).all(-1) & torch.isfinite(score)
    return row[finite], score[finite], label[finite]


def candidates(
    maps: Sequence[Tensor], specs: Sequence[HeadSpec], place: int, limits: Thresholds
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what one image of a batch has above ``conf``: boxes [N, 4] in input px, scores [N], labels [N]."""
    levels = [decode_likely(raw[place], spec, limits.conf) for raw, spec in zip(maps, specs, strict=True)]
    boxes, values = (torch.cat(parts) for parts in zip(*levels, strict=True))
    row, score, label = passing(boxes, values, limits)
    return boxes[row], score, label


def postprocess(
    maps: Sequence[Tensor], specs: Sequence[HeadSpec], letterboxes: Sequence[Letterbox], limits: Thresholds
) -> list[Detections]:
    """Turn the raw maps of a batch into one `Detections` an image, image px, on the CPU."""
    out = []
    for place, letterbox in enumerate(letterboxes):
        found = candidates(maps, specs, place, limits)
        box, score, label, capped = suppress(*found, limits.iou, limits.max_det, limits.nms, limits.conf)
        inside = letterbox.invert(box.float().cpu())
        out.append(Detections(inside, score.float().cpu(), label.cpu(), letterbox.image, capped))
    return out


def unsuppressed(
    maps: Sequence[Tensor], specs: Sequence[HeadSpec], letterboxes: Sequence[Letterbox], limits: Thresholds
) -> list[Detections]:
    """Do what `postprocess` does without its NMS: for views of one picture, which are thinned out together."""
    out = []
    for place, letterbox in enumerate(letterboxes):
        box, score, label = candidates(maps, specs, place, limits)
        out.append(Detections(letterbox.invert(box.float().cpu()), score.float().cpu(), label.cpu(), letterbox.image))
    return out
