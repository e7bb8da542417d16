"""What imported weights are worth: yolo-fastest-1.1-xl on BCCD, fine-tuned and from scratch, in one run.

    python benchmarks/darknet_finetune.py --shared ../shared/data

Both runs are the same command with the same settings but for the weights they start from: those of the .weights file,
or random ones drawn for the same .cfg. The AP is that of the last epoch, which nothing was chosen by. A finished row
lies in benchmarks/results/darknet_finetune.json and is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rows import ROOT, machine

from yolite.build import build_preprocess
from yolite.checkpoint import describe, save_checkpoint
from yolite.commands.darknet import import_model, load_network
from yolite.config import to_plain

RESULTS = ROOT / "benchmarks" / "results" / "darknet_finetune.json"
MODEL = "darknet/yolo-fastest-1.1/yolo-fastest-1.1-xl"
COMMAND = "--data {shared}/bccd data.train=trainval data.val=test --epochs 20 --batch 16"
STARTS = ("imported", "random")


def checkpoint(start: str, shared: Path, folder: Path) -> Path:
    """Write the checkpoint that a run starts from."""
    cfg, out = shared / f"{MODEL}.cfg", folder / f"{start}.ckpt"
    if start == "imported":
        import_model(cfg, cfg.with_suffix(".weights"), shared / "darknet" / "coco.names", out)
    else:
        network, config, detector = load_network(cfg)
        names = [str(number) for number in range(network.classes)]
        content = describe(detector, build_preprocess(config), names, to_plain(config))
        save_checkpoint(out, {**content, "weights": detector.state_dict(), "ema": None})
    return out


def run(start: str, shared: Path, words: list[str]) -> dict[str, Any]:
    """Train once; return the finished row."""
    with tempfile.TemporaryDirectory() as scratch:
        weights, out = checkpoint(start, shared, Path(scratch)), Path(scratch) / "run"
        command = [*COMMAND.replace("{shared}", str(shared)).split(), "--weights", str(weights), *words]
        subprocess.run([sys.executable, str(ROOT / "tools" / "train.py"), *command, "--out", str(out)], check=True)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "start": start, "words": words, "AP": rows[-1]["AP"], "AP50": rows[-1]["AP50"],
        "course": [round(row["AP"], 3) for row in rows], "seconds": rows[-1]["seconds"], **machine(),
    }  # fmt: skip


def main() -> None:
    """Run what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder with darknet and bccd")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("words", nargs="*", help="settings for both runs, key=value")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(given.results.read_text()) if given.results.exists() else []
    for start in STARTS:
        if not any((row["start"], row["words"]) == (start, given.words) for row in rows):
            rows.append(run(start, given.shared, given.words))
            given.results.parent.mkdir(parents=True, exist_ok=True)
            given.results.write_text(json.dumps(rows, indent=2) + "\n")
    print(
        "| weights at the start | settings | AP after 5 | 10 | 15 | 20 epochs | AP50 |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        course = " | ".join(f"{row['course'][n - 1]:.3f}" for n in (5, 10, 15, 20))
        print(f"| {row['start']} | {' '.join(row['words'])} | {course} | {row['AP50']:.3f} |")


if __name__ == "__main__":
    main()
