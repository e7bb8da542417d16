"""`yolite runs`: run folders side by side; what is missing or damaged is said, never dropped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml

from yolite.charts import plot_runs


def write_run(folder: Path, ap: list[float], finished: bool = True, **settings: dict[str, Any]) -> Path:
    """Write what training leaves behind, without its checkpoints."""
    folder.mkdir(parents=True)
    plain = {"model": {"name": "yolite-n"}, "data": {"source": "d"}, "train": {"epochs": 3, "lr": 0.004},
             "loss": {"box": 5.0}, "anchors": [[1, 2]]}  # fmt: skip
    for section, values in settings.items():
        plain[section] = {**plain.get(section, {}), **values}
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    rows = [{"epoch": n, "seconds": 10.0 * n, "loss_total": 5 / n, "AP": v, "AP50": v + 0.1} for n, v in
            enumerate(ap, 1)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (folder / "results.json").write_text(json.dumps({"images": 6, "best_epoch": ap.index(max(ap)) + 1}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run, one that was stopped, a pruned one, a damaged one, an empty one, and a folder of pictures."""
    root = tmp_path / "runs"
    write_run(root / "a", [0.1, 0.4, 0.3])
    write_run(root / "b", [0.1, 0.2], finished=False, train={"lr": 0.008, "epochs": 9})
    pruned = write_run(root / "c", [0.05], finished=False, loss={"box": 3.0})
    (pruned / "trial.json").write_text('{"state": "pruned"}')
    damaged = write_run(root / "d", [0.2, 0.3, 0.1])
    lines = (damaged / "metrics.jsonl").read_text().splitlines()
    (damaged / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:9], '{"epoch": 3}']) + "\n")
    (damaged / "config.yaml").write_text("a: [")
    (root / "e").mkdir()
    (root / "e" / "last.ckpt").touch()
    (root / "detect-1").mkdir()
    return root


def test_what_the_table_says(cli, folder: Path, tmp_path: Path) -> None:
    file, plot = tmp_path / "r.json", tmp_path / "r.png"
    status, out, err = cli("runs", folder, "--json", file, "--plot", plot)
    assert status == 0
    content = json.loads(file.read_text())
    runs = {run["run"]: run for run in content["runs"]}
    assert list(runs) == ["a", "b", "d", "c", "e"], "the highest AP first, the unknown last"
    assert [runs[k]["state"] for k in "abcde"] == [
        "finished", "stopped at epoch 2", "pruned at epoch 1", "finished", "no epoch"
    ]  # fmt: skip
    a = runs["a"]
    assert (a["AP"], a["AP50"], a["best"], a["last AP"], a["epochs"], a["asked"], a["seconds"], a["images"]) == (
        0.4, 0.5, 2, 0.3, 3, 3, 30, 6
    )  # fmt: skip
    assert content["differ"] == ["loss.box", "train.lr"]
    assert runs["b"]["settings"] == {"loss.box": 5.0, "train.lr": 0.008}
    assert "5 runs by AP, model yolite-n, data d" in out
    assert "2/9" in out
    assert "detect-1" in out, "what is left out is said"
    for words in ("d: metrics.jsonl line 2 is damaged", "d: metrics.jsonl line 3 is damaged", "not valid YAML",
                  "e: metrics.jsonl is missing", "e: config.yaml is missing"):  # fmt: skip
        assert words in err
    image = cv2.imread(str(plot))
    assert image.shape[1] > 1000


def test_order_and_long_lists_of_settings(cli, tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / "x" / f"r{number}", [0.1 * number], loss={f"s{k}": number for k in range(7)})
    status, out, _ = cli("runs", tmp_path / "x", "--sort", "loss.s0")
    assert status == 0
    assert out.index("r2 ") < out.index("r1 ") < out.index("r0 ")
    assert "2 more settings differ: loss.s5, loss.s6" in out
    status, out, _ = cli("runs", tmp_path / "x" / "r1", tmp_path / "x" / "r0", "--sort", "run")
    assert out.index("r0 ") < out.index("r1 ")
    assert "r2 " not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        ([], "runs is no folder"),
        (["."], ". holds no run; x does, give that one"),
        (["x/detect"], "x/detect holds no run: give run folders"),
        (["x", "--sort", "train.l"], "(did you mean 'train.lr'?)"),
        (["x", "--plot", "p.jpg"], "the picture is a .png"),
    ],
)
def test_bad_input(cli, tmp_path: Path, monkeypatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "x" / "a", [0.1])
    (tmp_path / "x" / "detect").mkdir()
    status, _, err = cli("runs", *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_many_runs_fit_into_one_picture(tmp_path: Path) -> None:
    rows = [{"epoch": n, "AP": n / 10, "loss_total": 5 / n} for n in range(1, 9)]
    plot_runs(tmp_path / "p.png", {f"run-{number}": rows[: number % 8 + 1] for number in range(40)})
    assert cv2.imread(str(tmp_path / "p.png")).shape[0] < 800


def test_torch_is_not_needed(folder: Path) -> None:
    code = f"import sys, yolite.cli as c; c.main(['runs', {str(folder)!r}]); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
