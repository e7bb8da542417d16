"""The parity report: an exported file against the checkpoint it was made of, on real pictures.

Compared are every output of the file, at the trained input size and at one that is not square, alone and in a batch;
the boxes after NMS on every validation picture; and COCO AP. Each row has a stated tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from yolite.boxes import pairwise_iou
from yolite.data.loader import plain_batches
from yolite.data.pictures import Pictures
from yolite.errors import UserError
from yolite.evaluation.coco import coco_metric
from yolite.inference import Inference
from yolite.postprocess import Thresholds
from yolite.structures import Detections, Sample, Size


@dataclass(frozen=True)
class Tolerance:
    """What may differ; None: the row is shown and not judged.

    Attributes:
        raw: Raw maps (logits), largest difference.
        box: A box side, px of its picture.
        score: A score.
        lost: Share of the boxes after NMS without a partner: same class, IoU at least 0.5.
        ap: COCO AP, lower or higher.
    """

    raw: float | None
    box: float | None
    score: float | None
    lost: float
    ap: float


FLOAT = Tolerance(raw=1e-3, box=0.05, score=1e-3, lost=0.005, ap=0.001)
INT8 = Tolerance(raw=None, box=None, score=None, lost=0.1, ap=0.015)
LEAST_SHARE = 0.8
"""Of the FLOPs of an INT8 file, at least so much is to run in INT8."""


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        name: What is compared.
        measured: The number that is judged.
        allowed: Its limit; None: not judged.
        note: More of it, for people.
    """

    name: str
    measured: float
    allowed: float | None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the number keeps to its limit (NaN does not)."""
        return self.allowed is None or bool(self.measured <= self.allowed)


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the report for programs."""
    return {"passed": all(row.passed for row in rows), "rows": [{**asdict(row), "passed": row.passed} for row in rows]}


def match(one: Detections, other: Detections) -> tuple[int, float, float]:
    """Pair the boxes of two detections of one picture: same class, IoU at least 0.5, best pairs first.

    Returns:
        How many of both are left without a partner, and of the pairs the largest difference of a side, px, and of a
        score.
    """
    overlap = pairwise_iou(one.boxes, other.boxes)
    overlap[one.labels[:, None] != other.labels[None]] = 0
    first, second = [], []
    while overlap.numel() and float(overlap.max()) >= 0.5:
        row, column = divmod(int(overlap.argmax()), overlap.shape[1])
        first.append(row)
        second.append(column)
        overlap[row], overlap[:, column] = 0, 0
    lost = len(one) + len(other) - 2 * len(first)
    box = _largest(one.boxes[first], other.boxes[second])
    return lost, box, _largest(one.scores[first], other.scores[second])


def _largest(one: Tensor, other: Tensor) -> float:
    """Return the largest difference; infinite where the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max()) if one.numel() else 0.0


class _Worst:
    """The largest differences seen so far, by name; a NaN stays."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def add(self, name: str, value: float) -> None:
        """Take a difference into account."""
        if not value <= self.seen.get(name, -1.0):
            self.seen[name] = value


def _as_detections(outputs: Sequence[Tensor], batch: int, size: Size) -> list[Detections]:
    """Turn the outputs of NMS in the graph into detections, input px."""
    boxes, scores, labels, picture = outputs
    mine = [picture == place for place in range(batch)]
    return [Detections(boxes[m], scores[m], labels[m], size) for m in mine]


def compare_outputs(
    reference: Callable[[Tensor], Sequence[Tensor]], candidate: Callable[[Tensor], Sequence[Tensor]],
    inputs: Sequence[Tensor], names: Sequence[str], least: float, tolerance: Tolerance,
) -> list[Row]:  # fmt: skip
    """Compare every output of an exported graph.

    Args:
        reference: The traced module itself; [B, 3, H, W] → the outputs.
        candidate: The exported file.
        inputs: Batches of normalised pictures, of several batch sizes and input sizes.
        names: The outputs.
        least: Boxes before NMS are compared where a score is above this: others may lie anywhere.
        tolerance: What may differ.
    """
    worst, lost, total = _Worst(), 0, 0
    for images in inputs:
        found = dict(zip(names, candidate(images), strict=True))
        wanted = dict(zip(names, reference(images), strict=True))
        for name in names:
            if name.startswith("raw_"):
                worst.add("raw maps", _largest(wanted[name], found[name]))
        if "labels" in names:
            size, keys = (images.shape[2], images.shape[3]), ("boxes", "scores", "labels", "picture")
            pairs = (_as_detections([side[key] for key in keys], len(images), size) for side in (wanted, found))
            for one, other in zip(*pairs, strict=True):
                left, box, score = match(one, other)
                lost, total = lost + left, total + len(one) + len(other)
                worst.add("boxes of the graph, px", box)
                worst.add("scores of the graph", score)
        else:
            some = wanted["scores"].amax(-1) > least
            same = wanted["boxes"].shape == found["boxes"].shape
            worst.add("boxes of the graph, px",
                      _largest(wanted["boxes"][some], found["boxes"][some]) if same else float("inf"))  # fmt: skip
            worst.add("scores of the graph", _largest(wanted["scores"], found["scores"]))
    allowed = {"raw maps": tolerance.raw, "boxes of the graph, px": tolerance.box,
               "scores of the graph": tolerance.score}  # fmt: skip
    rows = [Row(name, value, allowed[name]) for name, value in worst.seen.items()]
    if "labels" in names:
        rows.append(Row("boxes of the graph without a partner", lost / max(1, total), tolerance.lost, f"{total} boxes"))
    return rows


@dataclass
class Compared:
    """Boxes of both on the pictures seen so far: for AP, and how they pair after NMS as in use."""

    wanted: list[Detections]
    found: list[Detections]
    worst: _Worst
    lost: int = 0
    total: int = 0


def compare_detections(
    reference: Inference, candidate: Inference, pictures: Pictures, names: Sequence[str], judged: Thresholds,
    used: Thresholds, batch: int, tolerance: Tolerance, report: Callable[[Sample, str], None],
    progress: Callable[[int, int], None],
) -> list[Row]:  # fmt: skip
    """Compare the boxes after NMS on every picture, and AP where there are labels.

    Args:
        reference: The checkpoint at work.
        candidate: The exported file at work.
        pictures: The validation pictures.
        names: Class names.
        judged: Thresholds of the metric.
        used: Thresholds of detection.
        batch: Pictures at once.
        tolerance: What may differ.
        report: Called with each picture that cannot be read, and why.
        progress: Called with (pictures done, in all).

    Raises:
        UserError: none of the pictures can be read.
    """
    samples: list[Sample] = list(pictures.samples)
    none = [Detections(s.boxes[:0], s.area[:0], s.labels[:0], s.size) for s in samples]
    seen, done = Compared(list(none), list(none), _Worst()), 0
    for data, _ in plain_batches(pictures, batch, report, step=reference.step):
        maps = [inference.forward(data.images) for inference in (reference, candidate)]
        for one, other in zip(*maps, strict=True):
            seen.worst.add("raw", _largest(one, other))
        for target, inference, raw in zip((seen.wanted, seen.found), (reference, candidate), maps, strict=True):
            for index, found in zip(data.indices, inference.finish(raw, data.letterboxes, judged), strict=True):
                target[index] = found
        pairs = [i.finish(raw, data.letterboxes, used) for i, raw in zip((reference, candidate), maps, strict=True)]
        for one, other in zip(*pairs, strict=True):
            left, box, score = match(one, other)
            seen.lost, seen.total = seen.lost + left, seen.total + len(one) + len(other)
            seen.worst.add("box", box)
            seen.worst.add("score", score)
        done += len(data.indices)
        progress(done, len(samples))
    if not done:
        raise UserError("none of the validation pictures can be read: a file is not exported unproved")
    worst = seen.worst.seen
    note = f"{seen.total // 2} boxes, confidence {used.conf}, IoU {used.iou}"
    rows = [
        Row("raw maps, all pictures", worst["raw"], tolerance.raw, f"{done} pictures"),
        Row("boxes after NMS, px", worst["box"], tolerance.box, note),
        Row("scores after NMS", worst["score"], tolerance.score),
        Row("boxes after NMS without a partner", seen.lost / max(1, seen.total), tolerance.lost, f"{seen.lost} boxes"),
    ]
    if any(len(sample.boxes) for sample in samples):
        before, after = (coco_metric(samples, found, names).numbers["AP"] for found in (seen.wanted, seen.found))
        rows.append(Row("AP, difference", abs(after - before), tolerance.ap, f"{before:.4f} -> {after:.4f}"))
    return rows


def other_size(size: Size, stride: int) -> Size:
    """Return an input size that is not square and not ``size``: the width is about 5/8 of the height."""
    height, width = size
    narrow = max(1, round(height * 5 / 8 / stride)) * stride
    return (height, narrow) if narrow not in (width, height) else (height, height + stride)


def inputs_of(pictures: Pictures, sizes: Sequence[Size], batch: int) -> list[Tensor]:
    """Return uint8 batches: for each input size one picture alone, then ``batch`` together.

    Pictures that are not square come first.
    """
    order = sorted(range(len(pictures)), key=lambda i: pictures.samples[i].size[0] == pictures.samples[i].size[1])
    chosen = order[: batch + 1]
    preprocess = pictures.preprocess
    out: list[Tensor] = []
    for size in sizes:
        some = Pictures([pictures.samples[i] for i in chosen], replace(preprocess, size=size))
        read = [data.images for data, _ in plain_batches(some, 1, lambda *_: None, step=0)]
        out += [read[0], torch.cat(read[1:])] if len(read) > 1 else read
    return out
