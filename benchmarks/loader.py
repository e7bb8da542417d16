"""How many training images a second the loader delivers, beside the peer's, on coco128.

    python benchmarks/loader.py --shared ../shared/data --peer PYTHON   # PYTHON: of an environment with ultralytics

Loaders alone, two processes each, nothing is trained: ``plain`` reads and resizes the files without augmentation,
``cached`` the same from pictures decoded once (in RAM), ``mosaic`` every sample from four cached pictures with zoom,
shift, flip and colour. Each of the 128 pictures is there eight times: the peer keeps the last 128 it has decoded, so
that its ``plain`` would else never read a file, and epochs of eight batches would time how epochs begin. Both tools
take turns, three rounds of at least five seconds each; the median is printed. Time it on an otherwise idle machine. A
finished row lies in benchmarks/results/loader.json and is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "loader.json"
MODES = ("plain", "cached", "mosaic")
SIZES = (320, 640)
ROUNDS, SECONDS, BATCH, WORKERS, COPIES = 3, 5.0, 16, 2, 8


def repeated(source: Path, place: Path) -> Path:
    """Make a data set in which every training picture of coco128 stands `COPIES` times, by links; return its YAML."""
    for kind in ("images", "labels"):
        (place / kind / "train").mkdir(parents=True)
        for file in (source / kind / "train2017").iterdir():
            for copy in range(COPIES):
                (place / kind / "train" / f"{copy}_{file.name}").symlink_to(file.resolve())
    description = place / "data.yaml"
    names = yaml.safe_load((source / "data.yaml").read_text())["names"]
    roles = {"path": str(place), "train": "images/train", "val": "images/train"}
    description.write_text(yaml.safe_dump({**roles, "names": names}))
    return description


def rate(epoch: Callable[[int], Iterable[Any]], images: int) -> float:
    """Return images a second over whole epochs of at least `SECONDS`, after one that is not counted."""
    for _ in epoch(0):
        pass
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += 1
        for _ in epoch(done):
            pass
    return done * images / (time.perf_counter() - start)


def ours(data: Path, size: int, mode: str) -> float:
    """Return yolite's rate."""
    from yolite.build import build_augment
    from yolite.console import Console
    from yolite.data.loader import TrainLoader
    from yolite.data.pictures import Pictures
    from yolite.reading import build_dataset
    from yolite.settings import load_config
    from yolite.structures import Preprocess

    off = {"scale": 0, "translate": 0, "hue": 0, "saturation": 0, "brightness": 0, "hflip": 0, "mosaic": 0}
    augment = {"mosaic": 1, "hflip": 0.5} if mode == "mosaic" else off
    config = load_config(options={"data": {"source": str(data)}, "augment": augment})
    pictures = Pictures(build_dataset(config, Console(quiet=True)).load("train").samples, Preprocess((size, size)))
    if mode != "plain":
        pictures.fill_cache()
    # more epochs with mosaic than will ever be run
    loader = TrainLoader(pictures, build_augment(config), BATCH, 0, 10**6 if mode == "mosaic" else 0, WORKERS)
    return rate(loader.epoch, loader.steps * BATCH)


def theirs(data: Path, size: int, mode: str) -> float:
    """Return the peer's rate, by its public functions; runs in the peer's environment."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_dataloader, build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    quiet = dict.fromkeys(("mosaic", "translate", "scale", "hsv_h", "hsv_s", "hsv_v", "fliplr", "erasing"), 0.0)
    overrides = {"imgsz": size, "task": "detect", "cache": False if mode == "plain" else "ram"}
    overrides |= {"mosaic": 1.0} if mode == "mosaic" else quiet
    config, found = get_cfg(overrides=overrides), check_det_dataset(str(data), autodownload=False)
    dataset = build_yolo_dataset(config, found["train"], BATCH, found, mode="train", rect=False, stride=32)
    loader = build_dataloader(dataset, BATCH, WORKERS, shuffle=True, rank=-1)
    return rate(lambda epoch: (batch for _, batch in zip(range(len(loader)), loader)), len(dataset))  # noqa: B905


def main() -> None:
    """Run what is missing, print what is there."""
    if sys.argv[1:2] == ["--one"]:
        tool, data, size, mode = sys.argv[2:6]
        print(json.dumps({"rate": (ours if tool == "yolite" else theirs)(Path(data), int(size), mode)}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with coco128")
    parser.add_argument("--peer", help="Python of an environment with ultralytics; left out: yolite alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = measure(repeated(given.shared / "coco128", Path(place)), given.peer)
    show(rows)


def measure(data: Path, peer: str | None) -> list[dict[str, Any]]:
    """Run what is missing; return all rows."""
    tools = {"yolite": sys.executable, **({"ultralytics": peer} if peer else {})}
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for round_number in range(1, ROUNDS + 1):
        for size in SIZES:
            for mode in MODES:
                for tool, python in tools.items():
                    job = {"tool": tool, "size": size, "mode": mode, "round": round_number}
                    if any(job.items() <= row.items() for row in rows):
                        continue
                    command = [python, str(Path(__file__).resolve()), "--one", tool, str(data), str(size), mode]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    rows.append({**job, **json.loads(done.stdout.splitlines()[-1])})
                    RESULTS.parent.mkdir(parents=True, exist_ok=True)
                    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the medians."""
    print("| input px | loader | yolite, images/s | ultralytics, images/s | times as fast |\n|---|---|---|---|---|")
    for size in SIZES:
        for mode in MODES:
            rates = [[r["rate"] for r in rows if (r["tool"], r["size"], r["mode"]) == (tool, size, mode)]
                     for tool in ("yolite", "ultralytics")]  # fmt: skip
            one, two = (statistics.median(r) if r else float("nan") for r in rates)
            print(f"| {size} | {mode} | {one:.0f} | {two:.0f} | {one / two:.1f} |")


if __name__ == "__main__":
    main()
