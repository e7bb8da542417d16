"""``yolite tune``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from yolite.charts import plot_search
from yolite.commands.train import BrokenDown, configure, start
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.errors import UserError, require
from yolite.files import write_atomically, write_json
from yolite.paths import free_run_folder
from yolite.runs import flatten
from yolite.settings import load_config, make_config, merge, nest, parse_words
from yolite.training.prepare import prepare
from yolite.training.resume import differences
from yolite.training.run import RunFolder
from yolite.training.search import RANGES, Range

if TYPE_CHECKING:
    import optuna

    from yolite.structures import Detections

SHOWN = 5
"""Trials in the table at the end."""

_FREE = ("device", "data.workers", "data.cache")
"""Settings that processes sharing a study may have each their own of."""

_OPTIONS = {"data.source": "--data", "train.epochs": "--epochs", "train.batch": "--batch"}
"""Keys whose option has another name."""


class Stopped(Exception):
    """A signal ended a trial; ``code`` is the exit status (130 or 143)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped by signal {code - 128}")
        self.code = code


@dataclass(frozen=True)
class Search:
    """What one process needs to know for its trials.

    Attributes:
        folder: Holds the study and the runs.
        config: What every trial has in common, as asked for.
        ranges: What is searched.
        usual: Its values in ``config``: those of the first trial.
        epochs: Of a trial.
        wanted: Trials in all.
        console: Where words go.
    """

    folder: Path
    config: Config
    ranges: tuple[Range, ...]
    usual: dict[str, float]
    epochs: int
    wanted: int
    console: Console


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as nested settings."""
    return reduce(merge, (nest(key, value) for key, value in flat.items()), {})


def _searched(given: Mapping[str, Any]) -> tuple[Range, ...]:
    """Return what is searched: a setting that was given is never overridden.

    Raises:
        UserError: everything is given.
    """
    ranges = tuple(r for r in RANGES if r.key not in given)
    if not ranges:
        raise UserError("tune: every setting that is searched has been given: leave some of them out")
    return ranges


def _again(search: Search, model: str | None, given: Mapping[str, Any]) -> str:
    """Return the command that goes on with the search."""
    words = ["yolite", "tune", "--out", str(search.folder), "--trials", str(search.wanted)]
    words += ["--model", model] if model else []
    for key, value in given.items():
        option = _OPTIONS.get(key) or (f"--{key}" if key in ("imgsz", "device", "seed") else None)
        text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10**6)
        text = text.removesuffix("...\n").strip()
        words += [option, text] if option else [f"{key}={text}"]
    return shlex.join(words)


def tune_settings(
    model: str | None, options: Mapping[str, Any], words: Sequence[str], trials: int, out: Path | None
) -> None:
    """Search for settings that give a higher AP; each trial is a run.

    Raises:
        UserError: anything wrong with what was asked for, Optuna is missing, or the folder holds another search.
    """
    require("optuna", "tune", "tune")
    console = Console()
    config = configure(model, None, options, words)
    given = dict(flatten(merge(options, parse_words(words))))
    ranges = _searched(given)
    folder = out or free_run_folder(Path("runs"), "tune")
    RunFolder(folder).refuse_if_taken()
    # Read the data and decide what is auto here, where it is seen: each trial does it again, and says it in its log.
    prepared = prepare(config, console)
    settings = dict(flatten(to_plain(config)))
    usual = {r.key: min(max(float(settings[r.key]), r.low), r.high) for r in ranges}
    search = Search(folder, config, ranges, usual, int(prepared.config.train.epochs), trials, console)
    study = _study(search, prepared.fingerprint)
    del prepared  # the pictures it keeps
    console.log_to(folder / "log.txt")
    console.say(f"{folder}: {trials} trials of {search.epochs} epochs; searched: {', '.join(r.key for r in ranges)}")
    try:
        _work(study, search)
    except (Stopped, KeyboardInterrupt) as stop:
        console.say(f"stopped by a signal; go on with: {_again(search, model, given)}")
        raise SystemExit(getattr(stop, "code", 130)) from None
    _finish(study, search)


def _study(search: Search, fingerprint: str) -> optuna.Study:
    """Make the folder and its study, or open it if it is of the same settings and data.

    Raises:
        UserError: it is of others.
    """
    from yolite.training.study import open_study

    folder = search.folder
    RunFolder(folder).create()
    study = open_study(folder / "study.db", search.config.seed, search.usual)
    asked = {key: value for key, value in flatten(to_plain(search.config)) if key not in _FREE}
    asked |= {f"range of {r.key}": [r.low, r.high] for r in search.ranges}
    asked["data set"] = fingerprint[:12]
    stored = study.user_attrs.get("asked")
    if stored is None:
        study.set_user_attr("asked", asked)
    elif changed := differences(stored, asked):
        shown = "; ".join(changed[:5])
        raise UserError(f"--out {folder} holds a search with other settings or data ({shown}): choose another --out")
    return study


def _work(study: optuna.Study, search: Search) -> None:
    """Run this process's share of the trials."""
    from yolite.training.study import work

    said: set[int] = set()

    def wait(busy: int) -> None:
        if busy not in said:
            search.console.say(f"waiting for {busy} trials of other processes")
        said.add(busy)

    work(study, lambda trial: _train(trial, search), search.wanted, wait)


def _train(trial: optuna.Trial, search: Search) -> float:
    """Train one trial as a run of its own; return its best AP."""
    import optuna

    params = {r.key: trial.suggest_float(r.key, r.low, r.high, log=r.log) for r in search.ranges}
    folder = search.folder / f"trial-{trial.number}"
    values = " ".join(f"{key}={value:.4g}" for key, value in params.items())
    best, log = (-1.0, 0), Console(quiet=True)

    def close(state: str, line: str) -> None:
        """Write what became of the trial into its folder, and say it."""
        log.say(line)
        if folder.exists():
            write_json(folder / "trial.json", {"trial": trial.number, "state": state, "AP": best[0], "epoch": best[1],
                                               "settings": params})  # fmt: skip
        search.console.say(f"trial {trial.number}: {line}  {values}")

    with search.console.bar() as show:

        def listen(row: dict[str, Any], _: list[Detections]) -> None:
            nonlocal best
            best = max(best, (float(row["AP"]), int(row["epoch"])), key=lambda pair: pair[0])
            show(f"trial {trial.number}, AP {row['AP']:.3f}", int(row["epoch"]), search.epochs)
            trial.report(float(row["AP"]), int(row["epoch"]))
            if row["epoch"] < search.epochs and trial.should_prune():
                line = f"pruned at epoch {row['epoch']}: AP {best[0]:.3f} is below the median of the trials before"
                raise optuna.TrialPruned(line)

        try:
            start(make_config(to_plain(search.config), _nested(params)), RunFolder(folder), log, [listen])
        except optuna.TrialPruned as pruned:
            close("pruned", str(pruned))
            raise
        except BrokenDown as error:
            close("broke down", f"broke down: {error}")
            raise optuna.TrialPruned from None
        except SystemExit as stop:
            close("stopped", "stopped by a signal")
            raise Stopped(int(stop.code or 130)) from None
    close("finished", f"AP {best[0]:.3f} (epoch {best[1]} of {search.epochs})")
    return best[0]


def _changes(plain: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are not the usual ones."""
    return {
        key: _changes(value, usual[key]) if isinstance(value, dict) and isinstance(usual.get(key), dict) else value
        for key, value in plain.items()
        if value != usual.get(key)
    }


def _file(config: Config, params: Mapping[str, float]) -> dict[str, Any]:
    """Return what was found as settings for ``--config``: no more than what differs from the usual, for people."""
    plain, usual = to_plain(config), to_plain(make_config())
    try:
        usual = to_plain(load_config(config.model.name))
    except UserError:
        pass  # a network of its own: all its layers are needed
    changed = merge({"model": {"name": config.model.name}}, _changes(plain, usual))
    return merge(changed, _nested(params))


def _finish(study: optuna.Study, search: Search) -> None:
    """Print the best trials; write best.yaml and tune.png."""
    folder, console = search.folder, search.console
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.name in ("COMPLETE", "PRUNED")]
    done = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: -float(t.value or 0))
    if not done:
        raise UserError(f"no trial of {folder} was finished: look at the log.txt of its runs")
    rows = [["AP", *(f"{t.value:.3f}" for t in done[:SHOWN])]]
    rows += [[r.key, *(f"{t.params[r.key]:.4g}" for t in done[:SHOWN])] for r in search.ranges]
    title = f"the best of {len(done)} finished trials; {len(trials) - len(done)} were given up"
    console.table(title, ["", *(f"trial {t.number}" for t in done[:SHOWN])], rows)
    best = done[0]
    text = f"# yolite tune: AP {best.value:.4f}, trial {best.number} of {folder}\n"
    text += yaml.safe_dump(_file(search.config, best.params), sort_keys=False, default_flow_style=None, width=110)
    write_atomically(folder / "best.yaml", lambda file: file.write(text.encode()))
    points = [(t.number, t.value, t.state.name == "COMPLETE", t.params) for t in trials if t.value is not None]
    plot_search(folder / "tune.png", points, {r.key: r.log for r in search.ranges})
    usual = [f"; the usual settings (trial {t.number}): {t.value:.3f}" for t in done if t.params == search.usual]
    console.say(f"best: trial {best.number}, AP {best.value:.3f}{''.join(usual)}")
    console.say(f"{folder / 'best.yaml'}, {folder / 'tune.png'}; all runs: yolite runs {shlex.quote(str(folder))}")
    console.say(f"train with it: yolite train --config {shlex.quote(str(folder / 'best.yaml'))}")
