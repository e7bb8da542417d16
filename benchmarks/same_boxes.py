"""Count how many boxes are the same to the bit, and how far the others lie apart, however they are asked for.

    python benchmarks/same_boxes.py --shared ../shared/data --weights runs/bccd [--files runs/export]

Every way is compared with the Python API, one picture at a time: batches of 8 and 16, the command line (its JSON holds
3 decimals of a px and 6 of a score: the API's numbers are rounded alike), and the loader with the batches of
evaluation. The 72 test photographs of BCCD are alike in size, the 128 pictures of coco128 are not. With --files the
ONNX and OpenVINO files there (of benchmarks/export.py) are compared with themselves in the same way, and with the
checkpoint. Nothing here is timed. The rows go to benchmarks/results/same_boxes.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rows import ROOT, machine

from yolite import Predictor
from yolite.data.images import image_size
from yolite.data.loader import plain_batches
from yolite.data.pictures import Pictures
from yolite.defaults import CONF, IOU, MAX_DET
from yolite.inference import Inference
from yolite.postprocess import Thresholds
from yolite.structures import Sample
from yolite.weights import choose_device, open_model

RESULTS = ROOT / "benchmarks" / "results" / "same_boxes.json"
Rows = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Boxes [N, 4], scores [N] and labels [N] of each picture."""


def by_api(weights: Path, paths: list[Path], batch: int) -> Rows:
    """Ask the Predictor."""
    found = Predictor(weights, "cpu").predict(paths, batch=batch)
    return [(r.boxes, r.scores, r.labels) for r in found]


def by_command(weights: Path, paths: list[Path], batch: int) -> Rows:
    """Ask `yolite detect` for its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        listed, out = Path(folder) / "list.txt", Path(folder) / "found.json"
        listed.write_text("".join(f"{path}\n" for path in paths))
        words = ["--weights", str(weights), "--device", "cpu", "--batch", str(batch), "--json", str(out)]
        command = [sys.executable, str(ROOT / "tools" / "detect.py"), str(listed), "--out", folder + "/o", *words]
        subprocess.run(command, check=True, capture_output=True)
        entries = [image["detections"] for image in json.loads(out.read_text())["images"]]
    return [
        (torch.tensor([d["box"] for d in one]).view(-1, 4), torch.tensor([d["score"] for d in one]),
         torch.tensor([d["label"] for d in one], dtype=torch.int64))
        for one in entries
    ]  # fmt: skip


def by_evaluation(weights: Path, paths: list[Path], batch: int) -> Rows:
    """Ask the loader and the batches of evaluation, with detection's thresholds."""
    none, model = torch.zeros(0), open_model(weights, choose_device(weights, "cpu"))
    samples = [Sample(path, image_size(path), torch.zeros(0, 4), none.long(), none.bool(), none, none.bool(), 0)
               for path in paths]  # fmt: skip
    inference, limits = Inference(model.network, model.preprocess), Thresholds(CONF, IOU, MAX_DET, best_class=True)
    found = {}
    for data, _ in plain_batches(Pictures(samples, model.preprocess), batch, lambda *_: None, step=inference.step):
        found.update(zip(data.indices, inference(data.images, data.letterboxes, limits), strict=True))
    return [(d.boxes, d.scores, d.labels) for _, d in sorted(found.items())]


def rounded(rows: Rows) -> Rows:
    """Round as detect's JSON does."""
    return [
        (torch.tensor([[round(v, 3) for v in box] for box in boxes.tolist()]).view(-1, 4),
         torch.tensor([round(v, 6) for v in scores.tolist()]), labels)
        for boxes, scores, labels in rows
    ]  # fmt: skip


def compare(name: str, wanted: Rows, found: Rows) -> dict[str, Any]:
    """Count the boxes that are equal in all their numbers; a picture with another number of boxes counts as unequal."""
    equal, total, lost, box, score = 0, 0, 0, 0.0, 0.0
    for (b1, s1, l1), (b2, s2, l2) in zip(wanted, found, strict=True):
        total += len(b1)
        if not torch.equal(l1, l2):
            lost += 1
            continue
        equal += int(((b1 == b2).all(1) & (s1 == s2)).sum())
        if len(b1):
            box, score = max(box, float((b1 - b2).abs().max())), max(score, float((s1 - s2).abs().max()))
    return {"way": name, "boxes": total, "equal": equal, "px": box, "score": score, "pictures with other boxes": lost}


def ways(weights: Path, paths: list[Path], files: Path | None) -> Iterator[dict[str, Any]]:
    """Yield a row for each way."""
    alone = by_api(weights, paths, 1)
    for batch in (8, 16):
        yield compare(f"API, batches of {batch}", alone, by_api(weights, paths, batch))
    for batch in (1, 8):
        yield compare(f"command line, batches of {batch}", rounded(alone), by_command(weights, paths, batch))
    yield compare("evaluation, batches of 16", alone, by_evaluation(weights, paths, 16))
    for file in (files / "onnx.onnx", files / "openvino.xml") if files else ():
        own = by_api(file, paths, 1)
        yield compare(f"{file.name}, beside the checkpoint", alone, own)
        yield compare(f"{file.name}, batches of 8", own, by_api(file, paths, 8))
        yield compare(f"{file.name}, evaluation, batches of 16", own, by_evaluation(file, paths, 16))


def main() -> None:
    """Print the table and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with bccd and coco128")
    parser.add_argument("--weights", type=Path, default=Path("runs/bccd"), help="checkpoint or run folder")
    parser.add_argument("--files", type=Path, help="folder with the files of benchmarks/export.py")
    given = parser.parse_args()
    bccd = given.shared / "bccd"
    names = (bccd / "ImageSets" / "Main" / "test.txt").read_text().split()
    sets = {"BCCD": [bccd / "JPEGImages" / f"{name}.jpg" for name in names],
            "coco128": sorted((given.shared / "coco128" / "images" / "train2017").glob("*.jpg"))}  # fmt: skip
    rows = []
    print(
        "| pictures | way | boxes | equal to the bit | largest difference, px | of a score |\n|---|---|---|---|---|---|"
    )
    for name, paths in sets.items():
        for row in ways(given.weights, paths, given.files):
            rows.append({"pictures": name, **row})
            print(f"| {name} | {row['way']} | {row['boxes']} | {row['equal']} | {row['px']:.1g} | {row['score']:.1g} |")
    RESULTS.write_text(json.dumps({"rows": rows, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
