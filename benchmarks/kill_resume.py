"""Kill training with SIGKILL at random moments, resume it, and compare the end with a run that was left alone.

    python benchmarks/kill_resume.py                 # 10 runs, each killed 20 times
    python benchmarks/kill_resume.py --runs 1 --kills 5

Each run trains on 96 of the built-in digits with other settings (`RUNS`). It is started as a program of its own,
killed, resumed, killed … and at last left to finish; the same settings are run once straight through. Both ends must
be equal bit for bit: raw weights, average, optimiser, scaler, and metrics.jsonl without its clock times. The step at
each kill is noted by the program itself (in a file, by the wrapper at the end of this script). A finished row lies in
benchmarks/results/kill_resume.json and is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "kill_resume.json"
INTERVAL = 5
"""Steps between two checkpoints."""
COMMON = f"--imgsz 128 --batch 8 --epochs 18 model.width=0.5 train.checkpoint_steps={INTERVAL}"
RUNS = [
    "train.precision=bf16 data.workers=1",
    "train.precision=fp32 train.optimizer=sgd train.lr=0.01 data.workers=0",
    "train.precision=bf16 train.multi_scale=0.5 train.multi_scale_every=3 data.workers=1",
    "train.precision=fp32 train.accumulate=2 train.optimizer=adam train.schedule=step data.workers=1",
    "train.precision=bf16 train.optimizer=rmsprop train.lr=0.0005 train.l1=1e-5 loss.label_smoothing=0.1",
    "train.precision=fp32 train.best_by=val_loss train.patience=3 data.workers=1",
    "train.precision=fp16 train.optimizer=adagrad data.workers=0",
    "train.precision=bf16 train.freeze=[backbone] train.freeze_bn=true train.lr_factors={neck: 0.3}",
    "train.precision=fp32 train.optimizer=adadelta train.lr=1 train.ema=0 train.channels_last=false",
    "train.precision=bf16 --batch 7 augment.mosaic=1 data.cache=off data.workers=2",
]


def words_of(text: str) -> list[str]:
    """Split settings at spaces, but not inside braces."""
    words: list[str] = []
    for word in text.split():
        if words and words[-1].count("{") > words[-1].count("}"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def start(words: list[str], note: Path) -> subprocess.Popen[str]:
    """Start training as a program of its own; it notes its place in ``note`` after every step."""
    note.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--child", str(note), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=ROOT
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a program; return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(output)
    return output


def place_in(note: Path) -> dict[str, int]:
    """Return the place noted last: {"step", "inside", "from"}; empty before the first step."""
    try:
        return dict(zip(("step", "inside", "from"), map(int, note.read_text().split()), strict=True))
    except (OSError, ValueError):
        return {}


def differences(a: Path, b: Path) -> list[str]:
    """Compare the ends of two runs bit for bit; return what differs."""
    import torch

    from yolite.checkpoint import load_checkpoint
    from yolite.training.place import CLOCKS

    def flat(value: Any, name: str = "") -> dict[str, Any]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if pairs is None:
            return {name: value}
        return {k: v for key, part in pairs if key not in CLOCKS for k, v in flat(part, f"{name}/{key}").items()}

    one, two = (flat({k: v for k, v in load_checkpoint(run / "last.ckpt").items() if k != "config"}) for run in (a, b))
    found = [name for name in one.keys() ^ two.keys()]
    for name in one.keys() & two.keys():
        x, y = one[name], two[name]
        if not (torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y):
            found.append(name)
    rows = [
        [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in (run / "metrics.jsonl").open()]
        for run in (a, b)
    ]
    return found + (["metrics.jsonl"] if rows[0] != rows[1] else [])


def kill_once(process: subprocess.Popen[str], note: Path, early: bool, rng: random.Random, step_seconds: float) -> bool:
    """Kill a program while it starts, or within about eight steps of training; return False if it was over."""
    limit = time.monotonic() + (rng.uniform(0, 6) if early else 600)
    while not place_in(note) and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.005)
    if place_in(note):
        time.sleep(rng.uniform(0, 8 * step_seconds))
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return True


def torture(words: list[str], kills: int, folder: Path, seed: int) -> dict[str, Any]:
    """Train once straight through and once with kills; return the row.

    Args:
        words: Settings of ``yolite train``.
        kills: How often to kill.
        folder: Where both runs go.
        seed: Of the moments.
    """
    rng, note, began = random.Random(seed), folder / "note", time.monotonic()
    straight, killed = folder / "straight", folder / "killed"
    finish(start([*words, "--out", str(straight)], note))
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").open()]
    step_seconds = sum(row["step_seconds"] for row in rows) / len(rows)
    steps: list[int] = []
    inside = lost = 0
    while len(steps) < kills:
        going_on = (killed / "last.ckpt").exists()
        process = start(["--resume", str(killed)] if going_on else [*words, "--out", str(killed)], note)
        last = steps[-1] if steps else 0
        if not kill_once(process, note, early=rng.random() < 0.15, rng=rng, step_seconds=step_seconds):
            print("the run was over before its last kill", file=sys.stderr)
            break
        place = place_in(note)
        if place:
            lost = max(lost, last - place["from"])
        steps.append(place.get("step", last))
        inside += bool(place.get("inside", 0))
    process = start(["--resume", str(killed)], note)
    finish(process)
    if place_in(note):
        lost = max(lost, steps[-1] - place_in(note)["from"])
    return {
        "settings": " ".join(words), "kills": len(steps), "inside_an_epoch": inside, "steps_at_kills": steps,
        "steps": rows[-1]["step"], "most_steps_lost": lost, "differences": differences(straight, killed),
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def few_digits(folder: Path) -> Path:
    """Write a data set of 96 training and 24 validation scenes of the built-in digits; return its YAML."""
    import yaml

    from yolite.console import Console
    from yolite.reading import build_dataset, load_split
    from yolite.settings import load_config

    console = Console(quiet=True)
    dataset = build_dataset(load_config(), console)
    for role, count in (("train", 96), ("val", 24)):
        split = load_split(dataset, role, console)
        paths = [sample.path.resolve() for sample in split.samples[:count] if sample.path]
        (folder / f"{role}.txt").write_text("".join(f"{path}\n" for path in paths))
    (folder / "few.yaml").write_text(yaml.safe_dump({"train": "train.txt", "val": "val.txt", "names": split.names}))
    return folder / "few.yaml"


def child(note: Path, words: list[str]) -> int:
    """Run ``yolite train`` and note the place after every step."""
    from yolite.cli import main
    from yolite.training.trainer import Trainer

    go, first = Trainer.step, []

    def noted(self: Trainer, batches: Any) -> Any:
        at = self.global_step
        first[:] = first or [at]
        report = go(self, batches)
        inside = int(self.place.step + 1 < self.loader.steps)
        temporary = note.with_suffix(".tmp")
        temporary.write_text(f"{at + 1} {inside} {first[0]}")
        temporary.replace(note)
        return report

    Trainer.step = noted  # type: ignore[method-assign]
    return main(["train", *words])


def main() -> None:
    """Run what is missing, print what is there."""
    if sys.argv[1:2] == ["--child"]:
        sys.path.insert(0, str(ROOT))
        raise SystemExit(child(Path(sys.argv[2]), sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=len(RUNS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(given.results.read_text()) if given.results.exists() else []
    for number in range(len(rows), given.runs):
        with tempfile.TemporaryDirectory() as folder:
            data = few_digits(Path(folder))
            settings = f"{COMMON} {RUNS[number]}"
            row = torture(["--data", str(data), *words_of(settings)], given.kills, Path(folder), number)
        rows.append({"run": number + 1, **row, "settings": settings})
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps(rows, indent=2) + "\n")
        print(json.dumps(rows[-1]), flush=True)
    print("| run | its own settings | kills (inside an epoch) | steps at the kills | most steps lost | end |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        own = row["settings"].removeprefix(COMMON).strip()
        end = "bit-equal" if not row["differences"] else f"differs: {', '.join(row['differences'][:3])}"
        steps = " ".join(map(str, row["steps_at_kills"]))
        print(f"| {row['run']} | {own} | {row['kills']} ({row['inside_an_epoch']}) | {steps} of {row['steps']} "
              f"| {row['most_steps_lost']} | {end} |")  # fmt: skip


if __name__ == "__main__":
    main()
