"""Several processes do what one does: gradients, training with a restart, evaluation, detection."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.programs.gradients import gradients
from tests.test_training import SMALL, same_state
from yolite.checkpoint import load_checkpoint
from yolite.processes import ALONE, Processes

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
# two processes of one thread each: as many as the machine has
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def port() -> list[str]:
    """A port that is free now."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return ["--master-port", str(found.getsockname()[1])]


def torchrun(*words: object, options: tuple[str, ...] = ()) -> str:
    command = [*TORCHRUN, *port(), *options, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_sharing_loses_and_repeats_nothing() -> None:
    shares = [Processes(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(i for share in shares for i in share) == list(range(10))
    assert ALONE.sum([1.5, 2]) == [1.5, 2]
    assert ALONE.gather("x") == ["x"]
    assert ALONE.from_main(3) == 3


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, parts: int) -> None:
    """The objects are spread unevenly, so the means of two processes would be wrong: the positives are summed."""
    wanted, report = gradients(ALONE, 1)
    assert report.values["positives"] > 20
    assert max(float(g.abs().max()) for g in wanted.values()) > 0.01
    torchrun("tests/programs/gradients.py", tmp_path / "g.pt", parts)
    found = torch.load(tmp_path / "g.pt", weights_only=True)
    assert found["positives"] == report.positives
    for name, value in report.values.items():
        assert found["values"][name] == pytest.approx(value, rel=1e-5), name
    assert found["gradients"].keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-5, atol=1e-5)


def test_accumulation_has_the_gradients_of_the_whole_batch() -> None:
    wanted, report = gradients(ALONE, 1)
    for parts in (2, 3, 6):
        found, again = gradients(ALONE, parts)
        assert again.values["total"] == pytest.approx(report.values["total"], rel=1e-5)
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5)


def children(pid: int) -> list[int]:
    """Processes that ``pid`` has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes to kill in /proc")
def test_a_worker_that_dies_is_restarted_and_reaches_the_same_weights(shapes: Path, tmp_path: Path) -> None:
    words = ["tools/train.py", "--data", shapes, *SMALL, "--epochs", "4", "train.checkpoint_steps=1", "--out"]
    output = torchrun(*words, tmp_path / "straight")
    assert "shared by 2 processes" in output
    assert output.count("run folder") == 1  # rank 0 alone prints
    killed = tmp_path / "killed"
    command = [*TORCHRUN, *port(), "--max-restarts", "2", *map(str, words), str(killed)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, cwd=ROOT
    )
    for _ in range(2400):
        place = load_checkpoint(killed / "last.ckpt")["training"]["place"] if (killed / "last.ckpt").exists() else {}
        if place.get("epoch", 0) >= 1 and place["step"]:
            break
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "resumed at epoch" in output
    same_state(tmp_path / "straight", killed)
    # one process evaluates the run to the figures that two got
    two = json.loads((killed / "results.json").read_text())
    torchrun("tools/evaluate.py", "--weights", killed, "--json", tmp_path / "two.json")
    words = ["tools/evaluate.py", "--weights", str(killed), "--json", str(tmp_path / "one.json")]
    subprocess.run([sys.executable, *words], cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    one, again = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    for key in ("AP", "AP50", "AR100", "per_class", "images"):
        assert one[key] == again[key] == two[key]


@pytest.mark.slow
def test_detection_is_shared_and_put_together_in_order(cli, shapes: Path, tmp_path: Path) -> None:
    status, _, err = cli("train", "--data", shapes, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    assert status == 0, err
    pictures = shapes.parent / "images" / "train"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ["--weights", tmp_path / "run", "--conf", "0.01", pictures, tmp_path / "broken.png", pictures / "s001.png"]
    torchrun("tools/detect.py", *words, "--out", tmp_path / "two", "--json", tmp_path / "two.json")
    alone = [sys.executable, "tools/detect.py", *map(str, words), "--out", str(tmp_path / "one"), "--json"]
    subprocess.run([*alone, str(tmp_path / "one.json")], cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    names = [sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("one", "two")]
    assert names[0] == names[1]
    assert len(names[0]) >= 16


def test_what_several_processes_cannot_do(cli, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    status, _, err = cli("train", "--data", shapes)
    assert status == 2
    assert "--max-restarts needs --out" in err
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS")
    status, _, err = cli("train", "--data", shapes, "train.sync_bn=true")
    assert status == 2
    assert "sync_bn" in err
