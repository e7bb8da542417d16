"""The COCO metric of 5,000 pictures with 100 boxes each and 80 classes, from two files. Called by primitives.py.

    python benchmarks/primitive_evaluation.py TOOL TRUTH.json RESULTS.json

TOOL is yolite (its COCO reader, its reader of results files, `coco_metric`), pycocotools (COCO, loadRes, evaluate,
accumulate, summarize), or ``make``, which writes the files: about seven objects a picture, most of them found by up to
three boxes that are more or less loose, and false alarms with low scores; rare classes, crowds. Coordinates are eighths
of a px and scores float32, so that both tools read the same numbers (yolite holds boxes as float32). It prints one line
of JSON: the seconds without the imports, those of its parts, and the 12 numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, EACH, CLASSES = 5000, 100, 80


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return [count, 4] COCO boxes inside 640x480 px."""
    side = np.exp(rng.normal([4.0, 4.0], 1.0, (count, 2))).clip(4, [600, 440])
    return np.concatenate((rng.random((count, 2)) * ([640, 480] - side), side), 1)


def make(truth: Path, results: Path, seed: int = 0) -> None:
    """Write the truth and the detections."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CLASSES + 1)
    share /= share.sum()
    count = rng.poisson(7.3, IMAGES)
    label = rng.choice(CLASSES, count.sum(), p=share)
    objects = boxes(rng, len(label))
    image = np.repeat(np.arange(IMAGES), EACH)
    place = np.tile(np.arange(EACH), IMAGES)
    near = place < 3 * count[image]  # an object's boxes are three in a row: the best one tight, the others looser
    owner = np.where(near, (np.cumsum(count) - count)[image] + place // 3, 0)
    loose = np.array([0.05, 0.15, 0.3])[place % 3, None] * rng.normal(size=(len(image), 4))
    size = objects[owner][:, [2, 3, 2, 3]]
    found = np.where(near[:, None], objects[owner] + loose * size, boxes(rng, len(image)))
    guess = rng.choice(CLASSES, len(image), p=share)
    guess = np.where(near & (rng.random(len(image)) < 0.8), label[owner], guess)
    score = np.where(near, rng.beta(4 - place % 3, 2), rng.beta(1, 12, len(image)))
    objects, found = (np.concatenate((b[:, :2], b[:, 2:].clip(1)), 1).round(3) for b in (objects, found))
    objects, found = ((b * 8).round() / 8 for b in (objects, found))
    crowd = rng.random(len(label)) < 0.01
    truth.write_text(json.dumps({
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(1, IMAGES + 1)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": round(0.6 * b[2] * b[3]), "iscrowd": int(k)}
            for n, (i, c, b, k) in enumerate(zip((np.repeat(np.arange(IMAGES), count) + 1).tolist(),
                                                 (label + 1).tolist(), objects.tolist(), crowd, strict=True), 1)
        ],
        "categories": [{"id": c + 1, "name": f"class {c}"} for c in range(CLASSES)],
    }))  # fmt: skip
    columns = (image + 1).tolist(), (guess + 1).tolist(), found.tolist(), ((score * 2**20).round() / 2**20).tolist()
    results.write_text(json.dumps([
        {"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in zip(*columns, strict=True)
    ]))  # fmt: skip


def yolite(truth: Path, results: Path) -> tuple[list[float], list[float]]:
    """Return the 12 numbers, and when the truth was read, the detections were read, and all was done."""
    from yolite.console import Console
    from yolite.evaluation.coco import NUMBERS, coco_metric
    from yolite.evaluation.results import read_results
    from yolite.reading import build_dataset, load_split
    from yolite.settings import load_config

    times, console = [time.perf_counter()], Console()
    config = load_config(None, None, {"data": {"source": str(truth)}}, [])
    data = load_split(build_dataset(config, console), "val", console, need_images=False, need_sizes=False)
    times.append(time.perf_counter())
    detections = read_results(results, data.samples, data.category_ids)
    times.append(time.perf_counter())
    numbers = coco_metric(data.samples, detections, data.names).numbers
    return [numbers[name] for name in NUMBERS], [*times, time.perf_counter()]


def pycocotools(truth: Path, results: Path) -> tuple[list[float], list[float]]:
    """Return the same of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    times = [time.perf_counter()]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        times.append(time.perf_counter())
        found = known.loadRes(str(results))
        times.append(time.perf_counter())
        judge = COCOeval(known, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist(), [*times, time.perf_counter()]


def main() -> None:
    """Do one of the three."""
    truth, results = Path(sys.argv[2]), Path(sys.argv[3])
    if sys.argv[1] == "make":
        make(truth, results)
        return
    numbers, times = {"yolite": yolite, "pycocotools": pycocotools}[sys.argv[1]](truth, results)
    parts = dict(zip(("truth", "detections", "metric"), np.diff(times).tolist(), strict=True))
    row: dict[str, Any] = {"seconds": times[-1] - times[0], "parts": parts, "numbers": numbers}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
