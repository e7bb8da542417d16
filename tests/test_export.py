"""`yolite export`: the files answer as the checkpoint does, and a wrong one is not let through."""

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from PIL import Image

from tests.conftest import scene
from yolite import Predictor
from yolite.checkpoint import load_checkpoint, restore_detector
from yolite.commands import export as command
from yolite.errors import UserError
from yolite.export import quantise
from yolite.export.graph import InGraph, Readable, decoded, nms, suppressed
from yolite.export.parity import FLOAT, Row, match, other_size
from yolite.export.runtimes import open_exported
from yolite.models.detector import fused
from yolite.postprocess import Thresholds, postprocess
from yolite.result import Result
from yolite.structures import Detections

pytestmark = pytest.mark.usefixtures("traced_once")
CPU = torch.device("cpu")
SOURCES = {"onnx": ".onnx", "openvino": ".xml", "torchexport": ".pt2"}


@pytest.fixture(scope="session")
def files(mini_run: Path, traced_once: None) -> dict[str, Path]:
    """The run exported in each format that is installed."""
    from yolite.cli import main

    out = {}
    for name, suffix in SOURCES.items():
        if name != "torchexport":
            pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
            pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        if name == "openvino":
            pytest.importorskip("openvino", reason="the extra openvino is not installed")
        out[name] = mini_run.parent / f"mini{suffix}"
        words = ["export", "--weights", mini_run, "--format", name, "--out", out[name], "--json", f"{out[name]}.json"]
        assert main([str(word) for word in words]) == 0
    return out


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Four scenes: wide, tall, small and large."""
    paths = []
    for number, size in enumerate([(96, 128), (150, 100), (48, 60), (300, 420)]):
        image = cv2.resize(scene(4 + number)[0], size[::-1], interpolation=cv2.INTER_NEAREST)
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOURCES))
def test_an_exported_file_gives_the_boxes_of_the_checkpoint(
    name: str, files: dict[str, Path], mini_run: Path, pictures: list[Path]
) -> None:
    """Nothing else to configure; alone and in a batch, at the mini_run input size and at another."""
    for imgsz in (None, (64, 224)):
        wanted = list(Predictor(mini_run, imgsz=imgsz).predict(pictures))
        assert sum(len(one.boxes) for one in wanted) > 2
        exported = Predictor(files[name], imgsz=imgsz)
        for batch in (1, 3):
            found = list(exported.predict(pictures, batch=batch))
            for one, other in zip(wanted, found, strict=True):
                assert match(one.detections, other.detections)[0] == 0
                torch.testing.assert_close(other.boxes, one.boxes, rtol=0, atol=1e-2)
                torch.testing.assert_close(other.scores, one.scores, rtol=0, atol=1e-4)
                assert one.names == other.names == ["block", "disc"]
    report = json.loads(Path(f"{files[name]}.json").read_text())
    assert report["passed"]
    assert {row["name"] for row in report["rows"]} >= {"raw maps", "boxes of the graph, px", "AP, difference"}
    ap = next(row for row in report["rows"] if row["name"] == "AP, difference")
    assert float(ap["note"].split(" -> ")[0]) > 0.3, "a network that found nothing would agree with anything"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOURCES))
def test_evaluate_and_detect_take_exported_files(
    name: str, cli, files: dict[str, Path], mini_run: Path, pictures: list[Path], tmp_path: Path
) -> None:
    numbers = []
    for weights in (mini_run, files[name]):
        status, out, err = cli("evaluate", "--weights", weights, "--json", tmp_path / "e.json")
        assert status == 0, out + err
        numbers.append(json.loads((tmp_path / "e.json").read_text())["AP"])
    assert numbers[0] > 0.3
    assert numbers[1] == pytest.approx(numbers[0], abs=1e-3)
    if name == "onnx":
        status, out, err = cli("detect", "--weights", files[name], pictures[0], "--out", tmp_path / "o")
        assert status == 0, out + err
        assert (tmp_path / "o" / "0.png").exists()


@pytest.mark.slow
def test_a_changed_weight_fails_the_report(cli, mini_run: Path, tmp_path: Path, monkeypatch) -> None:
    """One of 48 channels of one layer, in the file alone: exit 1, and the file is not under its name."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    honest = command.write_onnx

    def planted(proto, text: str, path: Path) -> None:
        tensor = next(t for t in proto.graph.initializer if len(t.dims) == 4 and t.dims[0] == 48)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[7] *= 1.5
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        honest(proto, text, path)

    monkeypatch.setattr(command, "write_onnx", planted)
    out = tmp_path / "m.onnx"
    out.write_bytes(b"the old one")
    status, text, err = cli("export", "--weights", mini_run, "--format", "onnx", "--out", out, "--json", tmp_path / "r")
    assert status == 1, text + err
    assert "kept as" in err
    assert out.read_bytes() == b"the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.failed", "r"]
    report = json.loads((tmp_path / "r").read_text())
    assert not report["passed"]
    assert not next(row for row in report["rows"] if row["name"] == "raw maps, all pictures")["passed"]


@pytest.fixture
def standalone(monkeypatch) -> Callable[[Path, Result], Detections]:
    """What examples/onnx_standalone.py finds with a file on the picture of a result."""
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "examples")
    import onnx_standalone

    def found(file: Path, result: Result) -> Detections:
        session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
        rows = onnx_standalone.detect(session, result.source)
        return Detections(torch.tensor([row["box"] for row in rows]).reshape(-1, 4),
                          torch.tensor([row["score"] for row in rows]),
                          torch.tensor([result.names.index(row["name"]) for row in rows], dtype=torch.int64),
                          result.detections.size)  # fmt: skip

    return found


@pytest.mark.slow
def test_nms_in_the_graph(mini_run: Path, cli, pictures: list[Path], tmp_path: Path, standalone) -> None:
    pytest.importorskip("onnxscript")
    out, words = tmp_path / "m.onnx", ["--nms", "--conf", 0.02, "--iou", 0.4, "--max-det", 2]
    status, text, err = cli("export", "--weights", mini_run, "--format", "onnx", *words, "--out", out)
    assert status == 0, text + err
    assert "boxes of the graph without a partner" in text
    (wanted,) = Predictor(mini_run).predict(pictures[0], conf=0.02, iou=0.4, max_det=2)
    lost, box, score = match(wanted.detections, standalone(out, wanted))
    assert (lost, len(wanted.boxes)) == (0, 2)
    assert box < 0.02  # the example rounds to 0.01 px
    assert score < 1e-4


@pytest.mark.slow
def test_the_standalone_example(files: dict[str, Path], mini_run: Path, pictures: list[Path], standalone) -> None:
    """Alike to rounding: on a picture of the input's scale, and on one that Pillow shrank as the example does."""
    predictor = Predictor(mini_run)
    (one,) = predictor.predict(pictures[0])
    with Image.open(pictures[1]) as large:
        assert large.size == (100, 150)
        large.resize((64, 96), Image.Resampling.BOX).save(pictures[1].with_name("shrunk.png"))
    (shrunk,) = predictor.predict(pictures[1].with_name("shrunk.png"))
    (large_one,) = predictor.predict(pictures[1])  # OpenCV shrinks it: nearly what Pillow makes of it
    scale = torch.tensor([100 / 64, 150 / 96]).repeat(2)
    two = replace(large_one, detections=replace(shrunk.detections, boxes=shrunk.boxes * scale, size=(150, 100)))
    for wanted, px, least in ((one, 0.02, 1e-4), (two, 0.02, 1e-4), (large_one, 2.0, 0.1)):
        lost, box, score = match(wanted.detections, standalone(files["onnx"], wanted))
        assert lost == 0
        assert len(wanted.boxes)
        assert box < px
        assert score < least


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8(name: str, cli, mini_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime" if name == "onnx" else "openvino")
    out = tmp_path / f"m{SOURCES[name]}"
    status, text, err = cli("export", "--weights", mini_run, "--format", name, "--int8", "--out", out, "--json",
                            tmp_path / "r.json", "--split", "train")  # fmt: skip
    report = json.loads((tmp_path / "r.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["FLOPs not in INT8"]["measured"] < 0.1, text + err
    assert rows["boxes after NMS without a partner"]["passed"], text + err
    assert rows["raw maps"]["measured"] > 1e-3, "nothing was rounded: this is no INT8"
    assert rows["raw maps"]["measured"] < 5
    assert status == (0 if report["passed"] else 1)


def test_a_share_of_flops_below_the_limit_is_a_failure() -> None:
    assert not Row("FLOPs not in INT8", 0.21, 0.2).passed
    assert Row("FLOPs not in INT8", 0.19, 0.2).passed
    assert not Row("raw maps", float("nan"), 1.0).passed
    assert quantise._share({"a": 30.0, "b": 70.0}, {"b"}) == pytest.approx(0.7)


def test_in_graph_decoding_and_nms_are_those_of_postprocess() -> None:
    """Two pictures of other content, max_det reached in one of them."""
    from yolite.geometry import Letterbox
    from yolite.structures import HeadSpec

    generator = torch.Generator().manual_seed(0)
    specs = [HeadSpec(8, ((20, 30), (40, 25)), 3, wh="sigmoid_square", grid_scale=2.0), HeadSpec(16, ((60, 50),), 3)]
    maps = [torch.randn(2, spec.channels, *side, generator=generator) * 2
            for spec, side in zip(specs, ((8, 12), (4, 6)), strict=True)]  # fmt: skip
    maps[0][1] -= 2.5
    limits = Thresholds(0.3, 0.5, 30, best_class=True)
    plain = Letterbox((64, 96), (64, 96), (64, 96), 0, 0, 114)
    wanted = postprocess(maps, specs, [plain, plain], limits)
    boxes, scores, labels, picture = suppressed(*decoded(maps, specs), InGraph(0.3, 0.5, 30))
    assert wanted[0].capped
    assert not wanted[1].capped
    for place, one in enumerate(wanted):
        mine = picture == place
        assert len(one) == int(mine.sum()) > 0
        torch.testing.assert_close(scores[mine], one.scores)
        assert labels[mine].tolist() == one.labels.tolist()
        torch.testing.assert_close(plain.invert(boxes[mine]), one.boxes)


def test_the_operator_of_nms_takes_no_boxes_too() -> None:
    assert nms(torch.zeros(2, 0, 4), torch.zeros(2, 3, 0), 0.5, 0.1).shape == (0, 3)


def test_match_finds_what_is_lost_moved_and_renamed() -> None:
    def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
        return Detections(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores),
                          torch.tensor(labels, dtype=torch.int64), (100, 100))  # fmt: skip

    one = found([[0, 0, 10, 20], [30, 30, 60, 50]], [0.9, 0.8], [0, 1])
    assert match(one, one) == (0, 0.0, 0.0)
    moved = found([[0, 0, 10, 20], [30, 30, 62, 50]], [0.9, 0.75], [0, 1])
    lost, box, score = match(one, moved)
    assert (lost, box) == (0, 2.0)
    assert score == pytest.approx(0.05)
    assert match(one, found([[0, 0, 10, 20], [30, 30, 60, 50]], [0.9, 0.8], [0, 0]))[0] == 2
    assert match(one, found([[0, 0, 10, 20]], [0.9], [0]))[0] == 1
    assert match(found([], [], []), one)[0] == 2


def test_another_input_size_is_not_square() -> None:
    for size in ((320, 320), (32, 32), (64, 32), (640, 416), (96, 160)):
        height, width = other_size(size, 32)
        assert height != width
        assert (height, width) != size
        assert height % 32 == width % 32 == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--format", "onxx"], "did you mean 'onnx'"),
        (["--format", "torchexport", "--int8"], "has no int8"),
        (["--format", "torchexport", "--nms"], "has no nms"),
        (["--format", "torchexport", "--conf", "0.5"], "belongs to --nms"),
        (["--format", "torchexport", "--out", "m.onnx"], "ends in .pt2"),
        (["--format", "torchexport", "train.lr=1"], "no use for train.lr"),
        (["--format", "torchexport", "--split", "valid"], "is no role"),
    ],
)
def test_what_a_format_cannot_honour_is_refused(words: list[str], part: str, cli, mini_run: Path) -> None:
    status, _, err = cli("export", "--weights", mini_run, *words)
    assert status == 2
    assert part in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("name", "extra"), [("onnx", "onnx"), ("openvino", "openvino")])
def test_a_missing_extra_is_named(name: str, extra: str, cli, mini_run: Path, tmp_path: Path, monkeypatch) -> None:
    for module in ("onnxruntime", "onnxscript", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    status, _, err = cli("export", "--weights", mini_run, "--format", name)
    assert status == 2
    assert f"pip install 'yolite[{extra}]'" in err
    suffix = SOURCES[name]
    (tmp_path / f"m{suffix}").write_bytes(b"x")
    status, _, err = cli("evaluate", "--weights", tmp_path / f"m{suffix}")
    assert status == 2
    assert f"pip install 'yolite[{extra}]'" in err


def test_an_exported_file_is_not_exported_again(cli, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    status, _, err = cli("export", "--weights", tmp_path / "m.onnx", "--format", "torchexport")
    assert status == 2
    assert "m.onnx is an exported file" in err


def damaged(path: Path) -> dict[str, bytes]:
    content = path.read_bytes()
    return {"empty": b"", "half": content[: len(content) // 2], "text": b"hello" * 100}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOURCES))
def test_damaged_files_are_refused_in_one_line(name: str, files: dict[str, Path], cli, tmp_path: Path) -> None:
    for kind, content in damaged(files[name]).items():
        bad = tmp_path / f"{kind}{files[name].suffix}"
        bad.write_bytes(content)
        status, _, err = cli("evaluate", "--weights", bad)
        assert status == 2, err
        assert err.count("\n") == 1, err
    if name == "openvino":
        shutil.copy(files[name], tmp_path / "alone.xml")  # without its .bin
        with pytest.raises(UserError, match="cannot be read"):
            Predictor(tmp_path / "alone.xml")
    with pytest.raises(UserError, match="do not exist"):
        Predictor(tmp_path / f"none{files[name].suffix}")
    with pytest.raises(UserError, match="multiples of 16"):
        Predictor(files[name], imgsz=(100, 100))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"guards_code": []', "\"guards_code\": [\"__import__('os').mkdir('owned')\"]"),
        ("torch.ops.aten.silu.default", "torch.os.mkdir"),
        ('"expr_str": "', '"expr_str": "().__class__ or '),
    ],
)
def test_a_torch_export_file_with_code_is_not_loaded(
    old: str, new: str, files: dict[str, Path], tmp_path: Path, monkeypatch
) -> None:
    """Source in the guards, an operator that is none, and a size that is a program."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(files["torchexport"]) as source, zipfile.ZipFile("bad.pt2", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("model.json"):
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            target.writestr(name, content)
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match="refused"):
        Predictor("bad.pt2")


@pytest.mark.slow
def test_importing_openvino_sends_nothing(tmp_path: Path) -> None:
    """Its package sends an event when it is imported: yolite keeps that part out."""
    pytest.importorskip("openvino")
    import subprocess

    code = (
        "import sys; from yolite.export.extras import need_openvino; need_openvino().Core();"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry')], 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_signal_after_openvino(files: dict[str, Path]) -> None:
    """Of two cores that go in the order in which they came, signal handlers would have no stack: see openvino_core."""
    import subprocess

    code = (
        "import faulthandler, gc, signal, subprocess, sys; from pathlib import Path; import torch;"
        "from yolite.export.runtimes import open_exported;"
        "faulthandler.enable(); signal.signal(signal.SIGCHLD, lambda *_: None);"
        "some = [open_exported(Path(sys.argv[1]), torch.device('cpu'), lambda about: ['boxes']) for _ in range(2)];"
        "some.pop(0); gc.collect(); some.pop(0); gc.collect(); junk = [bytearray(11568) for _ in range(20000)];"
        "subprocess.run([sys.executable, '-c', ''])"
    )
    done = subprocess.run([sys.executable, "-c", code, files["openvino"]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_traced_graph_answers_at_any_size(mini_run: Path, files: dict[str, Path]) -> None:
    """Also one cell, and every output by its name."""
    model: Callable = Readable(fused(restore_detector(load_checkpoint(mini_run / "best.ckpt"))))
    for path in files.values():
        about, network = open_exported(path, CPU, lambda about: about["export"]["outputs"])
        assert about["export"]["outputs"] == model.outputs == ["boxes", "scores", "raw_0", "raw_1"]
        for shape in ((1, 3, 16, 16), (5, 3, 16, 48), (2, 3, 208, 32)):
            x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
            with torch.inference_mode():
                for wanted, found in zip(model(x), network(x), strict=True):
                    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=FLOAT.box or 0)
