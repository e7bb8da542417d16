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
from tests.test_training import SMALL, same_state, train
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
    assert "File too large" in done.stderr
    assert "the best.ckpt that was there is untouched" in done.stderr or "the last.ckpt that" in done.stderr
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
    (run / "results.json").unlink()  # a run with results is finished, whatever its checkpoint holds
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
    refused("damaged or no checkpoint")
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


def wrapped(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command line after some code that reaches into it."""
    program = f"import os, signal, sys; from yolite.training import trainer as t; {code}"
    program += "; from yolite.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_kill_between_checkpoint_and_metrics_loses_no_line(shapes: Path, tmp_path: Path, cli) -> None:
    words = ["train", "--data", shapes, *SMALL, "--epochs", 2]
    train(cli, *words[1:], "--out", tmp_path / "straight")
    code = (
        "old = t.RunFolder.write_metrics; t.RunFolder.write_metrics = "
        "lambda self, rows: os.kill(os.getpid(), 9) if len(rows) == 2 else old(self, rows)"
    )
    assert wrapped(code, *words, "--out", tmp_path / "killed").returncode == -9
    assert len((tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()) == 1
    train(cli, "--resume", tmp_path / "killed" / "last.ckpt")
    same_state(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.slow
def test_a_signal_while_the_last_epoch_is_judged(shapes: Path, tmp_path: Path, cli) -> None:
    """The epoch's steps are saved, the judgement is not waited for, and the end is the same."""
    words = ["train", "--data", shapes, *SMALL, "--epochs", 2]
    train(cli, *words[1:], "--out", tmp_path / "straight")
    code = (
        "old = t.Trainer.validate; t.Trainer.validate = lambda self: "
        "(self.place.epoch == 1 and os.kill(os.getpid(), signal.SIGTERM), old(self))[1]"
    )
    done = wrapped(code, *words, "--out", tmp_path / "stopped")
    assert done.returncode == 143, done.stderr
    assert "stopped by a signal; saved" in done.stdout
    assert load_checkpoint(tmp_path / "stopped" / "last.ckpt")["training"]["place"]["step"] == 4
    train(cli, "--resume", tmp_path / "stopped")
    same_state(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.slow
def test_two_programs_do_not_train_in_one_folder_and_a_run_may_be_resumed_from_anywhere(
    shapes: Path, tmp_path: Path, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.chdir(shapes.parent)
    train(cli, "--data", "data.yaml", *SMALL, "--epochs", 1, "--out", run)
    monkeypatch.chdir(tmp_path)
    holder = (
        "import sys; from pathlib import Path; from yolite.training.run import RunFolder;"
        f"lock = RunFolder(Path({str(run)!r})).locked(); lock.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    words = ["--resume", run, "--epochs", 2, "--accept", "train.epochs"]
    status, _, err = cli("train", *words)
    assert status == 2
    assert "another program is training in this folder" in err
    process.communicate("")
    train(cli, *words)
    assert load_checkpoint(run / "last.ckpt")["config"]["train"]["epochs"] == 2


@pytest.mark.slow
def test_an_accepted_change_counts_from_the_moment_it_is_accepted(shapes: Path, tmp_path: Path, cli) -> None:
    from tests.conftest import write_yolo

    data, run = write_yolo(tmp_path / "d", {"train": 4, "val": 2}), tmp_path / "run"
    train(cli, "--data", data, *SMALL, "--epochs", 1, "--out", run)
    (tmp_path / "d" / "labels" / "train" / "s000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    words = ["train", "--resume", run, "--accept", "data", "--epochs", 2, "--accept", "train.epochs"]
    done = wrapped("t.Trainer.step = lambda *_: os.kill(os.getpid(), 9)", *words)
    assert done.returncode == -9
    train(cli, "--resume", run)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
