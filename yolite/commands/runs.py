"""``yolite runs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolite.charts import plot_runs, require_png
from yolite.console import Console
from yolite.errors import UserError, nearest
from yolite.files import write_json
from yolite.runs import Run, differing, find_runs, read_run

SHOWN = 5
"""Settings in which runs differ that get a column of their own; the others are named below the table."""

_KNOWN = ("train.epochs",)
"""Settings that stand among the results."""


def _entry(run: Run, name: str) -> dict[str, Any]:
    """Return a run as one line of the table; None where a value is not known."""
    best = run.best
    return {
        "run": name,
        "state": run.state,
        "model": run.settings.get("model.name"),
        "data": run.settings.get("data.source"),
        "epochs": run.epochs,
        "asked": run.settings.get("train.epochs"),
        "best": best.get("epoch"),
        "AP": best.get("AP"),
        "AP50": best.get("AP50"),
        "last AP": run.history[-1]["AP"] if run.history else None,
        "seconds": run.history[-1]["seconds"] if run.history else None,
        "images": run.results.get("images"),
    }


def _names(paths: Sequence[Path]) -> list[str]:
    """Return what the runs are called: the folder's name, or the whole path where names alone are not enough."""
    one_parent = len({path.resolve().parent for path in paths}) == 1
    return [path.resolve().name if one_parent else str(path) for path in paths]


def _show(value: Any, key: str) -> str:
    """Return a cell of the table."""
    if value is None:
        return "-"
    if key in ("AP", "AP50", "last AP"):
        return f"{value:.3f}"
    if key == "seconds":
        return f"{value:.0f}"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else f"…{text[-23:]}"


def _print(console: Console, runs: Sequence[Run], entries: Sequence[dict[str, Any]], sort: str) -> list[str]:
    """Print the results and, in a table of its own, the settings that differ; return these settings."""
    # The tables must fit a terminal: model and data stand in the title where all runs share them, else among the
    # settings that differ; the epoch of "stopped at epoch 3" is in the column epochs.
    columns = [key for key in entries[0] if key not in ("asked", "model", "data")]
    rows = []
    for entry in entries:
        cells = {key: _show(entry[key], key) for key in columns}
        cells["state"] = entry["state"].partition(" at ")[0]
        cells["epochs"] = f"{entry['epochs']}/{_show(entry['asked'], 'asked')}"
        rows.append(list(cells.values()))
    known = {key: {entry[key] for entry in entries} - {None} for key in ("model", "data")}
    shared = [f"{key} {_show(values.pop(), key)}" for key, values in known.items() if len(values) == 1]
    console.table(", ".join([f"{len(runs)} runs by {sort}", *shared]), columns, rows)
    keys = differing(runs, _KNOWN)
    # layers and anchors are lists: too long for a column
    shown = [key for key in keys if not any(isinstance(run.settings.get(key), list) for run in runs)][:SHOWN]
    if shown:
        rows = [[entry["run"], _show(entry["AP"], "AP"), *(_show(run.settings.get(key), key) for key in shown)]
                for run, entry in zip(runs, entries, strict=True)]  # fmt: skip
        console.table("settings that differ", ["run", "AP", *shown], rows)
    if more := [key for key in keys if key not in shown]:
        console.say(f"{len(more)} more settings differ: {', '.join(more)}")
    return keys


def _sorted(runs: list[Run], entries: list[dict[str, Any]], key: str) -> list[int]:
    """Return the order of the runs: texts from A, numbers from the highest, unknown values last.

    Raises:
        UserError: there is nothing of that name to sort by.
    """
    settings = list(dict.fromkeys(name for run in runs for name in run.settings))
    if key not in entries[0] and key not in settings:
        columns = list(entries[0])
        raise UserError(
            f"--sort {key!r} is not known{nearest(key, [*columns, *settings])}: give one of {', '.join(columns)}, or a "
            "setting such as train.lr"
        )
    values = [entry[key] if key in entry else run.settings.get(key) for run, entry in zip(runs, entries, strict=True)]
    numbers = all(value is None or isinstance(value, (int, float)) for value in values)

    def place(index: int) -> tuple[bool, Any]:
        value = values[index]
        return value is None, 0 if value is None else -value if numbers else str(value)

    return sorted(range(len(runs)), key=place)


def compare_runs(folders: Sequence[Path], json: Path | None, plot: Path | None, sort: str) -> None:
    """Print run folders side by side: results, and the settings in which they differ.

    Raises:
        UserError: no runs there, a plot that is no .png, nothing to sort by.
    """
    console = Console()
    require_png(plot)
    paths, others = find_runs(folders)
    runs = [read_run(path) for path in paths]
    entries = [_entry(run, name) for run, name in zip(runs, _names(paths), strict=True)]
    order = _sorted(runs, entries, sort)
    runs, entries = [runs[i] for i in order], [entries[i] for i in order]
    keys = _print(console, runs, entries, sort)
    for run, entry in zip(runs, entries, strict=True):
        for problem in run.problems:
            console.warn(f"{entry['run']}: {problem}")
    if others:
        console.say(f"no run themselves, left out: {', '.join(str(path) for path in others)}")
    if plot:
        drawn = {entry["run"]: run.history for run, entry in zip(runs, entries, strict=True) if run.history}
        if not drawn:
            raise UserError(f"--plot {plot}: none of these runs has finished an epoch, there is nothing to draw")
        plot_runs(plot, drawn)
        console.say(f"plot: {plot}")
    if json:
        content = [
            {**entry, "problems": run.problems, "settings": {key: run.settings.get(key) for key in keys}}
            for run, entry in zip(runs, entries, strict=True)
        ]
        write_json(json, {"runs": content, "differ": keys})
