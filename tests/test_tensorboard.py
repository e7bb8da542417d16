"""TensorBoard's events hold what metrics.jsonl holds, each epoch once, also after a resume."""

import json
import sys
from pathlib import Path

import pytest

from tests.test_training import SMALL
from yolite.training.tensorboard import tag


def test_a_missing_package_is_said_before_any_work(cli, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    status, _, err = cli("train", "--data", shapes, "--out", tmp_path / "run", "train.tensorboard=true")
    assert status == 2
    assert err == "error: train.tensorboard needs the package tensorboard: pip install 'yolite[tensorboard]'\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_events_are_the_metrics(cli, shapes: Path, tmp_path: Path) -> None:
    """An epoch of a sitting that came to nothing is purged: the resumed run's own stands once."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from yolite.training.tensorboard import TensorBoard

    run = tmp_path / "run"
    lost = TensorBoard(run / "tensorboard", [], [])
    for epoch in (1, 2, 3):
        lost({"epoch": epoch, "AP": 9.0}, [])
    status, out, err = cli("train", "--data", shapes, *SMALL, "--epochs", 2, "--out", run, "train.tensorboard=true")
    assert status == 0, out + err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for key in rows[0].keys() - {"epoch", "step"}:
        written = events.Scalars(tag(key))
        assert [e.step for e in written] == [1, 2], key
        assert [e.value for e in written] == pytest.approx([row[key] for row in rows], rel=1e-6), key
    pictures = events.Tags()["images"]
    assert len(pictures) == 4
    assert [e.step for e in events.Images(pictures[0])] == [1, 2]
    assert (events.Images(pictures[0])[0].width, events.Images(pictures[0])[0].height) == (128, 96)
