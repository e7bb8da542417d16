"""explain: what it shows is what inference and training do, for every generation; its formulas worked out by hand."""

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.test_models import make
from yolite.boxes import pairwise_iou
from yolite.build import build_loss
from yolite.checkpoint import describe, save_checkpoint
from yolite.codec import decode
from yolite.explain.formula import Cell, read_cell
from yolite.explain.page import detections
from yolite.explain.pictures import _view, draw_cell
from yolite.explain.sight import look, stages
from yolite.explain.trace import Place, Trace, droppers, follow, read_candidates
from yolite.explain.truth import read_truth, why_alone
from yolite.geometry import Letterbox
from yolite.inference import Inference, TorchNetwork
from yolite.models.detector import Detector
from yolite.models.graph import LayerRecord
from yolite.models.summary import summarise
from yolite.nms import hard_nms
from yolite.postprocess import Thresholds
from yolite.settings import load_config
from yolite.structures import Detections, HeadSpec, Preprocess, Targets

Cli = Callable[..., tuple[int, str, str]]
LIMITS = Thresholds(0.25, 0.5, 300, best_class=True)
NAMES = ["yolite-n", "yolov1-tiny", "yolov2-tiny", "yolov3-tiny"]
PICTURE = np.random.default_rng(3).integers(0, 256, (50, 70, 3)).astype(np.uint8)


def loud(name: str) -> Detector:
    """A small network of a generation whose raw numbers lie far apart: it finds a lot."""
    small = ["model.width=0.0625"] if name.startswith("yolov") else []
    model = make(name, 2, *small)
    g = torch.Generator().manual_seed(4)
    for index in model.graph.outputs:
        for parameter in model.graph.layers[index].parameters():
            nn.init.normal_(parameter, std=0.4, generator=g)
    return model.eval()


def traced(name: str) -> tuple[Inference, Trace]:
    model = loud(name)
    inference = Inference(
        TorchNetwork(model, torch.device("cpu"), alone=True), Preprocess(model.fixed_size or (64, 96))
    )
    return inference, follow(inference, PICTURE, LIMITS)


def objects(*rows: tuple[int, int, list[float]], ignore: tuple[int, ...] = ()) -> Targets:
    images, labels, boxes = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Targets(boxes, labels, images, torch.tensor([i in ignore for i in range(len(rows))]))


# ---- formulas --------------------------------------------------------------------------------------------------------

SPECS = [
    HeadSpec(8, ((12.0, 20.0), (30.0, 9.0)), 3, grid_scale=2.0, wh="sigmoid_square"),
    HeadSpec(16, ((12.0, 20.0), (30.0, 9.0)), 3),
    HeadSpec(16, ((12.5, 20.0), (30.0, 9.0)), 3, grid_scale=1.05),
    HeadSpec(16, ((12.0, 20.0), (30.0, 9.0)), 3, class_code="softmax"),
    HeadSpec(16, ((12.0, 20.0), (30.0, 9.0)), 3, xy="free"),
    HeadSpec(16, ((96.0, 64.0), (96.0, 64.0)), 3, "linear", 1.0, "square", "linear", "linear", "cell"),
]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def worked(text: str, **values: float) -> float:
    """Work out a formula as a reader does."""
    text = text.partition(" (both")[0]
    for shown, meant in (("−", "-"), ("·", "*"), ("²", "**2"), ("e^(", "exp("), ("σ(", "sigmoid("),
                         ("anchor w", "anchor_w"), ("anchor h", "anchor_h")):  # fmt: skip
        text = text.replace(shown, meant)
    return float(eval(text, {"exp": math.exp, "sigmoid": sigmoid, "min": min, "max": max, **values}))


def trace_of(specs: list[HeadSpec], maps: list[torch.Tensor], preprocess: Preprocess) -> Trace:
    letterbox = Letterbox.fit((PICTURE.shape[0], PICTURE.shape[1]), preprocess)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), letterbox.image)
    decoded = [decode(raw, spec) for raw, spec in zip(maps, specs, strict=True)]
    return Trace(PICTURE, letterbox, letterbox.pixels(PICTURE), {}, maps, decoded, specs, LIMITS,
                 read_candidates(maps, specs, LIMITS), none)  # fmt: skip


def check_by_hand(cell: Cell, trace: Trace) -> None:
    """Work out every step, with the numbers shown and with the words, and compare with the codec's."""
    step = {s.what: s for s in [*cell.steps, *cell.score_steps]}
    for s in step.values():
        assert worked(s.numbers) == pytest.approx(s.value, rel=2e-3, abs=2e-3), s
    tx, ty, tw, th = cell.raw[:4].tolist()
    known = {"column": cell.place.column, "row": cell.place.row, "stride": cell.spec.stride, "tx": tx, "ty": ty,
             "tw": tw, "th": th}  # fmt: skip
    known |= dict(zip(("anchor_w", "anchor_h"), cell.spec.anchors[cell.place.anchor], strict=True))
    x, y, w, h = (worked(step[what].formula, **known) for what in ("centre x", "centre y", "width", "height"))
    box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    assert box == pytest.approx(cell.input_box.tolist(), rel=1e-4, abs=1e-3)
    assert [step[f"{n}, input px"].value for n in ("x1", "y1", "x2", "y2")] == cell.input_box.tolist()
    assert [step[f"{n}, image px"].value for n in ("x1", "y1", "x2", "y2")] == cell.box.tolist()
    assert trace.letterbox.invert(cell.input_box[None])[0].tolist() == cell.box.tolist()
    assert step["score"].value == float(cell.scores.max())


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.xy}-{s.grid_scale}-{s.wh}-{s.class_code}")
def test_the_formulas_give_the_box(spec: HeadSpec) -> None:
    raw = 1.5 * torch.randn(1, spec.channels, 64 // spec.stride, 96 // spec.stride,
                            generator=torch.Generator().manual_seed(0))  # fmt: skip
    raw[0, 2, 1, 1] = 0.002  # a small number keeps its digits
    trace = trace_of([spec], [raw], Preprocess((64, 96)))
    for place in (Place(0, 0, 0, 0), Place(0, 0, 1, 1), Place(0, 1, 3, 5), Place(0, 1, 2, 0), trace.likeliest()):
        check_by_hand(read_cell(trace, place), trace)


def test_a_huge_exponent_is_cut_as_in_the_codec() -> None:
    spec = SPECS[1]
    raw = torch.zeros(1, spec.channels, 4, 6)
    raw[0, 2:4] = 25.0
    trace = trace_of([spec], [raw], Preprocess((64, 96)))
    cell = read_cell(trace, Place(0, 0, 1, 1))
    width = next(s for s in cell.steps if s.what == "width")
    assert "min(25, 10)" in width.numbers
    assert worked(width.numbers) == pytest.approx(12 * math.exp(10), rel=1e-6)
    assert width.value == pytest.approx(12 * math.exp(10), rel=1e-4)


# ---- the way through the network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_generation_is_told_as_it_is(name: str) -> None:
    inference, trace = traced(name)
    found = inference(torch.from_numpy(trace.pixels).permute(2, 0, 1)[None], [trace.letterbox], LIMITS)[0]
    assert len(found) > 0
    assert torch.equal(found.boxes, trace.found.boxes)
    assert torch.equal(found.scores, trace.found.scores)
    kept = trace.candidates.kept.tolist()
    for n, row in enumerate(kept[:20]):  # each detection is read back from its own cell
        cell = read_cell(trace, trace.candidates.places[row])
        torch.testing.assert_close(cell.box, found.boxes[n], rtol=1e-5, atol=1e-3)
        assert float(cell.scores.max()) == pytest.approx(float(found.scores[n]), rel=1e-5)
        assert int(cell.scores.argmax()) == int(found.labels[n])
    check_by_hand(read_cell(trace, trace.likeliest()), trace)
    for index, raw in zip(inference.detector.graph.outputs, trace.maps, strict=True):
        assert trace.outputs[index] is raw  # the very tensor, not another one like it
    assert not any(layer._forward_hooks for layer in inference.detector.graph.layers)


@pytest.mark.parametrize("name", NAMES)
def test_the_costs_of_all_objects_add_up_to_the_loss(name: str) -> None:
    inference, trace = traced(name)
    specs, size = inference.detector.specs, inference.preprocess.size
    loss = build_loss(load_config(name).loss, specs)
    some = objects((0, 0, [10.0, 5.0, 40.0, 30.0]), (0, 1, [50.0, 20.0, 90.0, 60.0]), (0, 0, [52.0, 22.0, 91.0, 60.0]),
                   (0, 1, [0.0, 40.0, 20.0, 60.0]), ignore=(3,))  # fmt: skip
    assert size[0] >= 64
    for targets in (some, some[:0]):
        truth = read_truth(trace.maps, specs, targets, loss)
        sums = truth.parts.sum(0) + torch.tensor([0.0, truth.rest, 0.0])
        torch.testing.assert_close(sums, torch.stack(list(truth.loss.parts.values())), rtol=1e-4, atol=1e-5)
        assert len(truth.positives) == truth.loss.positives
        counted = [int(p.sum()) for p in truth.positive]
        assert counted == [len({p.place for p in truth.positives if p.place.level == n}) for n in range(len(specs))]
        for p in truth.positives:
            at = (p.place.anchor, p.place.row, p.place.column)
            box = trace.decoded[p.place.level].boxes[0][at]
            assert p.iou == pytest.approx(float(pairwise_iou(box[None], targets.boxes[p.target][None])), abs=1e-5)
            assert p.objectness == pytest.approx(float(trace.objectness(p.place.level)[at]), abs=1e-6)
        assert 3 not in truth.orphans, "what is ignored is not missed"


def test_objects_without_a_positive() -> None:
    """Another object has the cell (YOLOv1), or no anchor fits (yolite): called out, with the reason."""
    _, trace = traced("yolov1-tiny")
    loss = build_loss(load_config("yolov1-tiny").loss, trace.specs)
    twins = objects((0, 0, [10.0, 5.0, 40.0, 30.0]), (0, 1, [11.0, 5.0, 41.0, 30.0]))
    truth = read_truth(trace.maps, trace.specs, twins, loss)
    assert truth.orphans == [1]
    assert "another object" in why_alone(truth, 1, trace.specs, loss)
    spec = HeadSpec(8, ((16.0, 16.0),), 2)
    raw = torch.zeros(1, spec.channels, 8, 12)
    loss = build_loss(load_config("yolite-n").loss, [spec])
    truth = read_truth([raw], [spec], objects((0, 0, [0.0, 0.0, 80.0, 20.0]), (0, 0, [0.0, 0.0, 20.0, 20.0])), loss)
    assert truth.orphans == [0]
    assert "by a factor of 5.00; 4 is too much" in why_alone(truth, 0, [spec], loss)


# ---- who drops whom --------------------------------------------------------------------------------------------------


def test_who_drops_whom_by_hand() -> None:
    """A drops B; B, gone, drops nobody, so C stays; D is of another class."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10], [0, 0, 10, 10]])
    score, label = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 0, 1])
    limits = replace(LIMITS, iou=0.5)
    kept, _ = hard_nms(boxes, score, label, 0.5, 300)
    by, iou = droppers(boxes, score, label, kept, limits)
    assert by.tolist() == [-1, 0, -1, -1]
    assert iou.tolist() == pytest.approx([0, 70 / 130, 0, 0])
    kept, _ = hard_nms(boxes, score, label, 0.5, 300, class_wise=False)
    assert droppers(boxes, score, label, kept, replace(limits, nms="agnostic"))[0].tolist() == [-1, 0, -1, 0]
    with pytest.raises(AssertionError):
        droppers(boxes, score, label, torch.tensor([0, 1, 2, 3]), limits)
    with pytest.raises(AssertionError):
        droppers(boxes, score, label, torch.tensor([0, 3]), limits)


@pytest.mark.parametrize("seed", range(5))
def test_who_drops_whom_as_a_loop_finds_it(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    low = 60 * torch.rand(120, 2, generator=g)
    boxes = torch.cat((low, low + 10 + 30 * torch.rand(120, 2, generator=g)), 1)
    score = (20 * torch.rand(120, generator=g)).round() / 20  # many are equal
    label = torch.randint(2, (120,), generator=g)
    kept, _ = hard_nms(boxes, score, label, 0.4, 300)
    by, _ = droppers(boxes, score, label, kept, replace(LIMITS, iou=0.4))
    iou = pairwise_iou(boxes.double(), boxes.double())
    order = sorted(range(120), key=lambda i: (-float(score[i]), i))
    stays: list[int] = []
    for i in order:
        killers = [k for k in stays if label[k] == label[i] and iou[k, i] > 0.4]
        assert int(by[i]) == (killers[0] if killers else -1)
        if not killers:
            stays.append(i)
    assert stays == kept.tolist()


# ---- what a cell sees ------------------------------------------------------------------------------------------------


def small_net() -> Detector:
    conv = {"out": 8, "kernel": 3, "stride": 2}
    rows = [
        LayerRecord("conv", (-1,), conv),
        LayerRecord("conv", (0,), conv),
        LayerRecord("conv_head", (1,), {"anchors": 1, "classes": 2}),
    ]
    torch.manual_seed(0)
    return Detector(rows, [HeadSpec(4, ((10.0, 10.0),), 2)], [2]).eval()


def test_the_drawn_part_holds_cell_anchor_and_box() -> None:
    inference = Inference(TorchNetwork(small_net(), torch.device("cpu"), alone=True), Preprocess((64, 96)))
    trace = follow(inference, PICTURE[:, :40], LIMITS)
    assert trace.letterbox.input == (64, 64), "a narrow picture: 32 columns of the input are not needed"
    for row, column in ((0, 0), (8, 12), (15, 15)):
        cell = read_cell(trace, Place(0, 0, row, column))
        x1, y1, x2, y2 = _view(trace, cell)
        box = cell.input_box.clamp(min=0).clamp(max=64)
        held = torch.tensor([column * 4.0, row * 4, column * 4 + 4, row * 4 + 4])
        for inner in (box, held):
            assert x1 <= inner[0]
            assert y1 <= inner[1]
            assert inner[2] <= x2
            assert inner[3] <= y2
        assert (x1, y1) >= (0, 0)
        assert x2 <= 64
        assert y2 <= 64
        pictures = [draw_cell(trace, cell, step) for step in (1, 2, 3)]
        assert len({p.shape for p in pictures}) == 1
        assert pictures[0].shape[1] / pictures[0].shape[0] == pytest.approx((x2 - x1) / (y2 - y1))
        assert not np.array_equal(pictures[0], pictures[1])
        assert not np.array_equal(pictures[1], pictures[2])
        far = replace(cell, input_box=torch.tensor([-1e9, math.nan, math.inf, 1e9]))
        assert all(side > 0 for side in draw_cell(trace, far, 3).shape)


def test_nothing_outside_the_receptive_field_has_influence() -> None:
    inference = Inference(TorchNetwork(small_net(), torch.device("cpu"), alone=True), Preprocess((64, 96)))
    trace = follow(inference, PICTURE, LIMITS)
    place = Place(0, 0, 8, 12)
    sight = look(inference, trace, place, 0)
    rows, columns = np.nonzero(sight.influence)
    assert sight.receptive == summarise(inference.detector, (64, 96))[2].receptive == 7
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (7, 7)
    assert abs(rows.mean() + 0.5 - sight.centre[1]) <= 4
    assert 0 < sight.sides[0] <= sight.sides[1] <= 2 * 7
    assert sight.influence.max() == 1


def test_grad_cam_by_hand() -> None:
    """The gradient of one cell's score lies in that cell alone: the weights are its derivatives over the map's size."""
    model = small_net()
    inference = Inference(TorchNetwork(model, torch.device("cpu"), alone=True), Preprocess((64, 96)))
    trace = follow(inference, PICTURE, LIMITS)
    sight = look(inference, trace, Place(0, 0, 8, 12), 1)
    features = trace.outputs[1].clone()
    head = next(m for m in inference.detector.graph.layers[2].modules() if isinstance(m, nn.Conv2d))
    raw = trace.maps[0][0, :, 8, 12].double()
    o, c = sigmoid(float(raw[4])), sigmoid(float(raw[6]))
    weight = (o * (1 - o) * c * head.weight[4] + o * c * (1 - c) * head.weight[6])[:, 0, 0].detach()
    cam = (weight[:, None, None] * features[0]).sum(0).clamp(min=0)
    big = torch.nn.functional.interpolate(cam[None, None], (64, 96), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(sight.cam, (big / big.max()).numpy(), atol=1e-4)


def test_the_scales_on_the_way_down() -> None:
    inference, trace = traced("yolite-n")
    found = stages(inference, trace)
    assert [s.stride for s in found] == [2, 4, 8, 16, 32]
    names = [inference.detector.graph.records[s.layer].name for s in found]
    assert names[2:] == ["c3", "c4", "c5"]
    assert [s.activity.shape for s in found] == [(64 // s.stride, 96 // s.stride) for s in found]


# ---- the command -----------------------------------------------------------------------------------------------------


def saved(path: Path, model: Detector, config: dict | None = None, trained: bool = False) -> Path:
    content = describe(
        model, Preprocess(model.fixed_size or (64, 96)), ["block", "disc"], config or {"seed": 0, "imgsz": [64, 96]}
    )
    extra = {"training": {}} if trained else {}
    save_checkpoint(path, {**content, "weights": model.state_dict(), "ema": None, **extra})
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("explain") / "a.ckpt", loud("yolite-n"))


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script).*?</\1>", "", page.read_text(), flags=re.S)))


def test_the_page_shows_the_numbers_of_detect(cli: Cli, shapes: Path, weights: Path, tmp_path: Path) -> None:
    image = shapes.parent / "images" / "val" / "s016.png"
    status, out, err = cli("explain", "--weights", weights, image, "--data", shapes, "--out", tmp_path / "out")
    assert status == 0, err
    page = tmp_path / "out" / "s016.html"
    assert str(page) in out
    cli("detect", "--weights", weights, image, "--json", tmp_path / "d.json", "--out", tmp_path / "d")
    entries = json.loads((tmp_path / "d.json").read_text())["images"][0]["detections"]
    table = re.search(r'<table id="detections">(.*?)</table>', page.read_text(), re.S)
    assert table
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table[1])[1:]]
    assert len(rows) == len(entries) > 5
    for row, entry in zip(rows, entries, strict=True):
        assert row[1] == entry["name"]
        assert float(row[2]) == entry["score"]
        assert [float(v) for v in row[3:7]] == entry["box"]
    text = text_of(page)
    assert "What each object costs" in text
    assert "nan" not in text.lower()
    files = sorted(p.name for p in (tmp_path / "out" / "s016").iterdir())
    assert len(files) == page.read_text().count("data:image/jpeg")
    assert all(f in page.read_text() for f in files)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.read_text())


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_page_of_every_generation(cli: Cli, shapes: Path, tmp_path: Path, name: str) -> None:
    weights = saved(tmp_path / "a.ckpt", loud(name))
    image = shapes.parent / "images" / "val" / "s016.png"
    status, _, err = cli("explain", "--weights", weights, image, "--data", shapes, "--out", tmp_path)
    assert status == 0, err
    text = text_of(tmp_path / "s016.html")
    rule = {"yolov1-tiny": "best_iou", "yolov2-tiny": "best_anchor", "yolov3-tiny": "ratio"}[name]
    assert f"Rule: {rule}" in " ".join(text.split())


def test_a_chosen_cell(cli: Cli, shapes: Path, weights: Path, tmp_path: Path) -> None:
    image = shapes.parent / "images" / "val" / "s016.png"
    status, _, err = cli("explain", "--weights", weights, image, "--out", tmp_path, "--cell", "1,2,3,1")
    assert status == 0, err
    text = " ".join(text_of(tmp_path / "s016.html").split())
    assert "Level 1 (stride 16), row 2, column 3, anchor 1" in text
    assert "No labels were given" in text


@pytest.mark.parametrize(
    ("cell", "words"),
    [("3,0,0", "no level 3: this network has levels 0 to 2"),
     ("0,8,0", "no cell 8,0: level 0 (stride 8) has rows 0 to 7 and columns 0 to 11"),
     ("2,0,3", "no cell 0,3: level 2 (stride 32) has rows 0 to 1 and columns 0 to 2"),
     ("0,0,0,3", "no box 3 in a cell: level 0 (stride 8) has anchors 0 to 2"),
     ("0,0", "give LEVEL,ROW,COLUMN"), ("-1,0,0", "give LEVEL,ROW,COLUMN"), ("a,b,c", "give LEVEL,ROW,COLUMN")],
)  # fmt: skip
def test_cells_that_are_not_there(cli: Cli, shapes: Path, weights: Path, tmp_path: Path, cell: str, words: str) -> None:
    image = shapes.parent / "images" / "val" / "s016.png"
    status, _, err = cli("explain", "--weights", weights, image, "--out", tmp_path / "o", f"--cell={cell}")
    assert status == 2
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_pictures_with_nothing(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    """One pixel, no detection, not in the data, no label, unreadable: said in a line each, and the page is there."""
    quiet = saved(tmp_path / "q.ckpt", make("yolite-n", 2))
    cv2.imwrite(str(tmp_path / "one.png"), np.full((1, 1, 3), 90, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    command = ["explain", "--weights", quiet, tmp_path / "one.png", tmp_path / "bad.png", "--out", tmp_path / "o"]
    status, out, err = cli(*command, "--data", shapes)
    assert status == 0, err
    assert "nothing scores above 0.25" in out
    assert "is not in the data" in err
    assert "bad.png: not a readable image" in err
    text = " ".join(text_of(tmp_path / "o" / "one.html").split())
    assert "Nothing was found" in text
    assert "This picture is not in the data set" in text
    assert "The picture has 1x1 px" in text
    status, _, err = cli("explain", "--weights", quiet, tmp_path / "bad.png", "--out", tmp_path / "o")
    assert status == 2
    assert "none of the 1 files could be read as an image" in err


def test_a_network_that_diverged(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    model = loud("yolite-n")
    for index, value in zip(model.graph.outputs, (1e30, math.nan, 1e4), strict=True):
        for parameter in model.graph.layers[index].parameters():
            nn.init.constant_(parameter, value)
    weights = saved(tmp_path / "a.ckpt", model)
    image = shapes.parent / "images" / "val" / "s016.png"
    status, _, err = cli("explain", "--weights", weights, image, "--data", shapes, "--out", tmp_path)
    assert status == 0, err
    assert "one cell" in text_of(tmp_path / "s016.html") or "One cell" in text_of(tmp_path / "s016.html")


def test_an_empty_label(cli: Cli, shapes: Path, weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder / "train").mkdir(parents=True)
    cv2.imwrite(str(root / "images" / "train" / "e.png"), PICTURE)
    (root / "labels" / "train" / "e.txt").write_text("")
    (root / "data.yaml").write_text("train: images/train\nnames: [block, disc]\n")
    image = root / "images" / "train" / "e.png"
    status, _, err = cli("explain", "--weights", weights, image, "--data", root, "--out", tmp_path / "o")
    assert status == 0, err
    assert "labelled as empty" in text_of(tmp_path / "o" / "e.html")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["a.png", "--batch"], "leave IMAGE and --cell out"), ([], "explain needs IMAGE, or --batch"),
     (["--batch", "train.lr=1"], "explain has no use for train.lr"), (["gone.png"], "gone.png does not exist"),
     (["0"], "explain shows single pictures, and camera 0 is none")],
)  # fmt: skip
def test_what_does_not_go_together(cli: Cli, weights: Path, tmp_path: Path, words: list[str], complaint: str) -> None:
    status, _, err = cli("explain", "--weights", weights, *words, "--out", tmp_path / "o")
    assert status == 2
    assert complaint in err
    assert err.count("\n") == 1


def test_a_training_batch(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    config = {"loss": {"assign": {"ratio": 1.3}}, "augment": {"mosaic": 1.0}, "imgsz": [64, 96]}
    weights = saved(tmp_path / "a.ckpt", loud("yolite-n"), config, trained=True)
    command = ["explain", "--weights", weights, "--batch", "--data", shapes, "train.batch=4", "--out", tmp_path / "o"]
    status, out, err = cli(*command)
    assert status == 0, err
    found = re.search(r"4 pictures, (\d+) objects, (\d+) positives, (\d+) objects without a positive", out)
    assert found
    assert int(found[3]) > 0
    page = tmp_path / "o" / "batch.html"
    text = " ".join(text_of(page).split())
    assert f"{found[3]} objects have no positive" in text
    assert text.count("1.3 is too much") == int(found[3])
    assert "mosaic 1" in text
    assert page.read_text().count("data:image/jpeg") == 4
    assert len(list((tmp_path / "o" / "batch").iterdir())) == 4


def test_detections_are_rounded_as_in_the_json() -> None:
    _, trace = traced("yolite-n")
    rows = detections(trace, ["a", "b"])
    assert [row["score"] for row in rows] == [round(s, 6) for s in trace.found.scores.tolist()]
    assert [row["place"] for row in rows] == [trace.candidates.places[i] for i in trace.candidates.kept.tolist()]
