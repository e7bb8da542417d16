"""The Python API: every kind of source, the same boxes however it is asked, and what a result turns into."""

import io
import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from tests.squares import square_model, squares
from tests.test_checkpoint import content
from tests.test_cli import weights  # noqa: F401 - a fixture
from yolite import Predictor, devices
from yolite.build import build_detector, placeholder_anchors
from yolite.checkpoint import save_checkpoint
from yolite.data.images import write_image
from yolite.data.loader import plain_batches
from yolite.data.pictures import Pictures
from yolite.errors import UserError
from yolite.inference import Inference, Model, TorchNetwork
from yolite.postprocess import Thresholds
from yolite.result import Result
from yolite.settings import load_config
from yolite.structures import Preprocess, Sample
from yolite.weights import open_model

BOX = (10, 20, 34, 44)
PICTURE = squares((60, 90), [BOX])


def png(image: np.ndarray = PICTURE) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "PNG")
    return file.getvalue()


FORMS: dict[str, Callable[[Path], object]] = {
    "path": lambda path: path,
    "text": str,
    "folder": lambda path: path.parent,
    "pattern": lambda path: str(path.parent / "*.png"),
    "list": lambda path: path.with_name("list.txt"),
    "bytes": lambda path: path.read_bytes(),
    "array": lambda path: PICTURE,
    "array with alpha": lambda path: np.dstack((PICTURE, np.full((60, 90), 7, np.uint8))),
    "array of 16 bits": lambda path: PICTURE.astype(np.uint16) * 257,
    "Pillow": lambda path: PillowImage.open(path),
    "tensor": lambda path: torch.from_numpy(PICTURE).permute(2, 0, 1),
    "float tensor": lambda path: torch.from_numpy(PICTURE).permute(2, 0, 1) / 255,
    "batch tensor": lambda path: torch.from_numpy(PICTURE).permute(2, 0, 1)[None],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_gives_the_same_boxes(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    (tmp_path / "list.txt").write_text("a.png\n\n")
    (found,) = Predictor(square_model()).predict(FORMS[form](path))
    assert found.error is None
    assert np.array_equal(found.image, PICTURE)
    assert found.detections.size == (60, 90)
    assert torch.allclose(found.boxes, torch.tensor([BOX]).float(), atol=1.0)
    assert found.path == (path if form in ("path", "text", "folder", "pattern", "list") else None)
    assert found.source == (str(path) if found.path else "picture 0")


def test_grey_and_bgr_are_read_as_said() -> None:
    predictor = Predictor(square_model())
    grey, rgb, bgr, right = (
        next(predictor.predict(image, bgr=flag))
        for image, flag in ((PICTURE[..., 0], False), (PICTURE, False), (PICTURE[..., ::-1], False),
                            (PICTURE[..., ::-1], True))
    )  # fmt: skip
    assert [len(r.boxes) for r in (grey, rgb, bgr, right)] == [0, 1, 0, 1]
    assert np.array_equal(right.image, PICTURE)
    assert np.array_equal(grey.image, PICTURE[..., :1].repeat(3, 2))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((5, 5, 2), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8), torch.zeros(5, 5, 3),
     torch.full((3, 5, 5), 255.0), torch.zeros(3, 5, 5, dtype=torch.int32), 3.5, None, ["no.jpg"], "no.jpg", "x*.jpg",
     {"a": 1}],
    ids=str,
)  # fmt: skip
def test_what_is_no_picture_is_refused_at_once(wrong: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        Predictor(square_model()).predict([wrong] if wrong is None or isinstance(wrong, float) else wrong)


def test_sources_mix_and_a_file_counts_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    sources = [tmp_path / "b.png", PICTURE, tmp_path, str(tmp_path / "a*"), png()]
    found = list(Predictor(square_model()).predict(sources, batch=3))
    assert [Path(r.source).name for r in found] == ["b.png", "picture 0", "a.png", "bad.jpg", "picture 1"]
    assert [len(r.boxes) for r in found] == [1, 1, 1, 0, 1]
    assert found[3].error
    with pytest.raises(UserError, match=r"bad\.jpg could not be read"):
        found[3].save(tmp_path / "out.png")


def test_a_generator_is_asked_as_it_goes() -> None:
    asked = []

    def pictures() -> Iterator[np.ndarray]:
        for number in range(1000):
            asked.append(number)
            yield PICTURE

    results = Predictor(square_model()).predict(pictures(), batch=2)
    assert not asked
    for _ in range(4):
        next(results)
    assert 4 <= len(asked) <= 20
    results.close()


def test_what_a_result_turns_into(tmp_path: Path) -> None:
    write_image(tmp_path / "000123.png", PICTURE)
    (found,) = Predictor(square_model()).predict(tmp_path / "000123.png")
    (entry,) = found.to_coco()
    x1, y1, x2, y2 = found.boxes[0].tolist()
    assert entry == {"image_id": 123, "category_id": 1, "bbox": pytest.approx([x1, y1, x2 - x1, y2 - y1]),
                     "score": pytest.approx(found.scores[0].item())}  # fmt: skip
    assert found.to_coco("x", [7, 9])[0]["category_id"] == 7
    assert json.loads(json.dumps(found.to_json()))["detections"][0]["name"] == "square"
    found.save(tmp_path / "out" / "drawn.png")
    drawn = cv2.imread(str(tmp_path / "out" / "drawn.png"))
    assert drawn.shape == PICTURE.shape
    assert not np.array_equal(drawn[..., ::-1], PICTURE)
    (bare,) = Predictor(square_model()).predict(PICTURE)
    with pytest.raises(UserError, match="image_id"):
        bare.to_coco()


def test_supervision_is_asked_for_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it one sentence names the extra; with it (here a stand-in) it gets the arrays of its constructor."""
    (found,) = Predictor(square_model()).predict(PICTURE)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"yolite\[supervision\]"):
        found.to_supervision()
    module = type(sys)("supervision")
    module.Detections = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    given = found.to_supervision()
    assert (given["xyxy"].shape, given["confidence"].dtype, given["class_id"].tolist()) == ((1, 4), np.float32, [0])
    assert given["data"]["class_name"].tolist() == ["square"]


def test_a_model_has_its_device_already() -> None:
    with pytest.raises(UserError, match="open model"):
        Predictor(square_model(), device="cpu")


def test_an_input_size_that_does_not_fit_is_refused(weights: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match="needs multiples of 32"):
        Predictor(weights, imgsz=(64, 65))


# ---- the same boxes however it is asked -----------------------------------------------------------------------------

SIZES = [(64, 64), (50, 90), (90, 50), (200, 120), (33, 71), (128, 96), (1, 1), (240, 320)]
LOW = {"conf": 0.3, "max_det": 40}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray], list[Result]]:
    """Weights that answer to noise with boxes of every score, 17 pictures of several sizes, and what is found alone."""
    made = content(3)
    g = torch.Generator().manual_seed(3)
    for name, value in made["weights"].items():
        if "_out." in name:
            made["weights"][name] = torch.randn(value.shape, generator=g) / (1 if name.endswith("bias") else 8)
    made["ema"] = None
    path = tmp_path_factory.mktemp("noisy") / "w.ckpt"
    save_checkpoint(path, made)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (*SIZES[i % len(SIZES)], 3)).astype(np.uint8) for i in range(17)]
    return path, pictures, list(Predictor(path).predict(pictures, **LOW))


def same(a: Result, b: Result) -> bool:
    """Assert that two results agree within 1e-5 (px and score); return whether to the bit."""
    assert torch.equal(a.labels, b.labels)
    assert torch.allclose(a.boxes, b.boxes, atol=1e-5, rtol=0)
    assert torch.allclose(a.scores, b.scores, atol=1e-5, rtol=0)
    return torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)


def test_the_boxes_do_not_depend_on_the_batch(noisy: tuple[Path, list[np.ndarray], list[Result]]) -> None:
    path, pictures, _ = noisy
    torch.set_num_threads(2)  # one batch may be shared out otherwise than another
    predictor = Predictor(path)
    alone = [result for picture in pictures for result in predictor.predict([picture], **LOW)]
    assert sum(len(r.boxes) for r in alone) > 100
    equal = []

    @settings(max_examples=15)
    @given(st.integers(1, 17), st.permutations(range(17)))
    def any_batch(batch: int, order: list[int]) -> None:
        found = predictor.predict([pictures[i] for i in order], batch=batch, **LOW)
        equal.extend(same(alone[index], result) for index, result in zip(order, found, strict=True))

    try:
        any_batch()
    finally:
        torch.set_num_threads(1)
    assert np.mean(equal) > 0.5, "most are the same to the bit (on one machine all of them have been)"


def test_the_command_line_and_evaluation_give_the_same_boxes(
    noisy: tuple[Path, list[np.ndarray], list[Result]], tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    path, pictures, alone = noisy
    names = [tmp_path / "images" / "val" / f"{i:02d}.png" for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        write_image(name, picture)
    words = ["--conf", LOW["conf"], "--max-det", LOW["max_det"], "--batch", 5, "--json", tmp_path / "r.json"]
    assert cli("detect", tmp_path / "images", "--weights", path, "--out", tmp_path / "o", *words)[0] == 0
    entries = json.loads((tmp_path / "r.json").read_text())["images"]
    for entry, expected in zip(entries, alone, strict=True):
        assert [d["box"] for d in entry["detections"]] == [[round(v, 3) for v in b] for b in expected.boxes.tolist()]
        assert [d["score"] for d in entry["detections"]] == [round(s, 6) for s in expected.scores.tolist()]
    # the loader and batches of evaluation, with detection's thresholds
    size = (SIZES * 3)[: len(pictures)]
    none = torch.zeros(0)
    samples = [Sample(n, s, torch.zeros(0, 4), none.long(), none.bool(), none, none.bool(), 0)
               for n, s in zip(names, size, strict=True)]  # fmt: skip
    model = open_model(path, torch.device("cpu"))
    inference = Inference(model.network, model.preprocess)
    limits = Thresholds(LOW["conf"], 0.5, int(LOW["max_det"]), best_class=True)
    found = {}
    for batch, _ in plain_batches(Pictures(samples, model.preprocess), 4, lambda *_: None, step=inference.step):
        found.update(zip(batch.indices, inference(batch.images, batch.letterboxes, limits), strict=True))
    assert len(found) == len(alone)
    for place, expected in enumerate(alone):
        detections = found[place]
        assert torch.equal(detections.boxes, expected.boxes)
        assert torch.equal(detections.scores, expected.scores)


def test_the_network_sees_no_more_grey_than_it_needs() -> None:
    """Pictures of one input size go together, each padded to 32 px; answers in order."""
    model = square_model((96, 96))
    pictures = [squares(size, [(10, 12, 30, 32)]) for size in ((96, 60), (40, 96), (96, 60), (96, 96))]
    found = list(Predictor(model).predict(pictures, batch=4))
    assert model.network.shapes == [(2, 3, 96, 64), (1, 3, 64, 96), (1, 3, 96, 96)]  # type: ignore[attr-defined]
    assert [r.detections.size for r in found] == [(96, 60), (40, 96), (96, 60), (96, 96)]
    for result in found:
        torch.testing.assert_close(result.boxes, torch.tensor([[10.0, 12, 30, 32]]), rtol=0, atol=0.1)


def test_a_network_that_is_coarser_inside_than_its_heads_gets_whole_cells(tmp_path: Path) -> None:
    """Heads of stride 8 and 16 over a backbone that halves five times: 240 px are not enough for 320x240."""
    head = '[{"block":"grid_head","from":"p3","hidden":8},{"block":"grid_head","from":"p4","hidden":8}]'
    config = load_config("yolite-n", words=["model.width=0.25", f"model.head={head}", "model.code.strides=[8, 16]"])
    detector = build_detector(config, 2, placeholder_anchors(config.model))
    network = TorchNetwork(detector, torch.device("cpu"))
    predictor = Predictor(Model(network, Preprocess((320, 320)), ["a", "b"], {}))
    (found,) = predictor.predict(np.zeros((480, 640, 3), np.uint8))
    assert found.error is None


def test_opencv_gets_its_threads_back() -> None:
    """Of readings that overlap, the last to end leaves them as the first has found them."""
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        pictures = [squares((40, 50), [])] * 3
        first, second = (Predictor(square_model()).predict(pictures) for _ in range(2))
        next(first), next(second)
        assert cv2.getNumThreads() == 1
        list(first), list(second)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_half_precision_gives_nearly_the_same(
    noisy: tuple[Path, list[np.ndarray], list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The raw maps, float32 again, within a few times the 2^-8 of bf16 (emulated where the processor has none)."""
    path, pictures, _ = noisy
    monkeypatch.setattr(devices, "choose_precision", lambda device: ("bf16", "told so"))
    half, whole = Predictor(path, half=True), Predictor(path)
    assert {p.dtype for p in half.inference.detector.parameters()} == {torch.bfloat16}
    images = torch.from_numpy(np.stack([p for p in pictures if p.shape == (64, 64, 3)])).permute(0, 3, 1, 2)
    pairs = zip(half.inference.forward(images), whole.inference.forward(images), strict=True)
    for mine, wanted in pairs:
        assert mine.dtype == torch.float32
        assert 0 < (mine - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert sum(len(r.boxes) for r in half.predict(pictures, **LOW)) > 100


def test_half_precision_is_refused_where_it_would_be_slower(
    weights: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "choose_precision", lambda device: ("fp32", "no bf16 instructions"))
    with pytest.raises(UserError, match="slower here, no bf16 instructions"):
        Predictor(weights, half=True)
    with pytest.raises(UserError, match="precision already"):
        Predictor(square_model(), half=True)
    with pytest.raises(UserError, match="computes as it was exported"):
        Predictor("some.onnx", half=True)


@pytest.mark.slow
def test_half_precision_on_the_command_line(
    mini_run: Path,
    cli: Callable[..., tuple[int, str, str]], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each command computes in 16 bits where it was asked to, and says where it cannot."""
    monkeypatch.setattr(devices, "choose_precision", lambda device: ("bf16", "told so"))
    seen: list[torch.dtype] = []
    call = TorchNetwork.__call__
    monkeypatch.setattr(TorchNetwork, "__call__", lambda self, x: seen.append(self.dtype) or call(self, x))
    picture = next((shapes.parent / "images" / "val").iterdir())
    detect = ["detect", picture, "--weights", mini_run, "--imgsz", 64, "--out", tmp_path / "d"]
    evaluate = ["evaluate", "--weights", mini_run, "--data", shapes, "--imgsz", 64]
    for words in (detect, evaluate):
        for half, kind in (([], torch.float32), (["--half"], torch.bfloat16)):
            seen.clear()
            status, _, err = cli(*words, *half)
            assert status == 0, err
            assert set(seen) == {kind}
    status, _, err = cli("evaluate", "--results", "r.json", "--data", shapes, "--half")
    assert status == 2
    assert "computes nothing" in err


# ---- pictures that are none, or unusual ---------------------------------------------------------------------------


def huge_png() -> bytes:
    """A PNG whose header states 30000x30000 px."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    picture = PillowImage.fromarray(PICTURE).convert(mode)
    if "append_images" in options:
        options = {**options, "append_images": [PillowImage.new("RGB", picture.size)]}
    picture.save(file, kind, **options)
    return file.getvalue()


def png_of_16_bits() -> bytes:
    encoded = cv2.imencode(".png", PICTURE[..., ::-1].astype(np.uint16) * 257)[1]
    return encoded.tobytes()


UNUSUAL: dict[str, tuple[bytes, str, int]] = {
    # content, what is said of it, squares found
    "one.jpg": (png(squares((1, 1), [(0, 0, 1, 1)])), "", 1),
    "sixteen.png": (png_of_16_bits(), "", 1),
    "cmyk.jpg": (saved("JPEG", "CMYK"), "", 1),
    "animated.jpg": (saved("GIF", save_all=True, append_images=1), "the first alone was looked at", 1),
    "animated.png": (saved("PNG", save_all=True, append_images=1), "the first alone was looked at", 1),
    "animated.webp": (saved("WEBP", save_all=True, append_images=1), "the first alone was looked at", 1),
    "pages.tif": (saved("TIFF", save_all=True, append_images=1), "the first alone was looked at", 1),
    "huge.png": (huge_png(), "its header states more than 179 million px", 0),
    "empty.jpg": (b"", "not a readable image", 0),
    "text.jpg": (b"no picture", "not a readable image", 0),
    "cut.jpg": (saved("JPEG")[:-40], "cut off", 0),
}
if not hasattr(cv2, "imreadanimation"):  # OpenCV below 4.11 reads no GIF
    UNUSUAL["animated.jpg"] = (UNUSUAL["animated.jpg"][0], "cannot be decoded", 0)


def test_unusual_pictures_are_read_or_said_in_one_line(tmp_path: Path, cli: Callable[..., tuple[int, str, str]],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for name, (data, _, _) in UNUSUAL.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("yolite.commands.detect.Predictor", lambda *_: Predictor(square_model()))
    words = ["--out", tmp_path / "o", "--json", tmp_path / "r.json", "--tile"]
    status, _, err = cli("detect", tmp_path, "--weights", "w", *words)
    assert status == 0
    entries = {Path(e["path"]).name: e for e in json.loads((tmp_path / "r.json").read_text())["images"]}
    assert entries.keys() == UNUSUAL.keys()
    for name, (_, said, count) in UNUSUAL.items():
        assert len(entries[name]["detections"]) == count, (name, entries[name])
        lines = [line for line in err.splitlines() if name in line]
        assert len(lines) == bool(said), (name, err)
        assert all(said in line for line in lines), lines
        assert bool(entries[name]["error"]) == (count == 0)


def test_the_cap_is_said(cli: Callable[..., tuple[int, str, str]], tmp_path: Path,
                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    write_image(tmp_path / "a.png", squares((96, 96), [(x, 10, x + 8, 18) for x in range(5, 90, 20)]))
    monkeypatch.setattr("yolite.commands.detect.Predictor", lambda *_: Predictor(square_model()))
    status, out, err = cli("detect", tmp_path / "a.png", "--weights", "w", "--out", tmp_path / "o", "--max-det", 2)
    assert status == 0
    assert "1 images had more than 2 boxes: the best 2 are kept (--max-det)" in err
    assert "2 square" in out
