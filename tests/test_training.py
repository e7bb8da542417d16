"""Learning, resuming and the README's command: a few slow tests that train for real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from yolite.checkpoint import load_checkpoint
from yolite.evaluation.coco import NUMBERS
from yolite.inference import Inference
from yolite.predictor import Predictor
from yolite.training.ema import EMA
from yolite.training.optim import build_optimizer, learning_rate
from yolite.training.place import CLOCKS

SMALL = ["--imgsz", "96", "--batch", "4", "data.workers=0", "model.width=0.5", "train.precision=fp32"]


def train(cli, *words: object) -> None:
    status, out, err = cli("train", *words)
    assert status == 0, out + err


def same_state(a: Path, b: Path) -> None:
    """Raw weights, average, optimiser and history are equal bit for bit (clock times apart)."""
    one, two = load_checkpoint(a / "last.ckpt"), load_checkpoint(b / "last.ckpt")
    for part in (lambda c: c["weights"], lambda c: c["ema"]["weights"]):
        for name, value in part(one).items():
            assert torch.equal(value, part(two)[name]), name
    assert one["ema"]["updates"] == two["ema"]["updates"]
    states = [c["training"]["optimizer"]["state"] for c in (one, two)]
    for key, entry in states[0].items():
        for name, value in entry.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][key][name]))
    lines = []
    for run in (a, b):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        lines.append([{k: v for k, v in row.items() if k not in CLOCKS} for row in rows])
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_learns_eight_images_by_heart(cli, shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(cli, "--data", shapes, *SMALL, "--overfit", 8, "--epochs", 60, "--out", run, "train.warmup_epochs=5",
          "train.lr=0.004")  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    assert results["AP50"] > 0.95
    assert results["AP"] > 0.7
    assert {
        "config.yaml",
        "metrics.jsonl",
        "last.ckpt",
        "best.ckpt",
        "results.json",
        "log.txt",
        "curves.png",
        "report.html",
        "worst.json",
        "detections.json",
    } <= {p.name for p in run.iterdir()}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in rows] == list(range(1, 61))
    assert {"step", "seconds", "lr", "loss_box", "loss_objectness", "loss_classes", "AP", "AP50"} <= set(rows[0])
    assert (run / "report.html").read_text().count('<circle class="s1 ringed"') == 3  # anchors of the first level
    # the three ways to ask give the same answer
    status, _, err = cli("evaluate", "--weights", run, "--json", tmp_path / "e.json", "--split", "train")
    assert status == 0, err
    # … and so does the file of detections, as any tool's
    words = ("--data", shapes, "--split", "train", "--json", tmp_path / "r.json")
    status, _, err = cli("evaluate", "--results", tmp_path / "e-detections.json", *words)
    assert status == 0, err
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("e.json", "r.json"))
    for key in (*NUMBERS, "threshold", "curves", "confusion", "errors", "calibration", "frequency"):
        assert first[key] == second[key], key
    assert first["per_class"] == second["per_class"]
    found = list(Predictor(run).predict(shapes.parent / "images" / "train", conf=0.3))
    assert len(found) == 16
    assert sum(len(r.boxes) for r in found[:8]) >= 8


def test_the_program_ends_though_nothing_collects_its_garbage(shapes: Path, tmp_path: Path) -> None:
    """A loader process that the trainer left to the garbage collector kept the finished program from ending."""
    words = ["train", "--data", shapes, *SMALL, "--epochs", "1", "data.workers=1", "--out", tmp_path / "run"]
    program = f"import gc; gc.disable(); from yolite.cli import main; main({[str(w) for w in words]})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100, capture_output=True)


@pytest.mark.slow
def test_a_run_that_is_stopped_and_resumed_is_the_same_run(cli, shapes: Path, tmp_path: Path) -> None:
    """Straight through, against SIGTERM inside an epoch + kill -9 + resume: the same bits.

    The stopped run reads with a process of its own, and the signal reaches it too, as from a batch system.
    """
    words = ["--data", shapes, *SMALL, "--epochs", "4", "train.checkpoint_minutes=0"]
    train(cli, *words, "--out", tmp_path / "straight")
    stopped = tmp_path / "stopped"
    others = ["data.workers=1" if w == "data.workers=0" else str(w) for w in words]
    command = [sys.executable, "-m", "yolite", "train", *others, "--out", str(stopped)]
    for number, wanted in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        before = (stopped / "last.ckpt").stat().st_mtime_ns if (stopped / "last.ckpt").exists() else 0
        for _ in range(2400):
            if (stopped / "last.ckpt").exists() and (stopped / "last.ckpt").stat().st_mtime_ns != before:
                break
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output, _ = process.communicate()
        assert process.returncode == wanted, output
        if number == signal.SIGTERM:
            assert f"yolite train --resume {stopped}" in output
        assert load_checkpoint(stopped / "last.ckpt")["training"]["place"]["epoch"] < 4
        command = [sys.executable, "-m", "yolite", "train", "--resume", str(stopped)]
    train(cli, "--resume", stopped)
    same_state(tmp_path / "straight", stopped)
    status, out, _ = cli("train", "--resume", stopped)
    assert status == 0
    assert "is finished" in out
    status, _, err = cli("train", "--resume", stopped, "train.lr=0.5")
    assert status == 2
    assert "train.lr: 0.004 -> 0.5" in err
    status, _, err = cli("train", "--data", shapes, "--out", stopped)
    assert status == 2
    assert "already holds a run" in err


@pytest.mark.slow
def test_resuming_on_changed_labels_is_refused(cli, tmp_path: Path) -> None:
    from tests.conftest import write_yolo

    data = write_yolo(tmp_path / "d", {"train": 4, "val": 2})
    train(cli, "--data", data, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    (tmp_path / "d" / "labels" / "train" / "s000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    status, _, err = cli("train", "--resume", tmp_path / "run")
    assert status == 2
    assert "the data set has changed" in err


@pytest.mark.slow
def test_fine_tuning_lists_what_is_kept(cli, shapes: Path, tmp_path: Path) -> None:
    from tests.conftest import write_yolo

    train(cli, "--data", shapes, *SMALL, "--epochs", "1", "--out", tmp_path / "a")
    data = write_yolo(tmp_path / "d", {"train": 4, "val": 2})
    data.write_text(data.read_text().replace("['block', 'disc']", "[block, disc, star]"))
    status, out, _ = cli("train", "--data", data, "--weights", tmp_path / "a", "--epochs", "1", "--batch", "4",
                         "--imgsz", "96", "data.workers=0", "--out", tmp_path / "b")  # fmt: skip
    assert status == 0
    assert "newly drawn: layers.21.class_out, layers.22.class_out" in out
    assert load_checkpoint(tmp_path / "b" / "best.ckpt")["names"] == ["block", "disc", "star"]


@pytest.mark.slow
def test_the_readme_command_on_a_tiny_budget(tmp_path: Path) -> None:
    """`python tools/train.py` alone makes the digits, trains, evaluates and ends with an AP."""
    root = Path(__file__).parent.parent
    command = [sys.executable, str(root / "tools" / "train.py"), "--epochs", "1", "--imgsz", "128", "model.width=0.5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "train: 800 images" in done.stdout
    assert "AP " in done.stdout
    run = tmp_path / "runs" / "yolite-n-1"
    assert len(list((run / "pictures").iterdir())) == 12
    assert json.loads((run / "results.json").read_text())["images"] == 200


def test_bad_training_input(cli, shapes: Path, tmp_path: Path) -> None:
    status, _, err = cli("train", "--data", shapes, "--batch", 64, "--out", tmp_path / "a")
    assert status == 2
    assert "only 16 training images" in err
    for file in (shapes.parent / "labels").rglob("*.txt"):
        assert file.exists()
    from tests.conftest import write_yolo

    data = write_yolo(tmp_path / "d", {"train": 4, "val": 2})
    for file in (tmp_path / "d" / "labels" / "train").glob("*.txt"):
        file.write_text("")
    status, _, err = cli("train", "--data", data, "--batch", 2, "--out", tmp_path / "b")
    assert status == 2
    assert "no usable box" in err
    data.write_text(data.read_text().replace("val: images/val\n", ""))
    status, _, err = cli("train", "--data", data, "--batch", 2, "--out", tmp_path / "c")
    assert status == 2
    assert "nothing for the role 'val'" in err


def test_learning_rate_by_hand() -> None:
    course = [learning_rate(s, 12, 2, 1.0, 0.1, "cosine") for s in range(13)]
    assert course[:3] == [0.5, 1.0, 1.0]
    assert course[7] == pytest.approx(0.55)
    assert course[12] == pytest.approx(0.1)
    assert learning_rate(7, 12, 2, 1.0, 0.1, "linear") == pytest.approx(0.55)
    assert learning_rate(11, 12, 2, 1.0, 0.1, "constant") == 1.0


def test_ema_by_hand() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    ema = EMA(model, 0.5)
    wanted = 0.0
    for n in range(5):
        torch.nn.init.constant_(model.weight, float(n + 1))
        d = min(0.5, (1 + n) / (10 + n))
        wanted = d * wanted + (1 - d) * (n + 1)
        ema.update(model)
        assert ema.weights["weight"].item() == pytest.approx(wanted)
    assert ema.updates == 5
    other = EMA(model, 0.9)
    other.restore(ema.to_plain())
    assert (other.decay, other.updates, other.weights["weight"].item()) == (0.5, 5, pytest.approx(wanted))


def test_weight_decay_spares_bn_and_biases() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    for name in ("sgd", "adamw"):
        groups = build_optimizer(model, name, 0.1, 0.9, 0.05).param_groups
        assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.05), (3, 0.0)]


@pytest.mark.slow
def test_training_and_evaluation_judge_on_what_detection_sees(
    mini_run: Path, shapes: Path, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenes of 96x128 in an input of 96x160: no column of padding, as 128 is four whole cells; the same AP."""
    seen: list[tuple[int, ...]] = []
    forward = Inference.forward
    monkeypatch.setattr(Inference, "forward", lambda self, x: seen.append(tuple(x.shape[2:])) or forward(self, x))
    words = ["--data", shapes, "data.val=images/train"]
    assert (
        cli("train", "--weights", mini_run, *words, "--epochs", 1, "--out", tmp_path / "run", "data.workers=0")[0] == 0
    )
    assert set(seen) == {(96, 128)}
    seen.clear()
    assert cli("evaluate", "--weights", tmp_path / "run", "--json", tmp_path / "e.json")[0] == 0
    assert set(seen) == {(96, 128)}
    judged = json.loads((tmp_path / "run" / "results.json").read_text())
    assert json.loads((tmp_path / "e.json").read_text())["AP"] == pytest.approx(judged["AP"], abs=1e-6)
