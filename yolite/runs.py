"""Run folders, read back: what was asked, how far it got, how good it was. Needs neither torch nor the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolite.errors import UserError
from yolite.files import read_json, read_yaml

_TRACES = ("config.yaml", "metrics.jsonl", "results.json", "last.ckpt", "best.ckpt")
"""Any of these in a folder says that it is, or was meant to be, a run."""

_NUMBERS = ("epoch", "seconds", "AP", "AP50")
"""What every row of metrics.jsonl must hold."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        path: The folder.
        settings: Its configuration by dotted key; empty where config.yaml cannot be read.
        history: The rows of metrics.jsonl that can be read.
        results: results.json; empty until the run is finished.
        trial: trial.json of a run that belongs to a search (`yolite tune`).
        problems: What is missing or damaged, one sentence each.
    """

    path: Path
    settings: dict[str, Any]
    history: list[dict[str, Any]]
    results: dict[str, Any]
    trial: dict[str, Any]
    problems: list[str]

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best epoch: the one results.json names, else the highest AP; empty without any."""
        named = [row for row in self.history if row["epoch"] == self.results.get("best_epoch")]
        return max(named or self.history, key=lambda row: row["AP"], default={})

    @property
    def state(self) -> str:
        """``finished``, or where it stopped (a run that is still at work looks the same)."""
        if self.trial.get("state") in ("pruned", "broke down"):
            return f"{self.trial['state']} at epoch {self.epochs}"
        if self.results:
            return "finished"
        return f"stopped at epoch {self.epochs}" if self.epochs else "no epoch"


def flatten(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested settings."""
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_row(row: Any) -> bool:
    """Whether a line of metrics.jsonl holds what is needed of it."""
    return isinstance(row, dict) and all(
        isinstance(row.get(key), (int, float)) and not isinstance(row[key], bool) for key in _NUMBERS
    )


def _read_history(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a line that cannot be read is reported and left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        problems.append("metrics.jsonl is missing: no epoch was finished")
        return []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"metrics.jsonl cannot be read ({type(error).__name__})")
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if _is_row(row):
            rows.append(row)
        else:
            problems.append(f"metrics.jsonl line {number} is damaged: left out")
    if not rows and not problems:
        problems.append("metrics.jsonl is empty: no epoch was finished")
    return rows


def _read_mapping(path: Path, problems: list[str]) -> dict[str, Any]:
    """Read a JSON or YAML file that may be missing; what is wrong with it is reported."""
    if not path.exists():
        return {}
    try:
        loaded = read_yaml(path) if path.suffix == ".yaml" else read_json(path)
    except UserError as error:
        problems.append(str(error))
        return {}
    if not isinstance(loaded, dict):
        problems.append(f"{path.name} does not hold keys and values")
        return {}
    return loaded


def read_run(path: Path) -> Run:
    """Read a run folder; what is missing or damaged goes into ``problems``."""
    problems: list[str] = []
    if not (path / "config.yaml").exists():
        problems.append("config.yaml is missing: its settings are not known")
    settings = dict(flatten(_read_mapping(path / "config.yaml", problems)))
    history = _read_history(path / "metrics.jsonl", problems)
    results, trial = (_read_mapping(path / name, problems) for name in ("results.json", "trial.json"))
    return Run(path, settings, history, results, trial, problems)


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, whole or not."""
    return any((path / name).exists() for name in _TRACES)


def find_runs(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the run folders among and directly inside ``folders``, and the other folders that lie beside them.

    Raises:
        UserError: a folder does not exist or holds no run.
    """
    found: list[Path] = []
    others: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: give run folders, or a folder that holds some")
        if is_run(folder):
            found.append(folder)
            continue
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
        runs = [path for path in inside if is_run(path)]
        deeper = [path for path in inside if path not in runs and any(map(is_run, path.iterdir()))]
        if not runs:
            hint = f"; {deeper[0]} does, give that one" if deeper else ": give run folders, or a folder that holds some"
            raise UserError(f"{folder} holds no run{hint}")
        found += runs
        others += [path for path in inside if path not in runs]
    return list(dict.fromkeys(found)), others


def differing(runs: Sequence[Run], known: Sequence[str]) -> list[str]:
    """Return the settings in which the runs differ, in the order of the configuration, but for ``known`` ones.

    A setting that a run does not have (an older version's) says nothing.
    """
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.settings.items():
            values.setdefault(key, set()).add(json.dumps(value, default=str))
    return [key for key, seen in values.items() if len(seen) > 1 and key not in known]
