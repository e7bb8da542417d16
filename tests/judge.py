"""pycocotools by itself: the judge that yolite's metric is compared with."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolite.boxes import xyxy_to_xywh
from yolite.structures import Detections, Sample


def truth_of(samples: Sequence[Sample], names: Sequence[str]) -> COCO:
    """The samples in pycocotools' form: images and categories numbered from 1; difficult counts as crowd."""
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(samples, 1):
        boxes = xyxy_to_xywh(sample.boxes.double()).tolist()
        columns = boxes, sample.labels.tolist(), sample.area.tolist(), sample.ignore.tolist()
        for box, label, area, ignore in zip(*columns, strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": box, "area": area,
                "iscrowd": int(ignore),
            })  # fmt: skip
    truth = COCO()
    truth.dataset = {
        "images": [{"id": n, "height": s.size[0], "width": s.size[1]} for n, s in enumerate(samples, 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }
    truth.createIndex()
    return truth


def found_of(truth: COCO, detections: Sequence[Detections]) -> COCO:
    """The detections in pycocotools' form."""
    rows = [
        {"image_id": number, "category_id": label + 1, "bbox": box, "score": score}
        for number, found in enumerate(detections, 1)
        for box, label, score in zip(
            xyxy_to_xywh(found.boxes.double()).tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]
    if rows:
        return truth.loadRes(rows)
    found = COCO()
    found.dataset = {**truth.dataset, "annotations": []}
    found.createIndex()
    return found


def judged(
    samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str], most: list[int] | None = None
) -> COCOeval:
    """What pycocotools makes of it; with ``most`` (maxDets) only its matching, else its summary too."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = truth_of(samples, names)
        judge = COCOeval(truth, found_of(truth, detections), "bbox")
        judge.params.maxDets = most or judge.params.maxDets
        judge.evaluate()
        judge.accumulate()
        if most is None:
            judge.summarize()
    return judge
