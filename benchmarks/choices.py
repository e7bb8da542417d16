"""That every kind of choice of a network trains: yolite-n with one thing changed at a time learns 16 digit scenes.

    python benchmarks/choices.py     # about a minute of one core a row

It is judged on the same 16 pictures, which says that a choice learns and nothing about new pictures; one seed, so rows
that end close together are not ranked. A finished row lies in benchmarks/results/choices.json and is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rows import ROOT, machine

from yolite.config import Plain
from yolite.settings import read_config_file

RESULTS = ROOT / "benchmarks" / "results" / "choices.json"
COMMAND = "--data digits --overfit 16 --imgsz 192 --epochs 60 --batch 4 --seed 0 --device cpu"


def after(kind: str, *added: Plain) -> Callable[[Plain], None]:
    """Return the edit that puts rows after each ``kind`` row of the backbone; the last takes over its name."""

    def edit(model: Plain) -> None:
        rows = []
        for row in model["backbone"]:
            name = {"name": row["name"]} if row["block"] == kind and "name" in row else {}
            rows.append({k: v for k, v in row.items() if not (name and k == "name")})
            if row["block"] == kind:
                rows += [*added[:-1], {**added[-1], **name}]
        model["backbone"] = rows

    return edit


def transposed(model: Plain) -> None:
    """Learn the upsampling of the neck: 256 channels to stride 16, 128 to stride 8."""
    widths = iter((256, 128))
    model["neck"] = [
        {"block": "transposed", "out": next(widths)} if row["block"] == "upsample" else row for row in model["neck"]
    ]


JOBS: dict[str, str | Callable[[Plain], None]] = {
    "yolite-n as it is": "",
    "model.act=leaky": "model.act=leaky",
    "model.act=tanh": "model.act=tanh",
    "model.norm=group": "model.norm=group",
    "model.norm=none": "model.norm=none",
    "model.norm=none train.lr=0.0005": "model.norm=none train.lr=0.0005",
    "model.down=max": "model.down=max",
    "model.init=xavier": "model.init=xavier",
    "row `se` after each csp": after("csp", {"block": "se"}),
    "row `cbam` after each csp": after("csp", {"block": "cbam"}),
    "rows `transposed` for `upsample`": transposed,
    "row `dropout` (0.1) after sppf": after("sppf", {"block": "dropout", "chance": 0.1}),
    "--model yolite-mobilenetv3-small": "--model yolite-mobilenetv3-small",
}


def run(name: str) -> dict[str, Any]:
    """Train once; return the finished row."""
    job = JOBS[name]
    with tempfile.TemporaryDirectory() as folder:
        out, words = Path(folder) / "run", job if isinstance(job, str) else ""
        if callable(job):
            config = read_config_file(ROOT / "configs" / "yolite-n.yaml")
            job(config["model"])
            (Path(folder) / "edited.yaml").write_text(yaml.safe_dump(config))
            words = f"--model {folder}/edited.yaml"
        command = [sys.executable, str(ROOT / "tools" / "train.py"), *COMMAND.split(), *words.split()]
        done = subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, text=True)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        results = json.loads((out / "results.json").read_text())
    millions = next(line for line in done.stdout.splitlines() if " M parameters" in line).split(" M ")[0].split()[-1]
    return {"choice": name, "words": COMMAND, "M_parameters": float(millions), "AP": results["AP"],
            "AP50": results["AP50"], "AP_last": rows[-1]["AP"], **machine()}  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print("| choice | M parameters | AP | AP50 |\n|---|---|---|---|")
    for row in sorted(rows, key=lambda row: list(JOBS).index(row["choice"])):
        print(f"| {row['choice']} | {row['M_parameters']:.2f} | {row['AP']:.3f} | {row['AP50']:.3f} |")


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(JOBS), help="[default: all]")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(given.results.read_text()) if given.results.exists() else []
    for name in JOBS:
        if given.only in (None, name) and name not in [row["choice"] for row in rows]:
            rows.append(run(name))
            given.results.parent.mkdir(parents=True, exist_ok=True)
            given.results.write_text(json.dumps(rows, indent=2) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
