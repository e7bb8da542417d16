"""YOLOv1, v2 and v3 as configurations: their rules and losses by hand, their networks by the numbers of their files."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.programs.gradients import batch
from yolite.build import build_detector, build_loss, build_specs, fitting_loss, placeholder_anchors
from yolite.codec import decode, encode
from yolite.commands.train import configure
from yolite.errors import UserError
from yolite.inference import Inference, TorchNetwork
from yolite.models.detector import Detector
from yolite.processes import ALONE
from yolite.settings import load_config, make_config
from yolite.structures import HeadSpec, Preprocess, Targets
from yolite.training.assign import assign, by_best_anchor, by_best_iou, reachable
from yolite.training.ema import EMA
from yolite.training.loss import DetectionLoss
from yolite.training.optim import build_optimizer
from yolite.training.parts import class_loss, objectness_loss, prior_loss, small_box_factor, squared_box_loss
from yolite.training.step import Stepper, StepSettings

V1 = HeadSpec(20, ((40.0, 60.0),) * 2, 2, "linear", 1.0, "square", "linear", "linear", "cell")
V2 = HeadSpec(20, ((16.0, 24.0), (40.0, 30.0)), 2, class_code="softmax")
V3 = (HeadSpec(10, ((8.0, 8.0), (12.0, 16.0)), 2), HeadSpec(20, ((24.0, 20.0), (40.0, 50.0)), 2))
SIZE = (60, 40)  # (H, W): three rows and two columns of 20 px


def loss_of(name: str) -> DetectionLoss:
    return build_loss(load_config(name).loss, specs_of(name))


def specs_of(name: str) -> tuple[HeadSpec, ...]:
    return {"yolov1": (V1,), "yolov2": (V2,), "yolov3": V3}[name]


def targets(*rows: tuple[int, int, list[float]], ignore: tuple[int, ...] = ()) -> Targets:
    """Objects from (image, label, box)."""
    return Targets(
        torch.tensor([box for _, _, box in rows]).reshape(-1, 4),
        torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
        torch.tensor([image for image, _, _ in rows], dtype=torch.int64),
        torch.tensor([n in ignore for n in range(len(rows))], dtype=torch.bool),
    )


def maps_of(specs: tuple[HeadSpec, ...], images: int = 1, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, s.channels, SIZE[0] // s.stride, SIZE[1] // s.stride, generator=g, dtype=torch.float64)
        for s in specs
    ]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


# ---- whole losses, worked out cell by cell in plain Python ---------------------------------------------------------


def test_the_loss_of_yolov1_by_hand() -> None:
    """arXiv 1506.02640, eq. 3, term by term over a grid of 3 x 2 cells with two boxes each."""
    box = (4.0, 22.0, 24.0, 46.0)  # centre (14, 34): row 1, column 0; 20 x 24 px
    raw = maps_of((V1,))[0] * 0.3 + 0.6
    out = loss_of("yolov1")([raw], targets((0, 1, list(box))), [V1])
    wanted = {"box": 0.0, "objectness": 0.0, "classes": 0.0}
    for row in range(3):
        for column in range(2):
            v = raw[0, :, row, column].tolist()
            overlaps = []
            for b in (0, 1):
                x, y, w, h = v[5 * b : 5 * b + 4]
                cx, cy, w, h = (column + x) * 20, (row + y) * 20, 40 * w * w, 60 * h * h
                overlaps.append(iou((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), box))
            for b in (0, 1):
                confidence = v[5 * b + 4]
                if (row, column) == (1, 0) and b == overlaps.index(max(overlaps)):
                    assert overlaps[b] > 0
                    x, y, w, h = v[5 * b : 5 * b + 4]
                    wanted["box"] += 5 * ((x - 14 / 20) ** 2 + (y - (34 / 20 - 1)) ** 2)
                    wanted["box"] += 5 * ((w - math.sqrt(20 / 40)) ** 2 + (h - math.sqrt(24 / 60)) ** 2)
                    wanted["objectness"] += (confidence - overlaps[b]) ** 2
                    wanted["classes"] += v[10] ** 2 + (v[11] - 1) ** 2
                else:
                    wanted["objectness"] += 0.5 * confidence**2
    for part, value in wanted.items():
        assert out.parts[part].item() == pytest.approx(value, rel=1e-5), part


@pytest.mark.parametrize("seen", [0, 12_799, 12_800])
def test_the_loss_of_yolov2_by_hand(seen: int) -> None:
    """numbers of yolov2.cfg: object 5, no object 1, coordinates 1, classes 1; above an IoU of 0.6 no background."""
    box = (4.0, 22.0, 24.0, 46.0)  # 20 x 24: more like anchor 0, 16 x 24
    raw = maps_of((V2,))[0] * 0.5
    # anchor 1 of the same cell lies on the object
    at = torch.tensor([1]), torch.tensor([1]), torch.tensor([0])
    raw[0, 7:11, 1, 0] = encode(torch.tensor([box], dtype=torch.float64), V2, *at)[0] + 0.05
    out = loss_of("yolov2")([raw], targets((0, 1, list(box))), [V2], seen=seen)
    wanted = {"box": 0.0, "objectness": 0.0, "classes": 0.0}
    ignored = 0
    for a, (aw, ah) in enumerate(V2.anchors):
        for row in range(3):
            for column in range(2):
                tx, ty, tw, th, to, c0, c1 = raw[0, 7 * a : 7 * a + 7, row, column].tolist()
                cx, cy = (column + sigmoid(tx)) * 20, (row + sigmoid(ty)) * 20
                w, h = aw * math.exp(tw), ah * math.exp(th)
                overlap = iou((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), box)
                if (a, row, column) == (0, 1, 0):
                    wanted["box"] += (sigmoid(tx) - 0.7) ** 2 + (sigmoid(ty) - 0.7) ** 2
                    wanted["box"] += (tw - math.log(20 / 16)) ** 2 + (th - math.log(24 / 24)) ** 2
                    wanted["objectness"] += 5 * (sigmoid(to) - overlap) ** 2
                    wanted["classes"] += -math.log(math.exp(c1) / (math.exp(c0) + math.exp(c1)))
                    continue
                if overlap <= 0.6:
                    wanted["objectness"] += sigmoid(to) ** 2
                else:
                    ignored += 1
                if seen < 12_800:
                    pull = (sigmoid(tx) - 0.5) ** 2 + (sigmoid(ty) - 0.5) ** 2 + tw**2 + th**2
                    wanted["box"] += 0.01 * pull
    assert ignored == 1
    for part, value in wanted.items():
        assert out.parts[part].item() == pytest.approx(value, rel=1e-5), part


def test_the_loss_of_yolov3_by_hand() -> None:
    """The best of all levels' anchors aims at one; logistic classes; coordinates times 2 - w·h."""
    box = (4.0, 22.0, 24.0, 46.0)  # 20 x 24, most like 24 x 20 of the coarse level
    raw = [m * 0.5 for m in maps_of(V3)]
    out = loss_of("yolov3")(raw, targets((0, 1, list(box))), V3)
    wanted = {"box": 0.0, "objectness": 0.0, "classes": 0.0}
    for level, spec in enumerate(V3):
        for a, (aw, ah) in enumerate(spec.anchors):
            for row in range(raw[level].shape[2]):
                for column in range(raw[level].shape[3]):
                    tx, ty, tw, th, to, c0, c1 = raw[level][0, 7 * a : 7 * a + 7, row, column].tolist()
                    s, w, h = spec.stride, aw * math.exp(tw), ah * math.exp(th)
                    cx, cy = (column + sigmoid(tx)) * s, (row + sigmoid(ty)) * s
                    if (level, a, row, column) == (1, 0, 1, 0):
                        factor = 2 - 20 * 24 / (60 * 40)
                        place = (sigmoid(tx) - 0.7) ** 2 + (sigmoid(ty) - 0.7) ** 2
                        shape = (tw - math.log(20 / 24)) ** 2 + (th - math.log(24 / 20)) ** 2
                        wanted["box"] += factor * (place + shape)
                        wanted["objectness"] += -math.log(sigmoid(to))
                        wanted["classes"] += -math.log(1 - sigmoid(c0)) - math.log(sigmoid(c1))
                    elif iou((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), box) <= 0.7:
                        wanted["objectness"] += -math.log(1 - sigmoid(to))
    for part, value in wanted.items():
        assert out.parts[part].item() == pytest.approx(value, rel=1e-5), part


# ---- parts ---------------------------------------------------------------------------------------------------------


def test_squared_errors_by_hand() -> None:
    at = torch.tensor([1]), torch.tensor([1]), torch.tensor([0])
    box = torch.tensor([[4.0, 22.0, 24.0, 46.0]])
    t = torch.tensor([[0.2, -1.0, 0.3, 0.9]])
    v1 = (0.2 - 0.7) ** 2 + (-1 - 0.7) ** 2 + (0.3 - math.sqrt(0.5)) ** 2 + (0.9 - math.sqrt(0.4)) ** 2
    assert squared_box_loss(t, box, V1, *at).item() == pytest.approx(v1)
    free = HeadSpec(20, ((16.0, 24.0), (40.0, 30.0)), 2, xy="free")
    offsets = (0.2 - (14 - 10) / 40) ** 2 + (-1 - (34 - 30) / 30) ** 2
    sides = (0.3 - math.log(20 / 40)) ** 2 + (0.9 - math.log(24 / 30)) ** 2
    assert squared_box_loss(t, box, free, *at).item() == pytest.approx(offsets + sides)


def test_small_boxes_weigh_more() -> None:
    boxes = torch.tensor([[0.0, 0.0, 40.0, 60.0], [10.0, 10.0, 20.0, 22.0]])
    assert small_box_factor(boxes, SIZE).tolist() == pytest.approx([1, 2 - 120 / 2400])


@pytest.mark.parametrize(("spec", "prior"), [(V2, (0.5, 0.5, 0, 0)), (V1, (0.5, 0.5, 1, 1)),
                                             (HeadSpec(8, ((9.0, 5.0),), 1, xy="free"), (0, 0, 0, 0))])  # fmt: skip
def test_the_pull_to_the_anchors_by_hand(spec: HeadSpec, prior: tuple[float, ...]) -> None:
    t = torch.tensor([[0.3, -0.2, 0.5, 1.5], [1.0, 2.0, -1.0, 0.0]])
    code = t.clone()
    if spec.xy == "sigmoid":
        code[:, :2] = torch.tensor([[sigmoid(x) for x in row[:2]] for row in t.tolist()])
    assert prior_loss(t, spec).item() == pytest.approx((code - torch.tensor(prior)).square().sum().item(), rel=1e-5)


def test_squared_objectness_and_classes_by_hand() -> None:
    raw, target, weight = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.7, 0.0, 0.0]), torch.tensor([5.0, 1.0, 0.0])
    got = objectness_loss(raw, target, weight, "squared").item()
    assert got == pytest.approx(5 * (sigmoid(0.3) - 0.7) ** 2 + sigmoid(-1) ** 2)
    got = objectness_loss(raw, target, weight, "squared", "linear").item()
    assert got == pytest.approx(5 * (0.3 - 0.7) ** 2 + 1)
    numbers, labels = torch.tensor([[0.5, -0.5], [2.0, 1.0]]), torch.tensor([1, 0])
    assert class_loss(numbers, labels, V1, kind="squared").item() == pytest.approx(0.25 + 2.25 + 1 + 1)
    assert class_loss(numbers, labels, V1, 0.0, (0.5, 3.0), "squared").item() == pytest.approx(3 * 2.5 + 0.5 * 2)
    p = sigmoid(1.0)  # softmax of two numbers that differ by one
    got = class_loss(numbers, labels, V2, kind="squared").item()
    assert got == pytest.approx(2 * p**2 + 2 * (1 - p) ** 2)


@pytest.mark.parametrize("name", ["yolov1", "yolov2", "yolov3"])
def test_gradcheck(name: str) -> None:
    """In float64 through the whole loss; a confidence that aims at an IoU is held constant in the backward pass."""
    loss, specs = replace(loss_of(name), objectness_target="one", ignore_iou=1.0), specs_of(name)[-1:]
    objects = targets((0, 1, [4.0, 22.0, 24.0, 46.0]), (0, 0, [20.0, 0.0, 40.0, 30.0]))
    maps = [m.requires_grad_() for m in maps_of(specs)]
    assert torch.autograd.gradcheck(lambda *m: loss(m, objects, specs, seen=0).total, maps)


def test_a_cross_entropy_of_plain_numbers_is_refused() -> None:
    config = make_config({"loss": {"objectness_by": "squared"}})
    with pytest.raises(UserError, match=r"loss\.classes_by is cross_entropy.*give squared"):
        build_loss(config.loss, (V1,))
    assert build_loss(config.loss, V3).objectness_by == "squared"


# ---- who answers for whom ------------------------------------------------------------------------------------------


def test_the_anchors_of_all_levels_compete() -> None:
    objects = targets((0, 0, [4.0, 22.0, 24.0, 46.0]), (1, 1, [11.0, 1.0, 18.0, 9.0]), (1, 0, [1.0, 2.0, 38.0, 58.0]))
    fine, coarse = by_best_anchor(objects, V3, [(6, 4), (3, 2)])
    fields = ("image", "anchor", "row", "column", "target")
    assert [getattr(fine, name).tolist() for name in fields] == [[1], [0], [0], [1], [1]]
    assert coarse.target.tolist() == [0, 2]
    assert coarse.anchor.tolist() == [0, 1]
    assert (coarse.row.tolist(), coarse.column.tolist()) == ([1, 1], [0, 0])


def test_one_prediction_serves_one_object() -> None:
    """The second object of the same anchor and cell is left out, one that wants another anchor is not; crowds are."""
    objects = targets((0, 0, [2.0, 2.0, 18.0, 26.0]), (0, 1, [3.0, 2.0, 19.0, 27.0]), (0, 1, [0.0, 0.0, 39.0, 30.0]),
                      (0, 1, [20.0, 40.0, 40.0, 60.0]), ignore=(3,))  # fmt: skip
    (found,) = by_best_anchor(objects, (V2,), [(3, 2)])
    assert found.target.tolist() == [0, 2]
    one = by_best_iou(objects, V1, (3, 2), None)
    assert one.target.tolist() == [0], "a cell of YOLOv1 has one object"
    assert reachable(objects, (V2,), SIZE, "best_anchor") == 2
    assert reachable(objects, (V1,), SIZE, "best_iou") == 1


def test_the_box_with_the_highest_present_iou_is_responsible() -> None:
    box = [4.0, 22.0, 24.0, 46.0]
    boxes = torch.zeros(1, 2, 3, 2, 4)
    boxes[0, :, 1, 0] = torch.tensor([[4.0, 22.0, 24.0, 30.0], [4.0, 22.0, 24.0, 40.0]])
    objects = targets((0, 1, box))
    assert by_best_iou(objects, V1, (3, 2), boxes).anchor.tolist() == [1]
    assert by_best_iou(objects, V1, (3, 2), boxes.flip(1)).anchor.tolist() == [0]
    boxes[0, :, 1, 0] = torch.tensor([[0.0, 0.0, 1.0, 1.0], [24.0, 46.0, 30.0, 50.0]])
    assert by_best_iou(objects, V1, (3, 2), boxes).anchor.tolist() == [1], "none overlaps: the nearer one"


@pytest.mark.parametrize("name", ["yolov1", "yolov2", "yolov3"])
def test_the_positives_are_known_before_the_network_has_answered(name: str) -> None:
    g = torch.Generator().manual_seed(1)
    low = torch.rand(30, 2, generator=g) * torch.tensor([25.0, 40.0])
    boxes = torch.cat((low, low + 3 + 12 * torch.rand(30, 2, generator=g)), 1)
    objects = targets(*((n % 3, n % 2, box) for n, box in enumerate(boxes.tolist())), ignore=(4, 5))
    loss, specs = loss_of(name), specs_of(name)
    for seed in (0, 1):
        out = loss(maps_of(specs, 3, seed), objects, specs)
        counts = loss.count(objects, specs, SIZE)
        assert out.positives == int(counts.sum()) < 28
    grids = [(SIZE[0] // s.stride, SIZE[1] // s.stride) for s in specs]
    boxes = [decode(m, spec).boxes for m, spec in zip(maps_of(specs, 3), specs, strict=True)]
    found = assign(objects, specs, grids, loss.rule, boxes=boxes)
    labels = torch.cat([objects.labels[level.target] for level in found])
    assert counts.tolist() == torch.bincount(labels, minlength=2).tolist()


@pytest.mark.parametrize("name", ["yolov1", "yolov2", "yolov3"])
def test_no_object_at_all(name: str) -> None:
    specs = specs_of(name)
    maps = [m.requires_grad_() for m in maps_of(specs, 2)]
    out = loss_of(name)(maps, targets(), specs)
    out.total.backward()
    assert out.positives == 0
    assert out.parts["classes"].item() == out.parts["box"].item() == 0
    assert math.isfinite(out.total.item())
    assert all(bool(m.grad.isfinite().all()) for m in maps)


# ---- the networks --------------------------------------------------------------------------------------------------

COUNTS = {
    "yolov1": [9536, 110976, 24832, 295424, 66048, 1180672, *[131584, 1180672] * 4, 263168, 4720640, 525312, 4720640,
               525312, 4720640, 9439232, 9439232, 9439232, 9439232, 115618048, 21514675],
    "yolov1-tiny": [464, 4672, 18560, 73984, 295424, 1180672, 4720640, 2359808, 18441150],
    "yolov2": [928, 18560, 73984, 8320, 73984, 295424, 33024, 295424, 1180672, 131584, 1180672, 131584, 1180672,
               4720640, 525312, 4720640, 525312, 4720640, 9439232, 9439232, 32896, 11798528, 435625],
    "yolov2-tiny": [464, 4672, 18560, 73984, 295424, 1180672, 4720640, 4719616, 218025],
    "yolov3": [928, 18560, 2112, 18560, 73984, *[8320, 73984] * 2, 295424, *[33024, 295424] * 8, 1180672,
               *[131584, 1180672] * 8, 4720640, *[525312, 4720640] * 4, *[525312, 4720640] * 3, 131584, 197120, 1180672,
               131584, 1180672, 131584, 1180672, 33024, 49408, 295424, 33024, 295424, 33024, 295424, 65535, 130815,
               261375],
    "yolov3-tiny": [464, 4672, 18560, 73984, 295424, 1180672, 4720640, 262656, 1180672, 33024, 885248, 65535, 130815],
}  # fmt: skip
"""Learned numbers of each layer of Darknet's files that has any (of YOLOv3 the heads last, the finest first)."""
CLASSES = {"yolov1": 20, "yolov2": 80, "yolov3": 80}


def make(name: str, classes: int, *words: str) -> Detector:
    config = load_config(name, words=words)
    return build_detector(config, classes, placeholder_anchors(config.model))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_of_the_file_layer_for_layer(name: str) -> None:
    with torch.device("meta"):
        model = make(name, CLASSES[name.removesuffix("-tiny")])
    assert [n for layer in model.graph.layers if (n := sum(p.numel() for p in layer.parameters()))] == COUNTS[name]


@pytest.mark.parametrize("name", ["yolov1-tiny", "yolov2-tiny", "yolov3-tiny", "yolov2", "yolov3"])
def test_every_parameter_learns(name: str) -> None:
    """At a small width; a fully convolutional one at a size that is not square."""
    model = make(name, 3, "model.width=0.0625")
    size = model.fixed_size or (64, 96)
    maps = model(torch.rand(2, 3, *size))
    specs = model.specs
    assert [tuple(m.shape) for m in maps] == [(2, s.channels, size[0] // s.stride, size[1] // s.stride) for s in specs]
    sum(m.square().mean() for m in maps).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", ["yolov1-tiny", "yolov2-tiny", "yolov3-tiny"])
def test_a_batch_in_two_parts_has_the_same_gradient(name: str) -> None:
    """What the sums are divided by is that of the whole batch (without BN, which sees the parts)."""
    model = make(name, 3, "model.width=0.0625").eval()  # BN as it is
    size = model.fixed_size or (64, 96)
    loss = build_loss(load_config(name).loss, model.specs)
    found = []
    for parts in (((1, 2, 3, 4),), ((1, 2), (3, 4))):
        optimizer = build_optimizer(model, "sgd", 0.1, 0.0, 0.0)
        step = Stepper(model, Preprocess(size), loss, optimizer, EMA(model, 0.9), StepSettings(), ALONE)
        report = step([batch(list(part)) for part in parts], 0.0, size)
        assert report.bad is None
        found.append((report.values["total"], [p.grad.clone() for p in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_fully_connected_network_has_one_input_size() -> None:
    with pytest.raises(UserError, match="input size is fixed to 448x448, and cannot be 320x320: leave imgsz out"):
        make("yolov1-tiny", 3, "model.width=0.0625", "imgsz=320")
    model = make("yolov1-tiny", 3, "model.width=0.0625")
    with pytest.raises(UserError, match="fixed to 448x448"):
        Inference(TorchNetwork(model, torch.device("cpu")), Preprocess((448, 320)))
    assert make("yolov2-tiny", 3, "model.width=0.0625").fixed_size is None


@pytest.mark.parametrize(
    "name", ["yolov1", "yolov1-tiny", "yolov2", "yolov2-tiny", "yolov3", "yolov3-tiny", "yolite-n"]
)
def test_the_loss_that_fits_a_head_is_that_of_its_generation_but_yolites_for_v3(name: str) -> None:
    config = load_config(name)
    specs = build_specs(config.model, 3, placeholder_anchors(config.model))
    expected = load_config("yolite-n").loss if name.startswith("yolov3") else config.loss
    assert make_config({"loss": fitting_loss(specs)}).loss == expected


@pytest.mark.parametrize("name", ["yolov1-tiny", "yolov2-tiny"])
def test_trained_resumed_judged_and_used_like_any_model(
    name: str, cli: Callable[..., tuple[int, str, str]], shapes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    size = [] if name == "yolov1-tiny" else ["--imgsz", "64"]
    status, _, err = cli("train", "--model", name, "--data", shapes, "--epochs", "1", "--batch", "8", "--out", run,
                         *size, "model.width=0.0625", "data.workers=0")  # fmt: skip
    assert status == 0, err
    assert cli("train", "--resume", run, "--epochs", "2", "--accept", "train.epochs")[0] == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    picture = next((shapes.parent / "images" / "val").iterdir())
    assert cli("detect", "--weights", run, picture, "--conf", "0", "--out", tmp_path / "d")[0] == 0
    status, _, err = cli("evaluate", "--weights", run, "--data", shapes, "--imgsz", "96")
    assert status == (2 if name == "yolov1-tiny" else 0)
    if status:
        assert "imgsz 96x96" in err
        assert "takes 448x448 alone, as it has fully connected layers: leave imgsz out" in err
        for verb in (("export", "--format", "torchexport"), ("bench",)):
            status, _, err = cli(*verb, "--weights", run, "--data", shapes, "--imgsz", "96")
            assert status == 2, verb
            assert "fixed to 448x448, and cannot be 96x96" in err
    fine_tuned = configure(None, None, {"weights": str(run)}, [])
    assert fine_tuned.loss == load_config(name).loss, "the loss that fits the head"
    assert fine_tuned.model.width == 0.0625
