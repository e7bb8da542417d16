"""Train on the built-in data; print one table and keep every finished row.

    python benchmarks/train.py                                    # all jobs
    python benchmarks/train.py --only digits digits-long          # yolite-n
    python benchmarks/train.py --only yolov2-tiny yolov3-tiny     # the older generations

Each job is the command a user would type, run as a program of its own: the seconds are those of the whole program,
from the start of Python to the last picture, on the processors this machine gives it. A finished row lies in
benchmarks/results/train.json and is not run again (delete it there to repeat it).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from rows import RESULTS, add, finished, moment, read, train

FILE = RESULTS / "train.json"

V1 = "--model yolov1-tiny model.width=0.25 --batch 16 --epochs 24 train.optimizer=muon train.lr=0.004 augment.mosaic=0"
JOBS: dict[str, str] = {
    "digits": "",
    "digits-long": "--epochs 60",
    "yolov1-tiny": V1,
    "yolov1-tiny-conv": V1 + ' model.head=[{"block":"conv_head","prior":0.5}] model.code.classes_per=box',
    "yolov2-tiny": "--model yolov2-tiny model.width=0.375 --imgsz 416 --batch 16 --epochs 23 train.optimizer=muon "
    "train.lr=0.004 train.multi_scale=0 loss.box=5",
    "yolov3-tiny": "--model yolov3-tiny model.width=0.5 --imgsz 288 --batch 16 --epochs 30 train.optimizer=muon "
    "train.lr=0.004 loss.box=3",
}


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--keep", type=Path, help="keep the run folders here")
    given = parser.parse_args()
    threads = os.cpu_count() or 1
    for name in given.only:
        if finished(FILE, {"job": name}):
            continue
        words = JOBS[name].split()
        job = {"job": name, "command": " ".join(["python tools/train.py", *words])}
        about = moment(threads)
        with tempfile.TemporaryDirectory() as folder:
            add(FILE, {**job, **about, **train(words, (given.keep or Path(folder)) / name, threads)})
    print("| job | AP | AP50 | best epoch | AP at the last | seconds, whole program |")
    print("|---|---|---|---|---|---|")
    for row in read(FILE):
        print(f"| {row['job']} | {row['AP']:.3f} | {row['AP50']:.3f} | {row['best_epoch']} | {row['AP_last']:.3f} "
              f"| {row['seconds']:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
