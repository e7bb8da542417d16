"""Everything that is said of an evaluation beside pycocotools' numbers, from one matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from yolite.defaults import CONF
from yolite.evaluation import curves
from yolite.evaluation.coco import CocoResult
from yolite.evaluation.curves import CALIBRATED_FROM, CONFIDENCES, Calibration, Curves, Group, Point
from yolite.evaluation.errors import KINDS, ErrorSplit, error_split
from yolite.evaluation.match import NEAR, Ints, Matching, match
from yolite.evaluation.worst import DOUBT, Picture, doubts, worst_pictures
from yolite.structures import Detections, Sample

STEP = 10
"""Every so many of `CONFIDENCES` go into the JSON."""
LISTED = 20
"""So many pictures go into the JSON; the file of the worst pictures has all."""


@dataclass(frozen=True)
class Analysis:
    """What the detections of a split are like at one IoU (0.5) and maxDets (100 of a class and image).

    Attributes:
        result: pycocotools' numbers.
        matching: Who found whom.
        curves: Right and wrong boxes over the confidence.
        beta, precision: What the thresholds to deploy were chosen by.
        deploy: The threshold for all classes together; None: there is none.
        class_deploy: For each class by itself.
        confidence: What pictures and confusion are shown at: that of ``deploy``, else detection's default.
        confusion, calibration, errors, groups: See `yolite.evaluation.curves` and `errors`.
        worst: The pictures with something wrong, the worst first.
    """

    result: CocoResult
    matching: Matching
    curves: Curves
    beta: float
    precision: float | None
    deploy: Point | None
    class_deploy: list[Point | None]
    confidence: float
    confusion: Ints
    calibration: Calibration
    errors: ErrorSplit
    groups: list[Group]
    worst: list[Picture]

    @property
    def chosen_by(self) -> str:
        """What the thresholds to deploy were chosen by, in words."""
        return f"best F{self.beta:g}" if self.precision is None else f"precision >= {self.precision:g}"

    @property
    def at(self) -> str:
        """The IoU and maxDets of all numbers, in words."""
        return f"IoU {self.matching.iou[0]:g}, maxDets {self.matching.max_det}"


def analyse(
    samples: Sequence[Sample], detections: Sequence[Detections], result: CocoResult, names: Sequence[str],
    beta: float = 1.0, precision: float | None = None,
) -> Analysis:  # fmt: skip
    """Match once and read everything off.

    Args:
        samples: The truth, image px.
        detections: One a sample, in the same order.
        result: pycocotools' numbers of the same.
        names: Class names.
        beta: Of the F score that the threshold to deploy is chosen by.
        precision: The precision that it is chosen by instead.
    """
    matching = match(samples, detections, names)
    found = curves.curves(matching)
    point = curves.deploy(found, None, beta, precision)
    split = error_split(matching)
    confidence = point.confidence if point else CONF
    return Analysis(
        result, matching, found, beta, precision, point,
        [curves.deploy(found, label, beta, precision) for label in range(len(names))],
        confidence, curves.confusion(matching, confidence), curves.calibration(matching), split,
        curves.by_frequency(result), worst_pictures(matching, split, confidence),
    )  # fmt: skip


def _point(point: Point | None) -> dict[str, Any] | None:
    """Return a threshold as plain data; null where there is none."""
    if point is None:
        return None
    return {"confidence": point.confidence, "precision": point.precision, "recall": point.recall, "f": point.f,
            "right": point.right, "wrong": point.wrong, "missed": point.missed}  # fmt: skip


def to_plain(found: Analysis, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what evaluate's JSON holds beside the metric; ``class_thresholds`` go with ``per_class`` row by row."""
    every = range(0, len(CONFIDENCES), STEP)
    c = found.calibration
    return {
        "at": {"iou": float(found.matching.iou[0]), "max_det": found.matching.max_det, "beta": found.beta},
        "threshold": {"by": found.chosen_by, **(_point(found.deploy) or {"confidence": None})},
        "class_thresholds": [_point(point) for point in found.class_deploy],
        "curves": {
            "confidence": [i / len(CONFIDENCES) for i in every],
            "objects": found.curves.objects.tolist(),
            "right": found.curves.right[:, ::STEP].tolist(),
            "wrong": found.curves.wrong[:, ::STEP].tolist(),
        },
        "pr": {"iou": 0.5, "precision": found.result.precision.round(4).tolist(),
               "confidence": found.result.confidence.round(4).tolist()},
        "confusion": {"confidence": found.confidence, "matrix": found.confusion.tolist()},
        "calibration": {"from": CALIBRATED_FROM, "error": c.error, "boxes": c.boxes.tolist(),
                        "score": c.score.tolist(), "right": c.right.tolist()},
        "errors": {
            "AP50": found.errors.ap, "background_iou": NEAR,
            "kinds": {k: {"count": found.errors.counts[k], "gives_back": found.errors.gives_back[k]} for k in KINDS},
            "all_wrong_gives_back": found.errors.all_wrong, "all_missed_gives_back": found.errors.all_missed,
        },
        "frequency": [asdict(group) for group in found.groups],
        "worst": {
            "confidence": found.confidence, "pictures": len(found.worst),
            "label_doubts": len(doubts(found.worst)), "doubt_score": DOUBT,
            "first": [{"path": str(samples[p.image].path or samples[p.image].id), "badness": p.badness,
                       "missed": p.count("missed"), "false_alarms": p.count("false alarm")}
                      for p in found.worst[:LISTED]],
        },
    }  # fmt: skip
