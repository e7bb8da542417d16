"""Bad input gets one plain sentence that names the file or key and the remedy, exit 2, and no traceback."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_checkpoint import content
from yolite.checkpoint import save_checkpoint
from yolite.data.images import write_image


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """An untrained checkpoint of three classes."""
    made = content(3)
    made["config"] = {"model": {"name": "yolite-n"}, "imgsz": [64, 96]}
    made["ema"] = None
    save_checkpoint(tmp_path / "w.ckpt", made)
    return tmp_path / "w.ckpt"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--data", "nowhere"], "unknown data set 'nowhere': give a path to a YAML"),
        (["train", "--data", "no/where"], "data no/where does not exist"),
        (["train", "epohcs=3"], "unknown setting 'epohcs' (did you mean 'train.epochs'?)"),
        (["train", "train.lr=fast"], "train.lr: 'fast' is not a number"),
        (["train", "--model", "yolite-q"], "unknown model 'yolite-q'"),
        (["train", "--model", "yolitee-n"], "(did you mean 'yolite-n'?)"),
        (["train", "--device", "cuda"], "this machine has no CUDA device: use --device cpu"),
        (["train", "--device", "tpu"], "device 'tpu' is not known"),
        (["train", "--imgsz", "321"], "321 is not a multiple of 32"),
        (["train", "--epochs", "0"], "'--epochs'"),
        (["train", "--epohcs", "3"], "--epohcs"),
        (["train", "--config", "no.yaml"], "no.yaml does not exist"),
        (["train", "--weights", "no.ckpt"], "weights no.ckpt do not exist"),
        (["train", "--resume", "no-run"], "there is no last.ckpt"),
        (["train", "--resume", "no-run", "--model", "yolite-s"], "--model cannot be given with --resume"),
        (["evaluate"], "needs either --weights W or --results"),
        (["evaluate", "--weights", "no.ckpt"], "do not exist"),
        (["evaluate", "--results", "no.json"], "--results needs --data"),
        (["evaluate", "--weights", "w", "--report", "r.pdf"], "the report is a .html"),
        (["compare", "a.json", "b.json"], "Missing option '--data'"),
        (["detect", "a.jpg"], "--weights"),
        (["detect", "no.jpg", "--weights", "no.ckpt"], "source no.jpg does not exist"),
        (["detect", "--weights", "no.ckpt"], "SOURCE"),
        (["detect", "a.jpg", "--weights", "w", "--nms", "best"], "--nms 'best' is not known"),
        (["detect", "a.jpg", "--weights", "w", "--overlap", "0.5"], "--overlap belongs to --tile"),
        (["detect", "a.jpg", "train.lr=3", "--weights", "w"], "detect has no use for train.lr"),
        (["detect", "a.jpg", "epohcs=3", "--weights", "w"], "did you mean 'train.epochs'?"),
        (["anchors", "--k", "0"], "'--k'"),
        (["anchors", "--centroid", "mode"], "give mean or median"),
        (["anchors", "--plot", "a.jpg"], ".png"),
        (["summary", "--model", "yolite-n", "--weights", "w"], "not both"),
        (["trian"], "did you mean 'train'?"),
    ],
)  # fmt: skip
def test_one_plain_sentence(cli, tmp_path: Path, monkeypatch, words: list[str], message: str) -> None:
    if torch.cuda.is_available() and "cuda" in words:
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    status, _, err = cli(*words)
    assert status == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, "one line"
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists(), "arguments are checked before anything is made"


def test_a_checkpoint_of_another_class_count(cli, weights: Path, shapes: Path) -> None:
    status, _, err = cli("evaluate", "--weights", weights, "--data", shapes)
    assert status == 2
    assert "was trained for 3 classes" in err
    assert "has 2 (block, disc" in err


def test_a_folder_without_images(cli, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, _, err = cli("detect", tmp_path / "empty", "--weights", weights)
    assert status == 2
    assert "holds no images" in err


def test_bad_files_among_good_ones_are_carried_on(cli, weights: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "good.png", np.zeros((50, 70, 3), np.uint8))
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "in" / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    out, file = tmp_path / "out", tmp_path / "r.json"
    status, text, err = cli("detect", tmp_path / "in", "--weights", weights, "--out", out, "--json", file)
    assert status == 0
    assert all(name in err for name in ("bad.jpg", "gone.jpg", "pipe.png"))
    assert "3 unreadable" in text
    entries = {Path(e["path"]).name: e for e in json.loads(file.read_text())["images"]}
    assert entries["bad.jpg"]["error"]
    assert entries["bad.jpg"]["detections"] == []
    assert (entries["good.png"]["width"], entries["good.png"]["height"], entries["good.png"]["error"]) == (70, 50, None)
    assert [p.name for p in out.iterdir()] == ["good.png"]


def test_detection_never_writes_over_its_sources(cli, weights: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.png", np.zeros((50, 70, 3), np.uint8))
    before = (tmp_path / "in" / "a.png").read_bytes()
    for words in (["--out", tmp_path / "in"], ["--out", tmp_path / "o", "--json", tmp_path / "in" / "a.png"]):
        status, _, err = cli("detect", tmp_path / "in", "--weights", weights, *words)
        assert status == 2
        assert "write over the pictures" in err
        assert (tmp_path / "in" / "a.png").read_bytes() == before


def test_only_bad_files(cli, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    status, _, err = cli("detect", tmp_path / "bad.jpg", "--weights", weights, "--out", tmp_path / "o")
    assert status == 2
    assert "none of the 1 files could be read" in err


def test_boxes_are_in_px_of_the_original(cli, weights: Path, tmp_path: Path) -> None:
    """At confidence 0 an untrained network gives boxes all over; none may leave the picture."""
    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (210, 500, 3)).astype(np.uint8))
    file = tmp_path / "r.json"
    status, _, _ = cli("detect", tmp_path / "*.png", "--weights", weights, "--conf", 0, "--out", tmp_path / "o",
                       "--json", file, "--max-det", 50)  # fmt: skip
    assert status == 0
    (entry,) = json.loads(file.read_text())["images"]
    boxes = np.array([d["box"] for d in entry["detections"]])
    assert len(boxes) == 50
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 500
    assert boxes[:, 3].max() <= 210
    assert boxes[:, 2].max() > 250, "not in px of the network's input"
    assert set(entry["detections"][0]) == {"label", "name", "score", "box"}


def test_anchors_json_and_plot(cli, shapes: Path, tmp_path: Path) -> None:
    file, plot = tmp_path / "a.json", tmp_path / "a.png"
    status, out, _ = cli("anchors", "--data", shapes, "--k", 3, "--imgsz", "96x128", "--json", file, "--plot", plot)
    assert status == 0
    result = json.loads(file.read_text())
    assert set(result) == {"k", "imgsz", "anchors", "avg_iou", "best_possible_recall", "boxes"}
    areas = [w * h for w, h in result["anchors"]]
    assert areas == sorted(areas)
    assert 0.7 < result["avg_iou"] <= 1
    assert "average IoU" in out
    assert plot.stat().st_size > 5000


def test_more_anchors_than_boxes(cli, shapes: Path) -> None:
    status, _, err = cli("anchors", "--data", shapes, "--k", 5000)
    assert status == 2
    assert "give a smaller k" in err


def test_summary(cli) -> None:
    status, out, _ = cli("summary", "--model", "yolite-n", "--classes", 3, "--imgsz", "64x96")
    assert status == 0
    assert "GFLOPs" in out
    assert "receptive field" in out
    assert "16x32x48" in out


def test_evaluate_results_file(cli, three_formats: dict[str, Path], tmp_path: Path) -> None:
    truth = three_formats["coco"].parent / "coco.json"
    rows = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
            for a in json.loads(truth.read_text())["annotations"]]  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(rows))
    status, out, _ = cli("evaluate", "--results", tmp_path / "r.json", "--data", truth, "--json", tmp_path / "o.json")
    assert status == 0
    assert json.loads((tmp_path / "o.json").read_text())["AP"] == pytest.approx(1)
    assert "block" in out


def test_debug_shows_the_traceback(cli) -> None:
    from yolite.errors import UserError

    with pytest.raises(UserError):
        cli("train", "epohcs=3", "--debug")


def test_help_is_fast_and_does_not_import_torch() -> None:
    """Processor seconds, not wall seconds: a busy machine is no failure."""
    code = "import sys, yolite.cli as c; s = c.main(['--help']); assert 'torch' not in sys.modules; sys.exit(s)"
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout
    assert min(spent) < 0.5


def test_every_verb_has_help(cli) -> None:
    for verb in ("train", "evaluate", "detect", "anchors", "summary", "runs", "tune", "compare", "ablate", "export",
                 "bench", "serve", "explain", "import"):  # fmt: skip
        status, out, _ = cli(verb, "--help")
        assert status == 0
        assert "--help" in out
