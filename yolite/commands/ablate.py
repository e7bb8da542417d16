"""``yolite ablate``: what each step from YOLO to YOLOv2 is worth on a data set."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolite.charts import plot_steps
from yolite.commands.steps import TAKEN, Step, steps
from yolite.commands.train import BrokenDown, resume_run, start
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.errors import UserError
from yolite.files import read_json, write_atomically, write_json
from yolite.paths import free_run_folder
from yolite.reading import build_dataset
from yolite.runs import flatten
from yolite.settings import load_config, make_config, merge, parse_words
from yolite.training.resume import differences
from yolite.training.run import RunFolder

WIDTH = 0.125
"""Factor on the channels: small enough for a laptop."""

IMGSZ = 320

SHOWN = {"AP": "AP", "AP50": "AP50", "recall": "AR100", "seconds": "train_seconds"}
"""Columns, and their names in a run's results."""

Row = dict[str, Any]


def ablate(options: Mapping[str, Any], words: Sequence[str], seeds: int, out: Path | None) -> None:
    """Train every step with every seed, one after another; what is finished already is not run again.

    Raises:
        UserError: anything wrong with what was asked for, or the folder holds another ablation.
        SystemExit: SIGINT or SIGTERM came; what runs has been saved.
    """
    given = parse_words(words)
    load_config(words=words)  # unknown keys and wrong types are named here
    if taken := [key for key, _ in flatten(given) if key.startswith(TAKEN)]:
        raise UserError(f"ablate sets {taken[0]} itself, step by step: leave it out (--imgsz sets the larger size)")
    size = make_config({"imgsz": options.get("imgsz", IMGSZ)}).imgsz
    over = merge({k: v for k, v in options.items() if k != "imgsz"}, given)
    plan = [(step, make_config(merge({"model": {"width": WIDTH}}, step.settings), over)) for step in steps(size)]
    folder = out or free_run_folder(Path("runs"), "ablate")
    first, console = plan[0][1].seed, Console()
    build_dataset(plan[0][1], console)  # data that is not there is named before a folder is made
    _claim(folder, {**dict(flatten(over)), "imgsz": list(size), "seed": first})
    console.log_to(folder / "log.txt")
    console.say(f"{folder}: {len(plan)} steps x {seeds} seeds")
    rows: list[Row] = []
    for step, config in plan:
        found = []
        for seed in range(first, first + seeds):
            try:
                found.append(_one(step, config, seed, folder, console))
            except SystemExit:
                again = shlex.join(["yolite", "ablate", "--out", str(folder), "--seeds", str(seeds)])
                console.say(f"go on with: {again} and the same settings")
                raise
        rows.append(_row(step, config, found))
        _write(folder, rows, seeds)
    _show(rows, seeds, folder, console)


def _claim(folder: Path, asked: dict[str, Any]) -> None:
    """Make the folder, or check that it is of the same settings.

    Raises:
        UserError: it is of others.
    """
    RunFolder(folder).create()
    file = folder / "asked.json"
    if not file.is_file():
        write_json(file, asked)
    elif changed := differences(read_json(file), asked):
        raise UserError(
            f"--out {folder} holds an ablation with other settings ({'; '.join(changed[:5])}): choose another --out"
        )


def _one(step: Step, config: Config, seed: int, folder: Path, console: Console) -> dict[str, Any]:
    """Train one step with one seed, or go on with it, or read what it gave."""
    run = RunFolder(folder / f"{step.key}-{seed}")
    done = run.path / "row.json"
    if not done.is_file():
        row: dict[str, Any] = {"seed": seed, "error": None}
        log = Console(quiet=True)
        try:
            if run.last.is_file():
                resume_run(run.path, {}, [])
            else:
                start(make_config(to_plain(config), {"seed": seed}), run, log)
            results = read_json(run.results)
            row |= {column: float(results[key]) for column, key in SHOWN.items()}
        except BrokenDown as error:
            row["error"] = str(error)
        write_json(done, row)
        words = row["error"] or ", ".join(f"{column} {row[column]:.3f}" for column in SHOWN)
        console.say(f"{step.name}, seed {seed}: {words}")
    return dict(read_json(done))


def _row(step: Step, config: Config, found: Sequence[Mapping[str, Any]]) -> Row:
    """Return one line of the table: mean and spread (highest - lowest) over the seeds that did not break down."""
    good = [run for run in found if run["error"] is None]
    row: Row = {"step": step.name, "imgsz": list(config.imgsz), "seeds": list(found)}
    for column in SHOWN:
        values = [float(run[column]) for run in good]
        row[column] = sum(values) / len(values) if values else None
        row[f"{column}_spread"] = max(values) - min(values) if values else None
    return row


def _cells(row: Row) -> list[str]:
    """Return a row of the table as texts."""
    broken = sum(run["error"] is not None for run in row["seeds"])
    name = row["step"] + (f" ({broken} of {len(row['seeds'])} broke down)" if broken else "")
    out = [name, "x".join(map(str, row["imgsz"]))]
    for column in SHOWN:
        digits = 0 if column == "seconds" else 3
        mean, spread = row[column], row[f"{column}_spread"]
        out.append("-" if mean is None else f"{mean:.{digits}f} ± {spread / 2:.{digits}f}")
    return out


def _head() -> list[str]:
    return ["switched on", "input", *SHOWN]


def _write(folder: Path, rows: Sequence[Row], seeds: int) -> None:
    """Write what is there so far: for programs, as a Markdown table, as a picture."""
    write_json(folder / "ablate.json", {"rows": list(rows), "seeds": seeds})
    lines = [_head(), ["---"] * len(_head()), *(_cells(row) for row in rows)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_atomically(folder / "ablate.md", lambda file: file.write(text.encode()))
    plot_steps(folder / "ablate.png", rows)


def _show(rows: Sequence[Row], seeds: int, folder: Path, console: Console) -> None:
    """Print the table."""
    title = f"from YOLO to YOLOv2, each step on top of the one before; mean ± half the spread of {seeds} seeds"
    console.table(title, _head(), [_cells(row) for row in rows])
    console.say("pycocotools on validation, best epoch of each run; recall is AR100 (mean over IoU 0.5 to 0.95)")
    console.say(f"{folder / 'ablate.json'}, {folder / 'ablate.md'}, {folder / 'ablate.png'}")
