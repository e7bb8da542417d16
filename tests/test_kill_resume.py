"""Nothing is lost: five kills, a full disk, damaged checkpoints. `benchmarks/kill_resume.py` does it 200 times."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.kill_resume import torture
from tests.test_training import SMALL, train
from yolite.checkpoint import load_checkpoint


@pytest.mark.slow
def test_five_kills_at_random_moments_change_no_bit(shapes: Path, tmp_path: Path) -> None:
    words = ["--data", str(shapes), *SMALL, "--epochs", "16", "train.checkpoint_steps=2", "train.multi_scale=0.4",
             "train.multi_scale_every=3", "data.workers=1", "train.precision=bf16", "data.balance=0.9",
             "loss.class_weights=auto", "augment.rotate=10", "augment.crop=0.5", "augment.noise=0.5",
             "augment.cutout=0.5", "augment.mixup=0.3", "augment.copy_paste=0.5"]  # fmt: skip
    row = torture(words, 5, tmp_path, seed=1)
    assert row["differences"] == []
    assert row["kills"] == 5, row
    assert row["inside_an_epoch"] >= 1, row
    assert row["most_steps_lost"] <= 2 + 4, "an interval, or the last steps of an epoch while it was being judged"


@pytest.mark.slow
def test_a_full_disk_ends_with_a_sentence_and_the_last_checkpoint(shapes: Path, tmp_path: Path, cli) -> None:
    """A limit on the size of files stands in for the disk: the checkpoint of the next epoch cannot be written."""
    run = tmp_path / "run"
    train(cli, "--data", shapes, *SMALL, "--epochs", 1, "--out", run)
    before = {name: (run / name).read_bytes() for name in ("last.ckpt", "best.ckpt", "metrics.jsonl")}
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "from yolite.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "--resume", str(run), "train.epochs=3", "--accept", "train.epochs"]
    done = subprocess.run([sys.executable, "-c", limited, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "could not be written" in done.stderr
    assert "an earlier file of that name is untouched" in done.stderr
    assert {name: (run / name).read_bytes() for name in before} == before
    assert not list(run.glob("*.tmp"))
    train(cli, "--resume", run, "train.epochs=3", "--accept", "train.epochs")
    assert load_checkpoint(run / "last.ckpt")["training"]["place"]["epoch"] == 3


class Payload:
    """Makes a folder when it is unpickled."""

    target = Path()

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(Payload.target),))


@pytest.mark.slow
def test_resuming_from_what_is_no_good_checkpoint(shapes: Path, tmp_path: Path, cli) -> None:
    run, Payload.target = tmp_path / "run", tmp_path / "executed"
    train(cli, "--data", shapes, *SMALL, "--epochs", 1, "--out", run)
    whole = (run / "last.ckpt").read_bytes()
    content = load_checkpoint(run / "last.ckpt")
    shutil.rmtree(tmp_path / "empty", ignore_errors=True)
    (tmp_path / "empty").mkdir()

    def refused(told: str, folder: Path = run) -> None:
        status, _, err = cli("train", "--resume", folder)
        assert (status, err.count("\n"), told in err) == (2, 1, True), err

    refused("there is no last.ckpt to go on from", tmp_path / "empty")
    refused("there is no last.ckpt to go on from", tmp_path / "missing")
    for tenth in range(10):
        (run / "last.ckpt").write_bytes(whole[: len(whole) * tenth // 10])
        refused("damaged")
    for bad, told in (
        ({**content, "schema": 99}, "update yolite"),
        ({**content, "weights": Payload()}, "refused unread"),
        ({k: v for k, v in content.items() if k != "training"}, "no training state"),
        ({**content, "training": {**content["training"], "place": {"epoch": 0}}}, "not whole"),
        ({**content, "training": {**content["training"], "optimizer": {}}}, "not whole"),
    ):
        torch.save(bad, run / "last.ckpt")
        refused(told)
    (run / "last.ckpt").write_bytes(pickle.dumps(Payload()))
    refused("refused unread")
    assert not Payload.target.exists(), "the pickled object was run"


@pytest.mark.slow
def test_a_signal_while_it_starts_or_ends(shapes: Path, tmp_path: Path) -> None:
    """Before the first step nothing is there to save; during the last evaluation everything is saved already."""
    run = tmp_path / "run"
    code = (
        "import os, signal, sys; from yolite.commands import train as t; from yolite.cli import main;"
        "old = t._finish; t._finish = lambda x: (os.kill(os.getpid(), signal.SIGINT), old(x));"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "--data", str(shapes), *SMALL, "--epochs", "1", "--out", str(run)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert f"yolite train --resume {run}" in done.stdout
    again = [sys.executable, "-m", "yolite", "train", "--resume", str(run)]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (run / "results.json").exists()
