"""How many pictures a second detection does, beside the peer's predict at the same cost of the network, on coco128.

    python benchmarks/detect.py --shared ../shared/data --weights W --peer PYTHON --peer-weights P.pt

PYTHON is that of an environment with ultralytics, which is called by its public functions and its command line. What is
equal: the 128 pictures, 640x640 px of input, confidence 0.25, NMS IoU 0.5, at most 300 boxes, the processors, float32,
and the network's cost: P is yolov8n, W is yolite with ``model.width=1.25``; the operations of both are counted by one
counter (PyTorch's) and stand in every row, with the boxes that were found, since boxes cost time too. Both are trained
on BCCD for the same few epochs, so that there are boxes:

    yolite train --data BCCD data.train=trainval data.val=test model.width=1.25 --imgsz 320 --epochs 10 --batch 16
    yolo detect train model=yolov8n.yaml data=BCCD_AS_YOLO imgsz=320 epochs=10 batch=16 pretrained=False

Three ways: ``warm 1`` and ``warm 16`` are the Python APIs with batches of 1 and 16, from files to boxes, after one
round that is not counted; ``program`` is the command line from start to end, pictures with boxes written. The peer's
predict leaves one processor unused; its Python API is told to use all (its command line cannot be told). By itself it
pads a picture only to the next multiple of 32 px (``rect``, marked), as yolite does since 2026-11-22: the rows of
before padded to the whole input, as the peer's others do. Both tools take turns, three rounds; the median is printed.
Time it on an otherwise idle machine. A finished row lies in benchmarks/results/detect.json and is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "detect.json"
MODES = ("warm 1", "warm 16", "program")
TOOLS = ("yolite", "ultralytics", "ultralytics rect")
ROUNDS, SIZE, CONF, IOU, MOST = 3, 640, 0.25, 0.5, 300
LEAST = 8.0
"""Seconds that one figure of the Python API is taken over, or more."""


def gflops(network: Callable[[Any], Any], size: int) -> float:
    """Return 10^9 operations a picture (a multiply-add counts as 2), by PyTorch's counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() / 1e9


def timed(detect: Callable[[list[str]], int], pictures: list[str]) -> dict[str, Any]:
    """Return seconds and boxes over all pictures: of as many rounds as `LEAST` takes, after one that is not counted."""
    detect(pictures)
    start, rounds = time.perf_counter(), 0
    while not rounds or time.perf_counter() - start < LEAST:
        boxes = detect(pictures)
        rounds += 1
    return {"seconds": (time.perf_counter() - start) / rounds, "boxes": boxes}


def ours(weights: str, pictures: list[str], batch: int, size: int = SIZE, half: bool = False) -> dict[str, Any]:
    """Measure yolite's Predictor."""
    import torch

    from yolite import Predictor

    predictor = Predictor(weights, "cpu", (size, size), half)

    def detect(paths: list[str]) -> int:
        results = predictor.predict(paths, CONF, IOU, MOST, batch)
        return sum(len(result.boxes) for result in results)

    about = {"gflops": gflops(predictor.inference.network, size), "torch": torch.__version__}
    return {**timed(detect, pictures), **about}


def theirs(weights: str, pictures: list[str], batch: int, rect: bool, size: int = SIZE) -> dict[str, Any]:
    """Measure the peer's predict; runs in the peer's environment."""
    import torch
    from ultralytics import YOLO

    model, threads = YOLO(weights), torch.get_num_threads()
    model.predict(pictures[0], imgsz=size, device="cpu", verbose=False)  # chooses another number of threads
    torch.set_num_threads(threads)

    def detect(paths: list[str]) -> int:
        how = {"imgsz": size, "conf": CONF, "iou": IOU, "max_det": MOST, "batch": batch, "rect": rect}
        results = model.predict(paths, **how, device="cpu", verbose=False, stream=True)
        return sum(len(result.boxes) for result in results)

    return {**timed(detect, pictures), "gflops": gflops(model.model.eval(), size), "torch": torch.__version__}


def program(tool: str, python: str, weights: str, folder: Path) -> dict[str, Any]:
    """Measure a command line from start to end, as it is called by people."""
    with tempfile.TemporaryDirectory() as out:
        if tool == "yolite":
            options = {"weights": weights, "out": f"{out}/o", "imgsz": SIZE, "conf": CONF, "iou": IOU, "max-det": MOST}
            words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
            command = [python, "-m", "yolite", "detect", str(folder), "--device", "cpu", *words]
        else:
            options = {
                "model": weights, "source": folder, "imgsz": SIZE, "conf": CONF, "iou": IOU, "max_det": MOST,
                "device": "cpu", "save": True, "rect": tool.endswith("rect"), "project": out, "name": "o",
            }  # fmt: skip
            yolo = str(Path(python).with_name("yolo"))
            command = [yolo, "detect", "predict", *(f"{key}={value}" for key, value in options.items())]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        seconds = time.perf_counter() - start
        written = len(list(Path(out, "o").glob("*.jpg")))
        if done.returncode or not written:
            raise SystemExit(f"{' '.join(command)}: {done.stderr[-500:]}")
    return {"seconds": seconds, "written": written}


def one(tool: str, mode: str, weights: str, folder: Path, limit: int) -> dict[str, Any]:
    """Measure a Python API in this process."""
    pictures = [str(path) for path in sorted(folder.glob("*.jpg"))][:limit]
    batch = int(mode.split()[1])
    if tool == "yolite":
        row = ours(weights, pictures, batch)
    else:
        row = theirs(weights, pictures, batch, tool.endswith("rect"))
    return {**row, "images": len(pictures)}


def measure(tool: str, mode: str, python: str, weights: str, folder: Path) -> dict[str, Any]:
    """Measure one way of one tool in a process of its own."""
    images = len(list(folder.glob("*.jpg")))
    if mode == "program":
        row = {**program(tool, python, weights, folder), "images": images}
    else:
        command = [python, __file__, "--one", tool, mode, weights, str(folder), str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr[-500:]}")
        row = json.loads(done.stdout.splitlines()[-1])
    return {**row, "rate": row["images"] / row["seconds"]}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the medians."""
    print("| | tool | images/s | boxes | GFLOPs a picture |\n|---|---|---|---|---|")
    for mode in MODES:
        for tool in TOOLS:
            own = [row for row in rows if (row["tool"], row["mode"]) == (tool, mode)]
            if own:
                rate = statistics.median(row["rate"] for row in own)
                cost = f"{own[0]['gflops']:.2f}" if "gflops" in own[0] else ""
                print(f"| {mode} | {tool} | {rate:.2f} | {own[0].get('boxes', '')} | {cost} |")


def main() -> None:
    """Run what is missing, print what is there."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    if sys.argv[1:2] == ["--one"]:
        tool, mode, weights, folder, limit = sys.argv[2:]
        print(json.dumps(one(tool, mode, weights, Path(folder), int(limit))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with coco128")
    parser.add_argument("--weights", required=True, help="yolite's")
    parser.add_argument("--peer", help="Python of an environment with ultralytics; left out: yolite alone")
    parser.add_argument("--peer-weights", help="the peer's")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=MODES, help="one of the three ways")
    given = parser.parse_args()
    folder = (given.shared / "coco128" / "images" / "train2017").resolve()
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    about = {"day": date.today().isoformat(), "processor": platform.machine(), "processors": os.cpu_count()}
    for number in range(1, given.rounds + 1):
        for mode in [given.only] if given.only else MODES:
            for tool in TOOLS if given.peer else TOOLS[:1]:
                job = {"tool": tool, "mode": mode, "round": number}
                if any(job.items() <= row.items() for row in rows):
                    continue
                python, weights = (
                    (sys.executable, given.weights) if tool == "yolite" else (given.peer, given.peer_weights)
                )
                rows.append({**job, **measure(tool, mode, python, str(Path(weights).resolve()), folder), **about})
                RESULTS.parent.mkdir(parents=True, exist_ok=True)
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
