"""Train yolite on the data sets the documentation speaks of; print one table and keep every finished row.

    python benchmarks/train.py --shared ../shared/data            # all jobs
    python benchmarks/train.py --only digits digits-long          # the built-in data alone

Each job is the command a user would type, run as a program of its own: the seconds are those of the whole program,
from the start of Python to the last picture, on the processors this machine gives it. A finished row lies in
benchmarks/results/train.json and is not run again (delete it there to repeat it).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "train.json"

JOBS: dict[str, str] = {
    "digits": "",
    "digits-long": "--epochs 60",
    "bccd": "--data {shared}/bccd data.train=trainval data.val=test --imgsz 320 --epochs 50 --batch 16",
    "cards": "--data {shared}/cards --imgsz 320 --epochs 50 --batch 16",
    "coco128": "--data {shared}/coco128 --imgsz 320 --epochs 1 --batch 16",
}


def machine() -> dict[str, Any]:
    """Describe what the figures were taken on."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {"processor": model, "processors": os.cpu_count(), "torch": torch.__version__,
            "python": platform.python_version()}  # fmt: skip


def run(name: str, words: list[str], out: Path) -> dict[str, Any]:
    """Run one job; return its row."""
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *words, "--out", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    results = json.loads((out / "results.json").read_text())
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    return {
        "job": name,
        "command": " ".join(["python tools/train.py", *words]),
        "seconds": round(seconds, 1),
        "AP": results["AP"], "AP50": results["AP50"], "AP75": results["AP75"], "best_epoch": results["best_epoch"],
        "AP_last": last["AP"],
        "day": datetime.now(timezone.utc).date().isoformat(),
        **machine(),
    }  # fmt: skip


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with bccd, cards, coco128")
    parser.add_argument("--only", nargs="*", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--keep", type=Path, help="keep the run folders here")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in given.only:
        if any(row["job"] == name for row in rows):
            continue
        words = JOBS[name].replace("{shared}", str(given.shared)).split()
        with tempfile.TemporaryDirectory() as folder:
            row = run(name, words, (given.keep or Path(folder)) / name)
        rows.append({**row, "command": " ".join(["python tools/train.py", *JOBS[name].split()])})
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    print("| job | AP | AP50 | best epoch | AP at the last | seconds, whole program |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['job']} | {row['AP']:.3f} | {row['AP50']:.3f} | {row['best_epoch']} | {row['AP_last']:.3f} "
              f"| {row['seconds']:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
