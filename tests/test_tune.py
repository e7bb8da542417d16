"""`yolite tune`: what is searched, counted, given up and gone on with. Most tests replace `start`: nothing trains."""

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from tests.test_training import SMALL
from yolite.commands import tune
from yolite.commands.train import BrokenDown
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.runs import flatten, read_run
from yolite.settings import load_config
from yolite.training.run import RunFolder
from yolite.training.search import RANGES

optuna = pytest.importorskip("optuna")
EPOCHS = 6


@pytest.fixture
def trained(monkeypatch) -> list[Config]:
    """Trials that take no time: AP is 0.1 an epoch, times train.lr × 100; returns their configurations."""
    seen: list[Config] = []

    def start(config: Config, run: RunFolder, console: Console, listeners: Sequence[Callable]) -> None:
        seen.append(config)
        run.create()
        console.log_to(run.log)
        run.write_config(to_plain(config))
        rows: list[dict] = []
        for epoch in range(1, EPOCHS + 1):
            ap = 10 * config.train.lr * epoch
            rows.append({"epoch": epoch, "seconds": 1.0, "AP": ap, "AP50": ap})
            run.write_metrics(rows)
            for listener in listeners:
                listener(rows[-1], [])

    monkeypatch.setattr(tune, "start", start)
    return seen


@pytest.fixture
def search(cli, shapes: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Search in tmp_path/t."""
    return lambda *words: cli("tune", "--data", shapes, *SMALL, "--epochs", EPOCHS, "--out", tmp_path / "t", *words)


def trials(folder: Path) -> list[tuple[int, str]]:
    study = optuna.load_study(study_name="yolite", storage=f"sqlite:///{folder / 'study.db'}")
    return [(t.number, t.state.name) for t in study.get_trials()]


def test_the_documented_ranges_are_those_of_the_code() -> None:
    rows = [f"| `{r.key}` | {r.low:g} | {r.high:g} | {'by factors' if r.log else 'evenly'} | {r.why} |" for r in RANGES]
    assert "\n".join(rows) in (Path(__file__).parent.parent / "docs" / "tuning.md").read_text()
    usual = dict(flatten(to_plain(load_config())))
    for r in RANGES:
        assert r.low <= usual[r.key] <= r.high, r.key


def test_a_missing_package_is_said_before_any_work(cli, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, err = cli("tune", "--data", shapes, "--out", tmp_path / "t")
    assert status == 2
    assert err == "error: tune needs the package optuna: pip install 'yolite[tune]'\n"
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
def test_three_trials_and_a_run_with_what_was_found(cli, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "t"
    status, said, err = cli("tune", "--data", shapes, *SMALL, "--epochs", 2, "--trials", 3, "--out", out)
    assert status == 0, said + err
    assert {p.name for p in out.iterdir()} == {
        "trial-0", "trial-1", "trial-2", "study.db", "best.yaml", "tune.png", "log.txt"
    }  # fmt: skip
    runs = [read_run(out / f"trial-{n}") for n in range(3)]
    for run in runs:
        assert run.state == "finished"
        assert run.trial["AP"] == max(row["AP"] for row in run.history)
        assert all(run.settings[key] == value for key, value in run.trial["settings"].items())
    usual = dict(flatten(to_plain(load_config())))
    assert runs[0].trial["settings"] == {r.key: usual[r.key] for r in RANGES}
    best = max(runs, key=lambda run: run.trial["AP"])
    command = re.findall(r"train with it: yolite (.*)", said)[0]
    status, said, err = cli(*shlex.split(command), "--out", tmp_path / "again")
    assert status == 0, said + err
    assert [row["AP"] for row in read_run(tmp_path / "again").history] == [row["AP"] for row in best.history]


def test_going_on_counts_all_trials(search, trained: list[Config], tmp_path: Path) -> None:
    for wanted, runs in ((2, 2), (5, 5), (5, 5)):
        status, out, err = search("--trials", wanted, "train.weight_decay=0.01")
        assert status == 0, out + err
        assert len(trained) == runs
    assert all(config.train.weight_decay == 0.01 for config in trained), "an explicit value is never overridden"
    assert len({config.train.lr for config in trained}) == 5
    best = max(trained, key=lambda config: config.train.lr)
    found = yaml.safe_load((tmp_path / "t" / "best.yaml").read_text())
    assert (found["train"]["lr"], found["train"]["weight_decay"]) == (best.train.lr, 0.01)
    assert found["model"] == {"name": "yolite-n", "width": 0.5}
    status, _, err = search("--trials", 6, "train.weight_decay=0.02")
    assert status == 2
    assert "train.weight_decay: 0.01 -> 0.02" in err
    assert err.count("\n") == 1
    # the same seed gives the same search
    before = [config.train.lr for config in trained]
    trained.clear()
    status, _, _ = search("--trials", 5, "train.weight_decay=0.01", "--out", tmp_path / "u")
    assert [config.train.lr for config in trained] == before


def test_hopeless_trials_are_given_up(search, trained: list[Config], tmp_path: Path) -> None:
    status, out, _ = search("--trials", 9)
    assert status == 0
    states = trials(tmp_path / "t")
    pruned = [number for number, state in states if state == "PRUNED"]
    assert pruned
    assert min(pruned) >= 5
    run = read_run(tmp_path / "t" / f"trial-{pruned[0]}")
    assert run.state == "pruned at epoch 3"
    assert "pruned at epoch 3: AP" in (run.path / "log.txt").read_text()
    assert f"{9 - len(pruned)} finished trials; {len(pruned)} were given up" in out


def test_settings_that_do_not_train_count_as_given_up(search, trained, tmp_path: Path, monkeypatch) -> None:
    ordinary = tune.start

    def start(config: Config, run: RunFolder, *rest: object) -> None:
        if run.path.name == "trial-1":
            run.create()
            raise BrokenDown("the loss is nan")
        ordinary(config, run, *rest)

    monkeypatch.setattr(tune, "start", start)
    status, out, _ = search("--trials", 3)
    assert status == 0
    assert trials(tmp_path / "t") == [(0, "COMPLETE"), (1, "PRUNED"), (2, "COMPLETE")]
    assert "trial 1: broke down: the loss is nan" in out
    assert json.loads((tmp_path / "t" / "trial-1" / "trial.json").read_text())["state"] == "broke down"


def test_a_signal_ends_with_the_command_that_goes_on(search, cli, trained, tmp_path: Path, monkeypatch) -> None:
    ordinary = tune.start

    def start(config: Config, run: RunFolder, *rest: object) -> None:
        if run.path.name == "trial-1":
            run.create()
            raise SystemExit(130)
        ordinary(config, run, *rest)

    monkeypatch.setattr(tune, "start", start)
    status, out, _ = search("--trials", 3, "train.clip=5")
    assert status == 130
    assert trials(tmp_path / "t") == [(0, "COMPLETE"), (1, "FAIL")]
    command = re.findall(r"go on with: yolite (.*)", out)[0]
    status, out, err = cli(*shlex.split(command))
    assert status == 0, out + err
    assert trials(tmp_path / "t") == [(0, "COMPLETE"), (1, "FAIL"), (2, "COMPLETE"), (3, "COMPLETE")]


def test_a_dead_process_does_not_block(search, trained: list[Config], tmp_path: Path, monkeypatch) -> None:
    from yolite.training import study

    monkeypatch.setattr(study, "HEARTBEAT", 1)
    monkeypatch.setattr(study, "GRACE", 4)
    assert search("--trials", 1)[0] == 0
    opened = study.open_study(tmp_path / "t" / "study.db", 0, {})
    dead = opened.ask()
    opened._storage.record_heartbeat(dead._trial_id)
    begun = time.monotonic()
    status, out, err = search("--trials", 2)
    assert status == 0, out + err
    assert time.monotonic() - begun > 2, "it was waited for"
    assert trials(tmp_path / "t") == [(0, "COMPLETE"), (1, "FAIL"), (2, "COMPLETE")]


def test_two_processes_never_take_the_last_place_both(tmp_path: Path) -> None:
    """Another process begins the last trial between the count and the start: this one steps back."""
    from yolite.training.study import open_study, work

    study = open_study(tmp_path / "study.db", 0, {})
    other: list[optuna.Trial] = []
    before = type(study).optimize

    def optimize(self: optuna.Study, *words: object, **options: object) -> None:
        if not other:
            other.append(study.ask())
        before(self, *words, **options)

    study.optimize = optimize.__get__(study)  # type: ignore[method-assign]
    waited: list[int] = []

    def wait(busy: int) -> None:
        waited.append(busy)
        study.tell(other[0], 0.5)

    work(study, lambda trial: pytest.fail("one too many"), 1, wait)
    assert waited == [1]
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "'--trials'"),
        (["train.lr=fast"], "train.lr: 'fast' is not a number"),
        (["--data", "nowhere"], "unknown data set 'nowhere'"),
        ([f"{r.key}={r.low or 0.5}" for r in RANGES], "every setting that is searched has been given"),
        (["--out", "taken"], "already holds a run"),
        (["--out", "other", "--data", "DATA", "--imgsz", "96"], "other/study.db is no study"),
    ],
)
def test_bad_input(cli, shapes: Path, tmp_path: Path, monkeypatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("taken/last.ckpt", "other/study.db"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("no database, but long enough to be looked at as one")
    status, _, err = cli("tune", *(str(shapes) if word == "DATA" else word for word in words))
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
