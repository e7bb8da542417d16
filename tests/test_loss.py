import math
from dataclasses import replace

import pytest
import torch

from yolite.codec import encode
from yolite.structures import HeadSpec, Targets
from yolite.training.assign import by_ratio
from yolite.training.loss import DetectionLoss
from yolite.training.parts import box_loss, class_loss, ignored, objectness_loss

SPEC = HeadSpec(8, ((16.0, 24.0),), 2, grid_scale=2.0, wh="sigmoid_square")
LOSS = DetectionLoss(box=5.0, objectness=1.0, classes=0.5)


def one_target(images: int = 1, ignore: bool = False) -> Targets:
    return Targets(torch.tensor([[10.0, 12.0, 28.0, 34.0]]), torch.tensor([1]), torch.tensor([0]),
                   torch.tensor([ignore]))  # fmt: skip


def none() -> Targets:
    return Targets(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0).bool())


def bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def test_objectness_by_hand() -> None:
    logits, target = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.7, 0.0, 0.0])
    got = objectness_loss(logits, target, torch.tensor([1.0, 1.0, 0.0]))
    assert got.item() == pytest.approx(bce(0.3, 0.7) + bce(-1, 0), abs=1e-6)


def test_classes_by_hand() -> None:
    logits, labels = torch.tensor([[0.5, -0.5]]), torch.tensor([1])
    assert class_loss(logits, labels, SPEC).item() == pytest.approx(bce(0.5, 0) + bce(-0.5, 1), abs=1e-6)
    soft = HeadSpec(8, ((1.0, 1.0),), 2, class_code="softmax")
    p = math.exp(-0.5) / (math.exp(0.5) + math.exp(-0.5))
    assert class_loss(logits, labels, soft).item() == pytest.approx(-math.log(p), abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_by_hand(smoothing: float) -> None:
    """Each positive's whole class loss counts as often as its class weighs, whatever the class code."""
    logits, labels = torch.tensor([[0.5, -0.5], [2.0, 1.0], [0.0, 0.3]]), torch.tensor([1, 0, 1])
    low, high = smoothing / 2, 1 - smoothing / 2
    each = [bce(0.5, low) + bce(-0.5, high), bce(2, high) + bce(1, low), bce(0, low) + bce(0.3, high)]
    got = class_loss(logits, labels, SPEC, smoothing, (0.5, 3.0)).item()
    assert got == pytest.approx(3 * each[0] + 0.5 * each[1] + 3 * each[2], abs=1e-5)
    soft = HeadSpec(8, ((1.0, 1.0),), 2, class_code="softmax")
    logs = [[v - math.log(sum(math.exp(w) for w in row)) for v in row] for row in logits.tolist()]
    each = [-sum((high if c == label else low) * logs[n][c] for c in (0, 1)) for n, label in enumerate(labels.tolist())]
    got = class_loss(logits, labels, soft, smoothing, (0.5, 3.0)).item()
    assert got == pytest.approx(3 * each[0] + 0.5 * each[1] + 3 * each[2], abs=1e-5)


def test_class_weights_touch_the_class_part_alone_and_no_divisor() -> None:
    torch.manual_seed(0)
    raw = torch.randn(2, SPEC.channels, 6, 6)
    plain, weighted = (
        LOSS([raw], one_target(), [SPEC]),
        replace(LOSS, class_weights=(7.0, 3.0))([raw], one_target(), [SPEC]),
    )
    assert weighted.parts["classes"].item() == pytest.approx(3 * plain.parts["classes"].item(), rel=1e-6)
    for part in ("box", "objectness"):
        assert weighted.parts[part] == plain.parts[part]
    assert weighted.positives == plain.positives
    ones = replace(LOSS, class_weights=(1.0, 1.0))([raw], one_target(), [SPEC])
    assert ones.total.item() == pytest.approx(plain.total.item(), rel=1e-6)


@pytest.mark.parametrize("code", ["sigmoid", "softmax"])
def test_gradcheck_of_weighted_classes(code: str) -> None:
    spec = HeadSpec(8, ((1.0, 1.0),), 3, class_code=code)
    logits, labels = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.tensor([0, 2, 2, 1, 0])
    assert torch.autograd.gradcheck(lambda x: class_loss(x, labels, spec, 0.1, (0.3, 2.0, 0.7)), logits)


def test_no_positive_has_no_weighted_class_loss() -> None:
    out = replace(LOSS, class_weights=(7.0, 3.0))([torch.zeros(1, SPEC.channels, 3, 3)], none(), [SPEC])
    assert out.parts["classes"].item() == 0


def test_parts_add_up_and_carry_their_weights() -> None:
    torch.manual_seed(0)
    raw = torch.randn(2, SPEC.channels, 6, 6)
    out = LOSS([raw], one_target(), [SPEC])
    assert out.total.item() == pytest.approx(sum(float(v) for v in out.parts.values()), rel=1e-6)
    double = DetectionLoss(box=10.0, objectness=1.0, classes=0.5)([raw], one_target(), [SPEC])
    assert double.parts["box"].item() == pytest.approx(2 * out.parts["box"].item(), rel=1e-6)
    assert double.parts["objectness"].item() == out.parts["objectness"].item()


def test_a_perfect_answer_costs_next_to_nothing() -> None:
    targets = one_target()
    found = by_ratio(targets, SPEC, (6, 6))
    raw = torch.full((1, SPEC.channels, 6, 6), -12.0)
    wanted = encode(targets.boxes[found.target], SPEC, found.anchor, found.row, found.column)
    for n in range(len(found.target)):
        raw[0, :4, found.row[n], found.column[n]] = wanted[n]
        raw[0, 4:, found.row[n], found.column[n]] = torch.tensor([12.0, -12.0, 12.0])
    out = LOSS([raw], targets, [SPEC])
    assert out.positives == len(found.target) == 3
    assert out.total.item() < 0.01


def test_negatives_count_with_full_weight() -> None:
    """No object: the loss is that of every prediction being called background, over one positive an image."""
    raw = torch.full((2, SPEC.channels, 3, 4), 0.4)
    out = LOSS([raw], none(), [SPEC])
    assert out.positives == 0
    assert out.total.item() == pytest.approx(2 * 12 * bce(0.4, 0) / 2, rel=1e-5)


@pytest.mark.parametrize("targets", [none(), one_target(2)], ids=["no object", "half the batch empty"])
def test_batches_without_objects_train(targets: Targets) -> None:
    torch.manual_seed(0)
    raw = torch.randn(2, SPEC.channels, 6, 6, requires_grad=True)
    out = LOSS([raw], targets, [SPEC])
    out.total.backward()
    assert torch.isfinite(out.total)
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad[1, 4] != 0).all(), "every prediction of the empty picture learns that it is background"


def test_predictions_on_an_object_are_not_background() -> None:
    """A negative whose box lies on the object is left alone; switched off, it is punished."""
    targets = one_target()
    found = by_ratio(targets, SPEC, (6, 6))
    cells = set(zip(found.row.tolist(), found.column.tolist(), strict=True))
    row, column = next((r, c) for r in range(1, 5) for c in range(1, 5) if (r, c) not in cells and
                       abs(8 * (r + 0.5) - 23) < 10 and abs(8 * (c + 0.5) - 19) < 10)  # fmt: skip
    raw = torch.zeros(1, SPEC.channels, 6, 6)
    at = (torch.tensor([0]), torch.tensor([row]), torch.tensor([column]))
    raw[0, :4, row, column] = encode(targets.boxes, SPEC, *at)[0]
    raw.requires_grad_()
    LOSS([raw], targets, [SPEC]).total.backward()
    assert raw.grad[0, 4, row, column] == 0
    raw.grad = None
    DetectionLoss(5.0, 1.0, 0.5, ignore_iou=1.0)([raw], targets, [SPEC]).total.backward()
    assert raw.grad[0, 4, row, column] > 0


def test_ignored_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [40.0, 40.0, 50.0, 50.0]]])
    real = Targets(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([0]), torch.tensor([0]), torch.tensor([False]))
    assert ignored(boxes, real, 0.6).tolist() == [[True, False, False]]
    crowd = Targets(torch.tensor([[0.0, 0.0, 100.0, 20.0]]), torch.tensor([0]), torch.tensor([0]), torch.tensor([True]))
    assert ignored(boxes, crowd, 0.6).tolist() == [[True, True, False]]


def test_confidence_aims_at_the_iou() -> None:
    """At a positive the objectness gradient vanishes when σ(t) equals the box's IoU."""
    targets = one_target()
    raw = torch.zeros(1, SPEC.channels, 6, 6, requires_grad=True)
    LOSS([raw], targets, [SPEC]).total.backward()
    found = by_ratio(targets, SPEC, (6, 6))
    r, c = int(found.row[0]), int(found.column[0])
    from yolite.boxes import matched_iou
    from yolite.codec import decode

    iou = matched_iou(decode(raw.detach(), SPEC).boxes[0, 0, r, c][None], targets.boxes).item()
    assert raw.grad[0, 4, r, c].item() == pytest.approx((0.5 - iou) / 3, abs=1e-6)


def test_an_easy_target_of_another_class_changes_the_class_part() -> None:
    raw = torch.zeros(1, SPEC.channels, 6, 6)
    raw[0, 6] = 5.0  # says class 1 everywhere
    right = LOSS([raw], one_target(), [SPEC]).parts["classes"]
    other = Targets(one_target().boxes, torch.tensor([0]), torch.tensor([0]), torch.tensor([False]))
    wrong = LOSS([raw], other, [SPEC]).parts["classes"]
    assert wrong > right + 2


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
def test_gradcheck_of_the_box_part(kind: str) -> None:
    # CIoU holds α constant in the backward pass by definition; its gradient is compared with torchvision's.
    predicted = torch.tensor([[1.0, 2.0, 9.0, 7.0], [0.0, 0.0, 4.0, 9.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[2.0, 1.0, 8.5, 9.0], [1.0, 3.0, 6.0, 8.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: box_loss(p, target, kind), predicted)


@pytest.mark.parametrize("wh", ["exp", "sigmoid_square"])
def test_gradcheck_from_raw_numbers_to_box_and_class_loss(wh: str) -> None:
    """Through decoding, in float64: the gradient that reaches the network is that of the formula."""
    spec = HeadSpec(8, ((16.0, 24.0),), 2, grid_scale=2.0, wh=wh)
    loss = DetectionLoss(box=5.0, objectness=0.0, classes=0.5, iou="diou", ignore_iou=1.0)
    targets = Targets(one_target().boxes.double(), *(getattr(one_target(), n) for n in ("labels", "image", "ignore")))
    torch.manual_seed(0)
    raw = torch.randn(1, spec.channels, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: loss([r], targets, [spec]).total, raw)


def test_gradcheck_of_the_objectness_part() -> None:
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    target, weight = torch.rand(6, dtype=torch.float64), torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: objectness_loss(x, target, weight), logits)


def test_not_a_number_is_not_hidden() -> None:
    raw = torch.zeros(1, SPEC.channels, 6, 6)
    raw[0, 0] = float("nan")
    assert torch.isnan(LOSS([raw], one_target(), [SPEC]).total)
