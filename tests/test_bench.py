"""`yolite bench`: every installed backend is measured on real files, and its time is accounted for."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from yolite.checkpoint import load_checkpoint, restore_detector
from yolite.commands import bench
from yolite.export.measure import LEAST, STEPS, Job, measure
from yolite.models.summary import summarise


@pytest.fixture
def quick(monkeypatch) -> None:
    """Measure in this process, and only on the fewest pictures."""
    monkeypatch.setattr(bench, "_measured", lambda job: measure(replace(job, seconds=0)))


@pytest.mark.slow
@pytest.mark.usefixtures("quick", "traced_once")
def test_every_installed_backend_is_measured(cli, mini_run: Path, tmp_path: Path) -> None:
    status, out, err = cli("bench", "--weights", mini_run, "--imgsz", "64x96", "--json", tmp_path / "b.json")
    assert status == 0, out + err
    told = json.loads((tmp_path / "b.json").read_text())
    detector = restore_detector(load_checkpoint(mini_run / "best.ckpt"))
    assert told["flops"] == sum(layer.flops for layer in summarise(detector, (64, 96)))
    names = [row["backend"] for row in told["backends"]]
    assert names[:2] == ["torch fp32", "torch fp32 channels_last"]
    assert ("torch half" in names) != ("torch half is not measured" in out)
    for runtime in ("onnxruntime", "openvino"):
        try:
            __import__(runtime)
        except ImportError:
            assert f"{runtime} is not measured" in out
        else:
            assert f"{runtime} fp32" in names
    for row in told["backends"]:
        assert 0 < row["forward_p50_ms"] < row["p50_ms"] <= row["p95_ms"]
        assert row["pictures"] == LEAST
        assert sum(row["share"].values()) == pytest.approx(1)
        assert set(row["share"]) == set(STEPS)
        assert row["peak_mib"] > 50


@pytest.mark.slow
def test_a_backend_runs_in_a_process_of_its_own(mini_run: Path, shapes: Path) -> None:
    pictures = [str(path) for path in sorted((shapes.parent / "images" / "val").iterdir())]
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ballast = np.ones((round(here) + 300, 2**18), np.float32)  # as many MiB as rows
    row = bench._measured(Job(str(mini_run), "fp32 channels_last", "cpu", (96, 96), pictures, 1, 0))
    assert row["pictures"] == LEAST
    assert row["images_per_second"] > 0
    assert row["peak_mib"] < len(ballast), "its memory is its own"


def test_what_bench_refuses(cli, mini_run: Path, tmp_path: Path) -> None:
    status, _, err = cli("bench", "--weights", mini_run, "--imgsz", "50")
    assert status == 2
    assert "imgsz" in err
    status, _, err = cli("bench", "--weights", tmp_path / "none.ckpt")
    assert status == 2
    status, _, err = cli("bench", "--weights", mini_run, "train.lr=1")
    assert status == 2
    assert "no use for train.lr" in err
