"""What the benchmarks share: finished rows in a file, the machine of the moment, one training run and its figures.

A row is one measurement with the words that tell it from others (the *job*). It is written as soon as it is finished,
so that a benchmark that was killed goes on with the next one, and is not measured again while it stands in its file.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from speed import median_ms

from yolite import __version__
from yolite.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]


def machine() -> Row:
    """Describe what the figures were taken on."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {"processor": model, "processors": os.cpu_count(), "torch": torch.__version__,
            "python": platform.python_version()}  # fmt: skip


def calibration(threads: int) -> float:
    """Return how fast the machine is at this moment: the median ms of one fixed convolution.

    It is 3×3, 64 channels to 64, on [4, 64, 80, 80] float32, channels_last. Machines of one name differ and have
    neighbours: two rows are alike in their seconds only as far as these are.
    """
    import torch

    torch.set_num_threads(threads)
    conv = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.zeros(4, 64, 80, 80).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return round(median_ms(lambda: conv(x)), 2)


def moment(threads: int) -> Row:
    """Return what a row says of where and when it was taken; call it before the work that is timed."""
    day = datetime.now(timezone.utc).date().isoformat()
    return {"day": day, "threads": threads, "calibration_ms": calibration(threads), **machine()}


def read(path: Path) -> list[Row]:
    """Return the finished rows of a file."""
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return rows


def finished(path: Path, job: Mapping[str, Any]) -> bool:
    """Say whether a job has its row."""
    return any(job.items() <= row.items() for row in read(path))


def add(path: Path, row: Row) -> None:
    """Append a finished row, one line each; the file is read anew, as another program may have added to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(each) for each in [*read(path), row])
    write_atomically(path, lambda file: file.write(f"[\n{text}\n]\n".encode()))


def program(command: Sequence[object], threads: int, **more: Any) -> float:
    """Run a program with so many threads; return the seconds from its start to its end."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **more.pop("env", {})}
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], check=False, env=env, **more)
    if done.returncode:
        raise SystemExit(f"exit {done.returncode} of {' '.join(map(str, command))[-300:]}: the rows before it are kept")
    return time.perf_counter() - start


def tool(verb: str, words: Sequence[str], threads: int) -> float:
    """Run one of yolite's commands as a program of its own; return its seconds."""
    return program([sys.executable, ROOT / "tools" / f"{verb}.py", *words], threads)


def commit() -> str:
    """Return which yolite this is: the commit, with "-dirty" where files differ from it; else the version."""
    command = ["git", "describe", "--always", "--dirty", "--match=NONE"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or __version__


def seconds_an_epoch(curve: Sequence[Sequence[float]], start: float = 0.0) -> float:
    """Return the median seconds from the end of one epoch to that of the next, its validation included."""
    return statistics.median(b - a for a, b in pairwise([start, *(point[0] for point in curve)]))


def by_seed(rows: Sequence[Row], name: str = "AP") -> list[str]:
    """Return the cells of a table that tell a figure of several seeds: each, their mean, largest minus smallest."""
    values = [row[name] for row in sorted(rows, key=lambda row: row.get("seed", 0))]
    spread = f"{max(values) - min(values):.3f}" if len(values) > 1 else ""
    return [" ".join(f"{value:.3f}" for value in values), f"{statistics.fmean(values):.3f}", spread]


def train(words: Sequence[str], out: Path, threads: int) -> Row:
    """Run ``yolite train`` as people do, into the folder ``out``; return the figures of its row.

    The seconds are those of the whole program, from the start of Python to the last picture; those of the curve count
    from there too: the time at which an epoch had been judged. AP is that of the epoch with the best one, AP_last of
    the last, by pycocotools at confidence 0.001 and at most 100 boxes an image.
    """
    begun = time.time()
    seconds = tool("train", [*words, "--out", str(out)], threads)
    start = (out / "config.yaml").stat().st_mtime - begun  # written when the data has been read, before the first step
    results = json.loads((out / "results.json").read_text())
    assert (results["conf"], results["max_det"]) == (0.001, 100), "the words change how it is judged"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last, curve = lines[-1], [[round(start + line["seconds"], 1), round(line["AP"], 4)] for line in lines]
    return {
        "AP": results["AP"], "AP50": results["AP50"], "AP75": results["AP75"], "best_epoch": results["best_epoch"],
        "AP_last": last["AP"], "AP50_last": last["AP50"], "seconds": round(seconds, 1),
        "train_seconds": results["train_seconds"], "seconds_an_epoch": round(seconds_an_epoch(curve, start), 2),
        "curve": curve, "yolite": commit(),
    }  # fmt: skip
