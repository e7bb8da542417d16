"""Which detection found which object: the one matching that every number is read off.

It is pycocotools' rule (`COCOeval.evaluateImg`), class by class in each image: the best-scored detections choose first;
each takes the object of its class with the highest IoU, if that reaches the threshold and nobody has it yet; a crowd
region (or VOC's difficult box, which the judge counts as one) may be taken often, by the share of the detection that
lies inside, and who takes it is neither right nor wrong. `tests/test_match.py` compares it with pycocotools itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yolite.boxes import area, matched_iou, overlap_share
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
AT_ONCE = 1 << 20
"""So many pairs of a detection and an object are looked at at once: what bounds the memory."""


@dataclass(frozen=True)
class Pairs:
    """P pairs of a detection and an object of one image, in the order of the detections.

    Attributes:
        detection, object: [P] rows of the tables in `Matching`.
        iou: [P] their overlap.
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
        near: The pairs of an IoU from `NEAR` on, of any class, without crowds.
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


def place_in_class(labels: Ints) -> Ints:
    """Return of each entry how many of its label stand before it."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered, side="left")
    return place


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
    return match_sizes(samples, detections, names, [size], iou, max_det)[0]


def match_sizes(
    samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str],
    sizes: Iterable[tuple[float, float]], iou: Sequence[float] | Floats = (IOU,), max_det: int = MAX_DET,
) -> list[Matching]:  # fmt: skip
    """Do what `match` does for several ``sizes``; what does not depend on them is computed once."""
    if len(samples) != len(detections):
        raise ValueError(f"{len(detections)} detections for {len(samples)} samples")
    thresholds = np.asarray(iou, np.float64)
    found, score, key = _best(detections, max_det)
    truth, areas, crowd = _objects(samples)
    near, rivals = _pairs(found, truth, crowd, len(samples), float(_least(thresholds).min()))
    rounds, own = place_in_class(key), area(found.boxes).numpy()
    out = []
    for low, high in sizes:
        ignored = crowd | (areas < low) | (areas > high)
        chosen, found_by = _choose(rivals, rounds, crowd, ignored, thresholds)
        no_object = np.append(ignored, False)[chosen]  # place −1: found none
        out.append(Matching(
            list(names), len(samples), thresholds, max_det, found.image, found.label, score, found.boxes.numpy(),
            chosen, np.where(chosen >= 0, no_object, (own < low) | (own > high)),
            truth.image, truth.label, areas, truth.boxes.numpy(), ignored, found_by, near,
        ))  # fmt: skip
    return out


class _Table(NamedTuple):
    """Boxes of a split (float64, image px), by image."""

    image: Ints
    label: Ints
    boxes: Tensor


def _best(detections: Sequence[Detections], max_det: int) -> tuple[_Table, Floats, Ints]:
    """Return the detections that count, their scores [D], and a number [D] for each class of each image."""
    image = np.repeat(np.arange(len(detections)), [len(found) for found in detections])
    boxes = torch.cat([torch.zeros(0, 4), *(found.boxes for found in detections)]).double()
    score = torch.cat([torch.zeros(0), *(found.scores for found in detections)]).double().numpy()
    label = torch.cat([torch.zeros(0, dtype=torch.int64), *(found.labels for found in detections)]).numpy()
    order = np.lexsort((-score, image))  # stable: of equal scores the first
    key = image * (label.max(initial=0) + 1) + label
    order = order[place_in_class(key[order]) < max_det]
    return _Table(image[order], label[order], boxes[torch.from_numpy(order)]), score[order], key[order]


def _objects(samples: Sequence[Sample]) -> tuple[_Table, Floats, Bools]:
    """Return the objects, their areas [G] and which are crowds [G]."""
    image = np.repeat(np.arange(len(samples)), [len(sample.labels) for sample in samples])
    boxes = torch.cat([torch.zeros(0, 4), *(sample.boxes for sample in samples)]).double()
    label = torch.cat([torch.zeros(0, dtype=torch.int64), *(sample.labels for sample in samples)]).numpy()
    areas = torch.cat([torch.zeros(0), *(sample.area for sample in samples)]).double().numpy()
    crowd = torch.cat([torch.zeros(0, dtype=torch.bool), *(sample.ignore for sample in samples)]).numpy()
    return _Table(image, label, boxes), areas, crowd


def _pairs(found: _Table, truth: _Table, crowd: Bools, images: int, least: float) -> tuple[Pairs, Pairs]:
    """Look at every detection with every object of its image.

    Returns:
        Those that are near, and those of one class that overlap by ``least`` or more (where the object is a crowd, by
        the share of the detection inside it); both in the order of the detections, then of the objects.
    """
    first = np.searchsorted(truth.image, np.arange(images + 1))
    count = np.diff(first)[found.image]
    ends = np.cumsum(count)
    cuts = np.searchsorted(ends, np.arange(AT_ONCE, ends[-1] if len(ends) else 0, AT_ONCE))
    parts: list[tuple[Pairs, Pairs]] = []
    for start, end in itertools.pairwise(np.unique([0, *cuts, len(count)])):
        own = count[start:end]
        detection = np.repeat(np.arange(start, end), own)
        object_ = np.arange(len(detection)) + np.repeat(first[found.image[start:end]] - np.cumsum(own) + own, own)
        a, b = found.boxes[torch.from_numpy(detection)], truth.boxes[torch.from_numpy(object_)]
        iou, of_crowd = matched_iou(a, b).numpy(), crowd[object_]
        overlap = np.where(of_crowd, overlap_share(a, b).numpy(), iou) if of_crowd.any() else iou
        rival = (found.label[detection] == truth.label[object_]) & (overlap >= least)
        near = (iou >= NEAR) & ~of_crowd
        parts.append((Pairs(detection[near], object_[near], iou[near]),
                      Pairs(detection[rival], object_[rival], overlap[rival])))  # fmt: skip
    nothing = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    near_ones, rivals = zip(*parts, strict=True) if parts else ([nothing], [nothing])
    return _joined(near_ones), _joined(rivals)


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Pairs)))


def _least(thresholds: Floats) -> Floats:
    """Return from which overlap on a pair counts (pycocotools' rule for a threshold of 1)."""
    return np.minimum(thresholds, 1 - 1e-10)


def _choose(rivals: Pairs, rounds: Ints, crowd: Bools, ignored: Bools, thresholds: Floats) -> tuple[Ints, Ints]:
    """Let the detections choose, in rounds: in the first the best of each class and image, then the second best.

    Those of one round cannot want the same object, so they choose at once.

    Args:
        rivals: Who may want what.
        rounds: [D] how many better detections of its class and image each has.
        crowd: [G] may be taken more than once.
        ignored: [G] taken only by who finds no other.
        thresholds: [T].

    Returns:
        [T, D] the object of each detection and [T, G] the detection of each object, −1 for none.
    """
    match = np.full((len(thresholds), len(rounds)), -1)
    found_by = np.full((len(thresholds), len(crowd)), -1)
    # each detection's pairs by overlap; of equal ones pycocotools takes the last
    order = np.lexsort((rivals.object, rivals.iou, rivals.detection, rounds[rivals.detection]))
    detection, wanted, overlap = rivals.detection[order], rivals.object[order], rivals.iou[order]
    least = _least(thresholds)[:, None]
    turn = rounds[detection]
    cuts = np.flatnonzero(np.diff(turn, prepend=-1, append=-1)) if len(turn) else np.zeros(0, np.int64)
    for start, end in itertools.pairwise(cuts):
        part, chooser = wanted[start:end], detection[start:end]
        free = ((found_by[:, part] < 0) | crowd[part]) & (overlap[start:end] >= least)
        n = end - start
        value = np.where(free, np.arange(n) + n * ~ignored[part], -1)
        firsts = np.flatnonzero(np.diff(chooser, prepend=-1))
        best = np.maximum.reduceat(value, firsts, axis=1)
        t, column = np.nonzero(best >= 0)
        taken, who = part[best[t, column] % n], chooser[firsts[column]]
        match[t, who] = taken
        found_by[t, taken] = who
    return match, found_by
