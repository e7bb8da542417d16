"""Which detection found which object: the one matching that all but pycocotools' own numbers are read off.

It is pycocotools' rule (`COCOeval.evaluateImg`), class by class in each image: the best-scored detections choose first;
each takes the object of its class with the highest IoU, if that reaches the threshold and nobody has it yet; a crowd
region (or VOC's difficult box, which the judge counts as one) may be taken often, by the share of the detection that
lies inside, and who takes it is neither right nor wrong. `tests/test_match.py` compares it with pycocotools itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from yolite.boxes import area, pairwise_iou, pairwise_overlap_share
from yolite.structures import Detections, Sample

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

IOU = 0.5
"""The IoU from which a box counts as right, where only one is asked for."""
NEAR = 0.1
"""The IoU from which a box has to do with an object at all (TIDE's background threshold)."""
MAX_DET = 100
"""So many detections of a class count in an image (COCO's)."""
ANY_SIZE = (0.0, 1e10)
"""pycocotools' area range "all"."""


@dataclass(frozen=True)
class Pairs:
    """Detections near objects (no crowds), of any class; P of them, in the order of the detections.

    Attributes:
        detection, object: [P] rows of the tables in `Matching`.
        iou: [P], from `NEAR` on.
    """

    detection: Ints
    object: Ints
    iou: Floats


@dataclass(frozen=True)
class Matching:
    """The detections (D) and objects (G) of a split as two tables, and who found whom at each of T IoU thresholds.

    Attributes:
        names: Class names.
        images: Number of images.
        iou: [T] the thresholds.
        max_det: So many detections of a class and image are in the table.
        image, label, score: [D] each; by image, the best score first.
        boxes: [D, 4] xyxy, image px.
        match: [T, D] the object that the detection found, −1: none.
        ignored: [T, D] neither right nor wrong: found a crowd, or lies outside the area range.
        truth_image, truth_label, truth_area: [G] each; by image.
        truth_boxes: [G, 4] xyxy, image px.
        truth_ignored: [G] crowd, difficult, or outside the area range.
        found_by: [T, G] the detection that found it, −1: none.
        near: See `Pairs`.
    """

    names: list[str]
    images: int
    iou: Floats
    max_det: int
    image: Ints
    label: Ints
    score: Floats
    boxes: Floats
    match: Ints
    ignored: Bools
    truth_image: Ints
    truth_label: Ints
    truth_area: Floats
    truth_boxes: Floats
    truth_ignored: Bools
    found_by: Ints
    near: Pairs

    def objects(self) -> Ints:
        """Return [classes]: the number of objects that are to be found."""
        return np.bincount(self.truth_label[~self.truth_ignored], minlength=len(self.names)).astype(np.int64)

    def right(self, t: int = 0) -> Bools:
        """Return [D]: found an object."""
        return (self.match[t] >= 0) & ~self.ignored[t]

    def wrong(self, t: int = 0) -> Bools:
        """Return [D]: found none, and is not ignored."""
        return (self.match[t] < 0) & ~self.ignored[t]


def most_of_a_class(labels: Ints, most: int) -> Ints:
    """Return the places of the first ``most`` of each label, in order."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.searchsorted(ordered, ordered, side="left")
    return np.sort(order[np.arange(len(labels)) - first < most])


def _choose(
    overlap: Floats, same: Bools, crowd: Bools, ignored: Bools, thresholds: Floats
) -> tuple[Ints, Ints]:  # fmt: skip
    """Match the detections of one image.

    Args:
        overlap: [D, G] IoU, or where the object is a crowd the share of the detection inside it.
        same: [D, G] of one class.
        crowd: [G] may be taken more than once.
        ignored: [G] taken only by who finds no other.
        thresholds: [T].

    Returns:
        [T, D] the object of each detection and [T, G] the detection of each object, −1 for none.
    """
    t, (d, g) = len(thresholds), overlap.shape
    match, found_by = np.full((t, d), -1), np.full((t, g), -1)
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    value = np.where(same, overlap, -1.0)
    for row in np.flatnonzero((value >= least.min()).any(1)) if g else ():
        free = ((found_by < 0) | crowd) & (value[row] >= least)
        for kind in (~ignored, ignored):
            score = np.where(free & kind & (match[:, row] < 0)[:, None], value[row], -1.0)
            last = g - 1 - score[:, ::-1].argmax(1)  # of equal ones pycocotools takes the last
            takes = np.flatnonzero(score[np.arange(t), last] >= 0)
            match[takes, row] = last[takes]
            found_by[takes, last[takes]] = row
    return match, found_by


def match(
    samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str],
    iou: Sequence[float] | Floats = (IOU,), max_det: int = MAX_DET, size: tuple[float, float] = ANY_SIZE,
) -> Matching:  # fmt: skip
    """Match the detections of a split to its objects.

    Args:
        samples: The truth, image px.
        detections: One a sample, in the same order.
        names: Class names.
        iou: Thresholds, T of them.
        max_det: So many detections of a class count in an image.
        size: Objects with another area (px², ends included) are ignored, and so are detections that found none and
            have another area themselves.

    Raises:
        ValueError: not as many detections as samples.
    """
    thresholds = np.asarray(iou, np.float64)
    parts: dict[str, list[Any]] = {}
    first_detection = first_object = 0
    for number, (sample, found) in enumerate(zip(samples, detections, strict=True)):
        part = _one(number, sample, found, thresholds, max_det, size)
        for name in ("match", "near_object"):  # rows of the whole split instead of the image's own
            part[name] = np.where(part[name] >= 0, part[name] + first_object, -1)
        for name in ("found_by", "near_detection"):
            part[name] = np.where(part[name] >= 0, part[name] + first_detection, -1)
        first_detection += part["score"].shape[0]
        first_object += part["truth_area"].shape[0]
        for name, value in part.items():
            parts.setdefault(name, []).append(value)
    if not parts:
        parts = {k: [v] for k, v in _one(0, *_nothing(), thresholds, max_det, size).items()}
    joined = {name: np.concatenate(values, -1 if values[0].ndim == 2 and name in _BY_THRESHOLD else 0)
              for name, values in parts.items()}  # fmt: skip
    near = Pairs(joined.pop("near_detection"), joined.pop("near_object"), joined.pop("near_iou"))
    return Matching(list(names), len(samples), thresholds, max_det, **joined, near=near)


_BY_THRESHOLD = ("match", "ignored", "found_by")


def _nothing() -> tuple[Sample, Detections]:
    """Return an image without objects and detections."""
    boxes, area = torch.zeros(0, 4), torch.zeros(0)
    labels, flags = area.long(), area.bool()
    sample = Sample(None, (0, 0), boxes, labels, flags, area, flags, 0)
    return sample, Detections(boxes, area, labels, (0, 0))


def _one(
    number: int, sample: Sample, found: Detections, thresholds: Floats, max_det: int, size: tuple[float, float]
) -> dict[str, Any]:
    """Match one image; rows count from 0 in it."""
    scores = found.scores.double().numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[most_of_a_class(found.labels.numpy()[order], max_det)]
    boxes, truth = found.boxes.double()[torch.from_numpy(order)], sample.boxes.double()
    labels, crowd = found.labels.numpy()[order], sample.ignore.numpy()
    iou = pairwise_iou(boxes, truth).numpy()
    overlap = np.where(crowd, pairwise_overlap_share(boxes, truth).numpy(), iou) if crowd.any() else iou
    areas = sample.area.double().numpy()
    ignored = crowd | (areas < size[0]) | (areas > size[1])
    same = labels[:, None] == sample.labels.numpy()[None]
    chosen, found_by = _choose(overlap, same, crowd, ignored, thresholds)
    own = area(boxes).numpy()
    outside = (own < size[0]) | (own > size[1])
    near_detection, near_object = np.nonzero((iou >= NEAR) & ~crowd)
    return {
        "image": np.full(len(order), number), "label": labels, "score": scores[order], "boxes": boxes.numpy(),
        "match": chosen,
        "ignored": np.where(chosen >= 0, np.append(ignored, False)[chosen], outside),
        "truth_image": np.full(len(areas), number), "truth_label": sample.labels.numpy(), "truth_area": areas,
        "truth_boxes": truth.numpy(), "truth_ignored": ignored, "found_by": found_by,
        "near_detection": near_detection, "near_object": near_object, "near_iou": iou[near_detection, near_object],
    }  # fmt: skip
