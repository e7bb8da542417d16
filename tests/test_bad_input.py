"""What people get wrong: one plain sentence with the place and the remedy, exit 2; nothing is silently taken."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from tests.test_checkpoint import content
from tests.test_cli import weights  # noqa: F401 - a fixture
from tests.test_readers import load
from yolite import paths
from yolite.build import build_detector, placeholder_anchors
from yolite.checkpoint import load_checkpoint
from yolite.commands.common import config_of_weights
from yolite.commands.findings import FindingsFiles, _own_folder
from yolite.console import Console
from yolite.data import digits
from yolite.data.images import write_image
from yolite.errors import UserError
from yolite.reading import build_dataset
from yolite.settings import load_config, make_config

Cli = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str], message: str) -> None:
    """The command ended with one sentence that holds ``message``."""
    status, _, err = result
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith("error: ")
    assert message in err


# ---------------------------------------------------------------- results files


@pytest.fixture
def truth(three_formats: dict[str, Path]) -> Path:
    return three_formats["coco"].parent / "coco.json"


def results_of(truth: Path, change: dict | None = None) -> Path:
    rows = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
            for a in json.loads(truth.read_text())["annotations"]]  # fmt: skip
    rows[1].update(change or {})
    file = truth.with_name("results.json")
    file.write_text(json.dumps(rows))
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, "is not [x, y, width, height]"),
        ({"bbox": {"x": 1}}, "is not [x, y, width, height]"),
        ({"bbox": [1, 2, 3, "4"]}, "is not [x, y, width, height]"),
        ({"bbox": [1, 2, 3, None]}, "is not [x, y, width, height]"),
        ({"bbox": [1, 2, float("nan"), 3]}, "is not [x, y, width, height]"),
        ({"bbox": [1, 2, 10**400, 3]}, "is not [x, y, width, height]"),
        ({"bbox": [1, 2, -3, 4]}, "is not [x, y, width, height]"),
        ({"score": [0.9]}, "the score [0.9]"),
        ({"score": "high"}, "the score 'high'"),
        ({"score": float("nan")}, "the score nan"),
        ({"score": 1.5}, "the score 1.5"),
        ({"score": -0.1}, "the score -0.1"),
        ({"image_id": [10]}, "the image_id [10]"),
        ({"category_id": {}}, "the category_id {}"),
    ],
)
def test_a_malformed_result_is_named(cli: Cli, truth: Path, change: dict, message: str) -> None:
    result = cli("evaluate", "--results", results_of(truth, change), "--data", truth)
    assert "results.json: entry 1 has" in result[2]
    assert message in result[2]
    assert result[0] == 2


def test_truth_without_sizes_is_scored_but_gives_no_anchors(cli: Cli, truth: Path) -> None:
    plain = json.loads(truth.read_text())
    for image in plain["images"]:
        del image["width"], image["height"]
    truth.write_text(json.dumps(plain))
    status, _, err = cli("evaluate", "--results", results_of(truth), "--data", truth, "--json", truth.with_name("o"))
    assert (status, err) == (0, "")
    out = json.loads(truth.with_name("o").read_text())
    assert (out["AP"], out["images"]) == (pytest.approx(1), 6)
    refused(cli("anchors", "--data", truth), "has no width and height, by which its boxes are to be scaled")


def test_infinite_sizes_are_no_sizes(truth: Path) -> None:
    truth.write_text(re.sub(r'"width": \d+', '"width": Infinity', truth.read_text()))
    with pytest.raises(UserError, match="has no width and height"):
        load(truth, need_images=False)


# ---------------------------------------------------------------- places to write to and to read from


@pytest.mark.parametrize(
    "words",
    [
        ["anchors", "--data", "no.json", "--json"],
        ["anchors", "--data", "no.json", "--plot"],
        ["evaluate", "--weights", "no.ckpt", "--json"],
        ["evaluate", "--results", "no.json", "--data", "no.json", "--json"],
        ["detect", "a.png", "--weights", "no.ckpt", "--json"],
        ["detect", "a.png", "--weights", "no.ckpt", "--out"],
    ],
    ids=lambda words: f"{words[0]} {words[1]} {words[-1]}",
)
def test_outputs_are_checked_before_the_work(cli: Cli, tmp_path: Path, monkeypatch, words: list[str]) -> None:
    """The inputs named here do not exist: the sentence about the output comes first."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    refused(cli(*words, "file/x.png"), "cannot be made or written")
    refused(cli(*words, ""), f"{words[-1]} was given an empty value")
    if words[-1] != "--out":
        refused(cli(*words, "folder.png"), "is a folder")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    refused(cli(*words, "new.png"), "cannot be made or written")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "file", "folder.png"]


def test_a_json_may_lie_in_a_folder_that_is_not_there_yet(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    status, _, _ = cli("anchors", "--data", shapes, "--k", 3, "--json", tmp_path / "new" / "a.json")
    assert status == 0
    assert (tmp_path / "new" / "a.json").is_file()


def test_a_picture_of_an_unknown_ending(tmp_path: Path) -> None:
    for name, words in (("a.foo", "as .foo"), ("a", "as a file without ending")):
        with pytest.raises(UserError, match=rf"{name} \(30x20 px\) cannot be written {words}"):
            write_image(tmp_path / name, np.zeros((20, 30, 3), np.uint8))


def test_a_folder_that_another_program_took(cli: Cli, weights: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    """Between the choice of runs/NAME-N and its first file another program can make it."""
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    taken = tmp_path / "runs" / "detect-1"
    monkeypatch.setattr("yolite.commands.detect.Predictor", lambda *_: taken.mkdir(parents=True))
    refused(cli("detect", "a.png", "--weights", weights), "detect-1 has just been made by another program")
    real, calls = paths.free_run_folder, []

    def free(parent: Path, name: str) -> Path:
        folder = real(parent, name)
        if not calls:
            (tmp_path / folder).mkdir(parents=True)
        calls.append(folder)
        return folder

    (tmp_path / "away").symlink_to(tmp_path / "unmounted")
    monkeypatch.setattr("yolite.commands.findings.free_run_folder", lambda *_: Path("away/evaluate-1"))
    assert _own_folder().worst is None
    monkeypatch.setattr("yolite.commands.findings.free_run_folder", free)
    assert _own_folder() == FindingsFiles(*(Path("runs/evaluate-2") / f"{n}.json" for n in ("worst", "detections")))


def test_other_data_has_lists_of_its_own() -> None:
    """Whether it is named by --data or by a word."""
    stored = {"data": {"source": "voc", "val": "test"}}
    assert config_of_weights(stored, {}, {}).data.val == "test"
    assert config_of_weights(stored, {"data": {"source": "other"}}, {}).data.val is None
    assert config_of_weights(stored, {}, {"data": {"source": "other"}}).data.val is None
    assert config_of_weights(stored, {}, {"data": {"source": "other", "val": "x"}}).data.val == "x"


def test_evaluate_asks_the_processor_where_a_runtime_needs_asking(cli: Cli, monkeypatch) -> None:
    asked = []

    def build(name: str, processes: object) -> torch.device:
        asked.append(name)
        raise UserError("far enough")

    monkeypatch.setattr("yolite.weights.build_device", build)
    for name in ("a.onnx", "a.xml", "a.pt2", "run"):
        refused(cli("evaluate", "--weights", name), "far enough")
    assert asked == ["cpu", "cpu", "auto", "auto"]


def test_a_picture_cannot_take_the_name_of_a_folder(cli: Cli, weights: Path, tmp_path: Path) -> None:  # noqa: F811
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    refused(cli("detect", tmp_path / "a.png", "--weights", weights, "--out", tmp_path / "out"), "is a folder")


def deny(monkeypatch, name: str) -> None:
    """Refuse to open or list what is called ``name`` (tests may run as root, whom permissions do not stop)."""
    real = {"scandir": os.scandir, "stat": os.stat}

    def guarded(function: str) -> Callable:
        def call(path=".", *rest, **named):
            if Path(os.fspath(path)).name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return real[function](path, *rest, **named)

        return call

    for function in real:
        monkeypatch.setattr(os, function, guarded(function))


def test_what_may_not_be_read(cli: Cli, weights: Path, shapes: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    write_image(tmp_path / "in" / "a.png", np.zeros((20, 30, 3), np.uint8))
    write_image(tmp_path / "in" / "inner" / "b.png", np.zeros((20, 30, 3), np.uint8))
    with monkeypatch.context() as patch:
        real = os.scandir
        denied = PermissionError(13, "Permission denied", str(tmp_path / "in" / "inner"))

        def scandir(path="."):
            if Path(os.fspath(path)).name == "inner":
                raise denied
            return real(path)

        patch.setattr(os, "scandir", scandir)
        refused(cli("detect", tmp_path / "in", "--weights", weights), "inner cannot be read (Permission denied)")
    with monkeypatch.context() as patch:
        deny(patch, "shut")
        refused(cli("anchors", "--data", tmp_path / "shut"), "shut: Permission denied: check the path")
        refused(cli("evaluate", "--weights", tmp_path / "shut"), "shut: Permission denied: check the path")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        refused(cli("summary", "--weights", weights), "may not be read")


def test_a_checkout_that_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tree" / "data").mkdir(parents=True)
    (tmp_path / "tree" / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "_REPOSITORY", tmp_path / "tree")
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "tree" / "yolite")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert paths.generated("x") == tmp_path / "tree" / "data" / "generated"
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, *rest: "tree" not in str(path) and real(path, *rest))
    assert paths.generated("x") == tmp_path / "cache" / "yolite"
    (tmp_path / "tree" / "data" / "generated" / "x").mkdir(parents=True)
    assert paths.generated("x") == tmp_path / "tree" / "data" / "generated", "it is there already"


def test_digits_leave_nothing_half_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(digits, "SCENES", {"train": 2, "val": 1})

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digits.ensure_digits(tmp_path, 0, interrupt)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        digits.ensure_digits(tmp_path / "file")


# ---------------------------------------------------------------- models and settings


def conv(**change: object) -> str:
    """A backbone of one row, as yolite-n's first but for ``change``."""
    row = {"block": "conv", "out": 16, "kernel": 3, "stride": 2, "from": "image", "name": "p", **change}
    return f"model.backbone=[{json.dumps(row)}]"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.code.strides=[0,8,16]", "model.code.strides"),
        ("model.code.strides=[]", "model.code.strides"),
        ("model.code.strides=[4,8,16]", "says [4, 8, 16], but its maps have [8, 16, 32]"),
        ("model.code.strides=[8,16,64]", "but its maps have [8, 16, 32]"),
        ("model.code.anchors=[]", "model.code.anchors"),
        ("model.code.anchors=[[],[],[]]", "model.code.anchors"),
        ("model.code.anchors=[[[.nan,1]],[[1,1]],[[1,1]]]", "model.code.anchors"),
        ("model.code.anchors=[[[.inf,1]],[[1,1]],[[1,1]]]", "model.code.anchors"),
        ("model.code.anchors=[[[0,1]],[[1,1]],[[1,1]]]", "model.code.anchors"),
        ("model.width=1e9", "model.width"),
        ("model.width=900", "GiB"),
        ("model.width=.inf", "model.width"),
        ("seed=1000000000000000000000000000000", "seed"),
        ("preprocess.std=[.nan,1,1]", "preprocess.std: nan is refused: it should be a finite number"),
        ("preprocess.std=[0,1,1]", "preprocess.std: 0 is refused"),
        ("model.code.grid_scale=.inf", "model.code.grid_scale"),
        ("seed=true", "seed: True is true or false"),
        ("eval.batch=true", "eval.batch: True is true or false"),
        (conv(out="x"), "out: 'x' is no number"),
        (conv(out=float("inf")), "is no number"),
        (conv(kernel=-3), "layer 0 (conv) cannot be made of"),
        (conv(stride=0), "layer 0 (conv): non-positive stride"),
        (conv(kernel="x"), "layer 0 (conv) cannot be made of"),
        (conv(act="tanj"), "layer 0 (conv) cannot be made of"),
        (conv(**{"from": [["image"]]}), "layer 0 reads ['image']"),
        (conv(stride=1), "says [8, 16, 32], but its maps have [1, 1, 1]"),
        ("model.neck=[{block: concat, from: [c3, c4], name: p}]", "layer 9 (concat): Sizes of tensors must match"),
    ],
)
def test_models_that_are_no_networks(cli: Cli, word: str, message: str) -> None:
    words = [word]
    if word.startswith(("model.backbone", "model.neck")):
        words += ["model.head=[{block: grid_head, from: p},{block: grid_head, from: p},{block: grid_head, from: p}]"]
    if word.startswith("model.backbone"):
        words += ["model.neck=[]"]
    refused(cli("summary", "--model", "yolite-n", *words), message)


def test_the_check_of_a_model_leaves_no_trace() -> None:
    config = load_config("yolite-n")
    model = build_detector(config, 3, placeholder_anchors(config.model))
    assert model.training
    assert all(int(b) == 0 for name, b in model.named_buffers() if name.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: yolite-s\n", "write model: {name: yolite-s}, or give --model"),
        ("eval: 3\n", "eval: 3 is not a section"),
        ("data: {val: [1]}\n", "data.val"),
    ],
)
def test_config_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        load_config(None, tmp_path / "c.yaml", {"eval": {"batch": 2}})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "--weights", "W", "model.width=2"], "evaluate --weights has no use for model.width"),
        (["evaluate", "--weights", "W", "preprocess.pad=0"], "has no use for preprocess.pad"),
        (["evaluate", "--weights", "W", "train.lr=1"], "has no use for train.lr"),
        (["evaluate", "--weights", "W", "seed=1"], "has no use for seed"),
        (["evaluate", "--results", "r.json", "--data", "d.json", "eval.conf=0.5"], "has no use for eval.conf"),
        (["evaluate", "--results", "r.json", "--data", "d.json", "--batch", "2"], "has no use for --batch"),
        (["summary", "--weights", "W", "model.width=2"], "summary --weights has no use for model.width"),
        (["summary", "--weights", "W", "epohcs=2"], "did you mean"),
        (["detect", "a.png", "--weights", "W", "imgsz=[64,65]"], "65 is not a multiple of 32"),
        (["train", "--out", ""], "--out was given an empty value"),
        (["train", "--model="], "--model was given an empty value"),
    ],
)
def test_settings_without_effect(cli: Cli, words: list[str], message: str) -> None:
    refused(cli(*words), message)


def test_sizes_as_lists(cli: Cli, weights: Path, tmp_path: Path) -> None:  # noqa: F811
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    words = ["--weights", weights, "--out", tmp_path / "o"]
    assert cli("detect", tmp_path / "a.png", "imgsz=[64,64]", *words)[0] == 0
    status, out, _ = cli("summary", "--weights", weights, "imgsz=64x128")
    assert status == 0
    assert "input 64x128" in out


# ---------------------------------------------------------------- data sets


@pytest.mark.parametrize(
    ("old", "new", "kinds", "left"),
    [
        ("<annotation>", '<?xml version="1.0" encoding="foo"?><annotation>', ["unreadable label file"], False),
        ("<width>128<", "<width>128.0<", [], True),
        ("<width>128<", "<width>wide<", ["size differs"], True),
        ("<width>128<", "<width>inf<", ["size differs"], True),
    ],
)
def test_voc_files(three_formats: dict[str, Path], old: str, new: str, kinds: list[str], left: bool) -> None:
    file = three_formats["voc"] / "Annotations" / "s000.xml"
    file.write_text(file.read_text().replace(old, new))
    split = load(three_formats["voc"])
    assert [p.kind for p in split.problems] == kinds
    assert bool(len(split.samples[0].boxes)) == left


def test_voc_lists_by_their_file_name(three_formats: dict[str, Path]) -> None:
    assert len(load(three_formats["voc"], "val", val="train.txt").samples) == 6


def test_lists_that_are_not_utf8(three_formats: dict[str, Path]) -> None:
    voc, yolo = three_formats["voc"], three_formats["yolo"].parent
    latin = "größe\n".encode("latin-1")
    (voc / "ImageSets" / "Main" / "l.txt").write_bytes(latin)
    (yolo / "l.txt").write_bytes(latin)
    for source, name in ((voc, "l"), (yolo / "data.yaml", "l.txt")):
        with pytest.raises(UserError, match=r"l\.txt is not UTF-8 text"):
            load(source, train=name)
    for root, source in ((voc, voc), (yolo, yolo)):
        (root / "classes.txt").write_bytes(latin)
        (yolo / "data.yaml").unlink(missing_ok=True)
        with pytest.raises(UserError, match=r"classes\.txt is not UTF-8 text"):
            load(source)


def test_a_byte_order_mark_costs_no_box(three_formats: dict[str, Path]) -> None:
    before = load(three_formats["yolo"])
    root = three_formats["yolo"].parent
    for file in (*(root / "labels" / "train").glob("*.txt"), root / "data.yaml"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    after = load(three_formats["yolo"])
    assert (after.boxes, after.problems) == (before.boxes, [])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [((3, "a"), (7, "a"), "two categories have the name 'a'"), ((3, "a"), (3, "b"), "two categories have the id 3")],
)
def test_categories_that_cannot_be_told_apart(truth: Path, first: tuple, second: tuple, message: str) -> None:
    plain = json.loads(truth.read_text())
    plain["categories"] = [{"id": i, "name": name} for i, name in (first, second)]
    truth.write_text(json.dumps(plain))
    with pytest.raises(UserError, match=message):
        load(truth)


def test_a_val_json_with_other_classes(three_formats: dict[str, Path], truth: Path) -> None:
    other = truth.with_name("val.json")
    other.write_text(truth.read_text().replace('"disc"', '"cat"'))
    three_formats["coco"].write_text(
        three_formats["coco"].read_text() + "val: {images: yolo/images/train, annotations: val.json}\n"
    )
    problems = load(three_formats["coco"], "val").problems
    assert {p.kind for p in problems} == {"unknown class"}
    assert "class 'cat' is not one of the data set's classes (block, disc" in problems[0].message


def test_a_list_of_some_images_makes_no_orphans(three_formats: dict[str, Path]) -> None:
    root = three_formats["yolo"].parent
    (root / "l.txt").write_text("images/train/s001.png\n")
    (root / "labels" / "train" / "ghost.txt").touch()
    assert [p.file.name for p in load(three_formats["yolo"], train="l.txt").problems] == ["ghost.txt"]


def test_a_folder_called_digits(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(digits, "SCENES", {"train": 2, "val": 1})
    monkeypatch.setattr("yolite.reading.generated", lambda _: tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "digits" / "images" / "train" / "a.png", np.zeros((20, 30, 3), np.uint8))
    assert load(Path("digits")).names == [str(i) for i in range(10)]
    assert "what is called so here is ./digits" in capfd.readouterr().out
    own = build_dataset(make_config({"data": {"source": "./digits"}}), Console())
    assert own.load("train").names == ["class 0"]


def test_digits_with_a_seed_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("generate: digits\nseed: x\n")
    with pytest.raises(UserError, match=r"d\.yaml: seed 'x' is no whole number"):
        load(tmp_path / "d.yaml")


def test_a_folder_without_names_counts_classes_over_all_roles(tmp_path: Path) -> None:
    for role, label in (("train", 4), ("val", 1)):
        write_image(tmp_path / "images" / role / "a.png", np.zeros((20, 30, 3), np.uint8))
        (tmp_path / "labels" / role).mkdir(parents=True)
        (tmp_path / "labels" / role / "a.txt").write_text(f"{label} 0.5 0.5 0.5 0.5\n")
    assert load(tmp_path, "val").names == load(tmp_path, "train").names == [f"class {i}" for i in range(5)]
    (tmp_path / "labels" / "val" / "a.txt").write_text("99999999 0.5 0.5 0.5 0.5\n")
    with pytest.raises(UserError, match=r"a\.txt has the class id 99999999"):
        load(tmp_path, "train")


# ---------------------------------------------------------------- checkpoints


def _short(made: dict) -> None:
    name = next(iter(made["weights"]))
    made["weights"][name] = made["weights"][name][:1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made.update(records=None),
        lambda made: made.update(records=[1, 2]),
        lambda made: made.update(specs="junk"),
        lambda made: made.update(preprocess=None),
        lambda made: made.update(preprocess={"size": ["a", "b"]}),
        lambda made: made.update(outputs=[0, 1, 2]),
        lambda made: made.update(weights=None),
        lambda made: made.update(weights={}),
        lambda made: made.update(ema=3),
        lambda made: made.update(names=["a"]),
        lambda made: made.update(config=[]),
        _short,
    ],
)
def test_checkpoints_that_were_tampered_with(tmp_path: Path, spoil: Callable[[dict], None]) -> None:
    made = copy.copy(content())
    made["weights"] = dict(made["weights"])
    spoil(made)
    torch.save(made, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="is damaged or no whole yolite checkpoint"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_flipped_bytes_are_found(weights: Path) -> None:  # noqa: F811
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 0xFF
    weights.write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(weights)


# ---------------------------------------------------------------- one mistake, one line


def test_help_and_version(cli: Cli) -> None:
    status, out, err = cli()
    assert (status, err) == (0, "")
    assert "evaluate" in out
    assert cli("--version")[:2] == (0, "yolite 0.1.0\n")


def test_no_good_file_is_one_line(cli: Cli, weights: Path, tmp_path: Path) -> None:  # noqa: F811
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    words = ["--weights", weights, "--out", tmp_path / "o"]
    refused(cli("detect", tmp_path / "a.jpg", tmp_path / "b.jpg", *words), "none of the 2 files could be read")


@pytest.mark.slow
def test_libraries_say_nothing_of_their_own(tmp_path: Path) -> None:
    """In a process of its own, so that the libraries' own settings are those of the command line."""
    PillowImage.new("1", (10_000, 9_500)).save(tmp_path / "large.png")  # past Pillow's first limit
    PillowImage.new("RGB", (40, 30)).save(tmp_path / "cut.tif")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:-2000])
    code = (
        "import sys, pathlib; from yolite.data.images import *\n"
        "for name in sys.argv[1:]:\n"
        "    try: image_size(pathlib.Path(name)), name.endswith('tif') and read_image(pathlib.Path(name))\n"
        "    except ImageError: pass\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "large.png"), str(tmp_path / "cut.tif")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_names_that_are_no_text(weights: Path, tmp_path: Path) -> None:  # noqa: F811
    name = os.fsdecode(b"gr\xf6n.png")
    write_image(tmp_path / name, np.zeros((20, 30, 3), np.uint8))
    words = ["detect", str(tmp_path / name), "--weights", str(weights), "--out", str(tmp_path / "o")]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-m", "yolite", *words, "--json", str(tmp_path / "r.json")],
                          capture_output=True, check=False, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["images"][0]["path"] == str(tmp_path / name)
