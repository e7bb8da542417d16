"""Run a detector over a split and judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from yolite.evaluation.coco import CocoResult, coco_metric
from yolite.processes import ALONE, Processes
from yolite.structures import Batch, Detections, Sample


def evaluate(
    batches: Iterable[tuple[Batch, dict[str, float]]],
    detect: Callable[[Batch], list[Detections]],
    samples: Sequence[Sample],
    names: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> tuple[CocoResult, list[Detections], dict[str, float]]:
    """Detect on all batches and score the result with pycocotools.

    Args:
        batches: Letterboxed batches with the seconds spent on reading them.
        detect: Turns a batch into one `Detections` an image, image px.
        samples: The truth, indexed by ``Batch.indices``; a sample that no batch brings counts as not detected on.
        names: Class names.
        progress: Called with (images done, images in all) of this process.
        processes: Each brings the batches of its share; the main one judges them all.

    Returns:
        The metric, the detections (one a sample; complete on the main process) and the seconds spent on reading.
    """
    found = [Detections(s.boxes[:0], s.area[:0], s.labels[:0], s.size) for s in samples]
    seconds: dict[str, float] = {}
    mine: list[int] = []
    done = 0
    for batch, spent in batches:
        for name, value in spent.items():
            seconds[name] = seconds.get(name, 0.0) + value
        for index, detections in zip(batch.indices, detect(batch), strict=True):
            found[index] = detections
            mine.append(index)
        done += len(batch.indices)
        if progress:
            progress(done, len(samples))
    for share in processes.gather([(index, found[index]) for index in mine]):
        for index, detections in share:
            found[index] = detections
    result = processes.from_main(coco_metric(samples, found, names) if processes.main else None)
    assert result is not None  # the main process has judged
    return result, found, seconds


def to_json(
    result: CocoResult, conf: float, iou: float, max_det: int, seconds: dict[str, float] | None
) -> dict[str, Any]:
    """Return the metric as the JSON of the command contract; seconds are per image."""
    per_image = {k: v / max(1, result.images) for k, v in seconds.items()} if seconds is not None else None
    return {
        **result.numbers,
        "per_class": [asdict(entry) for entry in result.per_class],
        "images": result.images,
        "conf": conf,
        "iou": iou,
        "max_det": max_det,
        "seconds": per_image,
    }
