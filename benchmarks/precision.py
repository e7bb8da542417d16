"""What bf16 and channels_last gain over plain fp32 on BCCD at 320 px, and that the AP stays the same.

    python benchmarks/precision.py --shared ../shared/data --only speed   # on an otherwise idle machine
    python benchmarks/precision.py --shared ../shared/data --only ap      # may run beside other work

``speed`` trains three epochs with each setting, in turn, twice; the figure is the median over the epochs of the time
of a training step (forward, loss, backward, optimiser) an image, without the first epoch. ``ap`` trains 50 epochs
from three seeds with plain fp32 and with bf16 + channels_last. A finished row lies in
benchmarks/results/precision.json and is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rows import ROOT, machine

RESULTS = ROOT / "benchmarks" / "results" / "precision.json"
BATCH = 16
COMMAND = "--data {shared}/bccd data.train=trainval data.val=test --imgsz 320 --batch 16"
MODES = {
    "fp32": "train.precision=fp32 train.channels_last=false",
    "fp32, channels_last": "train.precision=fp32 train.channels_last=true",
    "bf16": "train.precision=bf16 train.channels_last=false",
    "bf16, channels_last": "train.precision=bf16 train.channels_last=true",
}
SPEED = [{"kind": "speed", "mode": mode, "round": number} for number in (1, 2) for mode in MODES]
AP = [{"kind": "ap", "mode": mode, "seed": seed} for seed in (0, 1, 2) for mode in ("bf16, channels_last", "fp32")]


def run(job: dict[str, Any], shared: Path) -> dict[str, Any]:
    """Train once; return the finished row."""
    epochs, seed = (3, 0) if job["kind"] == "speed" else (50, job["seed"])
    words = f"{COMMAND.replace('{shared}', str(shared))} {MODES[job['mode']]} --epochs {epochs} --seed {seed}".split()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run([sys.executable, str(ROOT / "tools" / "train.py"), *words, "--out", str(out)], check=True)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        results = json.loads((out / "results.json").read_text())
    step = statistics.median(row["step_seconds"] for row in rows[1:])
    figures = {"ms_an_image": round(1000 * step / BATCH, 2)} if job["kind"] == "speed" else {
        "AP": results["AP"], "AP50": results["AP50"], "AP_last": rows[-1]["AP"], "AP50_last": rows[-1]["AP50"],
    }  # fmt: skip
    return {**job, **figures, **machine()}


def show(rows: list[dict[str, Any]]) -> None:
    """Print both tables."""
    print("| training step | ms an image | times as fast |\n|---|---|---|")
    speed = {m: [r["ms_an_image"] for r in rows if r["kind"] == "speed" and r["mode"] == m] for m in MODES}
    for mode, values in speed.items():
        if values and speed["fp32"]:
            faster = statistics.median(speed["fp32"]) / statistics.median(values)
            print(f"| {mode} | {min(values):.1f} to {max(values):.1f} | {faster:.2f} |")
    print("\n| 50 epochs | AP of the last epoch, by seed | mean | AP of the best epoch, by seed | mean |")
    print("|---|---|---|---|---|")
    for mode in MODES:
        own = [r for r in rows if r["kind"] == "ap" and r["mode"] == mode]
        if own:
            cells = []
            for key in ("AP_last", "AP"):
                cells += [" ".join(f"{r[key]:.3f}" for r in own), f"{statistics.mean(r[key] for r in own):.4f}"]
            print(f"| {mode} | {' | '.join(cells)} |")


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with bccd")
    parser.add_argument("--only", choices=("speed", "ap"), help="[default: both]")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(given.results.read_text()) if given.results.exists() else []
    for job in SPEED + AP:
        if given.only in (None, job["kind"]) and not any(job.items() <= row.items() for row in rows):
            rows.append(run(job, given.shared))
            given.results.parent.mkdir(parents=True, exist_ok=True)
            given.results.write_text(json.dumps(rows, indent=2) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
