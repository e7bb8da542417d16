import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import ops

from yolite import boxes as bx


def random_boxes(n: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=g, dtype=torch.float64) * 50
    return torch.cat((low, low + 1 + torch.rand(n, 2, generator=g, dtype=torch.float64) * 40), 1)


side = st.floats(0.5, 100)
corner = st.floats(-100, 100)
box = st.tuples(corner, corner, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


def test_formats_by_hand_and_back() -> None:
    xyxy = torch.tensor([[2.0, 3.0, 8.0, 7.0]])
    assert bx.xyxy_to_cxcywh(xyxy).tolist() == [[5, 5, 6, 4]]
    assert bx.xyxy_to_xywh(xyxy).tolist() == [[2, 3, 6, 4]]
    assert torch.equal(bx.cxcywh_to_xyxy(bx.xyxy_to_cxcywh(xyxy)), xyxy)
    assert torch.equal(bx.xywh_to_xyxy(bx.xyxy_to_xywh(xyxy)), xyxy)


def test_area_and_clip_by_hand() -> None:
    b = torch.tensor([[-2.0, 1.0, 5.0, 9.0], [4.0, 4.0, 1.0, 9.0]])
    assert bx.area(b).tolist() == [56.0, 0.0]
    assert bx.clip(b, (6, 4)).tolist() == [[0, 1, 4, 6], [4, 4, 1, 6]]


def test_pairwise_equals_torchvision() -> None:
    a, b = random_boxes(40), random_boxes(30, 1)
    torch.testing.assert_close(bx.pairwise_iou(a, b), ops.box_iou(a, b))


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [
        ("iou", lambda a, b: ops.box_iou(a, b).diagonal()),
        ("giou", lambda a, b: ops.generalized_box_iou(a, b).diagonal()),
        ("diou", lambda a, b: ops.distance_box_iou(a, b).diagonal()),
        ("ciou", lambda a, b: ops.complete_box_iou(a, b).diagonal()),
    ],
)
def test_matched_equals_torchvision(kind: str, oracle) -> None:
    a, b = random_boxes(200), random_boxes(200, 1)
    torch.testing.assert_close(bx.matched_iou(a, b, kind), oracle(a, b), rtol=1e-6, atol=1e-6)


def test_ciou_by_hand_with_half_width_off_centre_box() -> None:
    """A box half as wide as its target and shifted: every term of CIoU is different from zero."""
    a = torch.tensor([[0.0, 0.0, 4.0, 8.0]], dtype=torch.float64)
    b = torch.tensor([[2.0, 2.0, 10.0, 10.0]], dtype=torch.float64)
    iou = (2 * 6) / (32 + 64 - 12)
    distance = (6 - 2) ** 2 + (6 - 4) ** 2
    diagonal = 10**2 + 10**2
    v = 4 / math.pi**2 * (math.atan(1.0) - math.atan(0.5)) ** 2
    alpha = v / (1 - iou + v)
    assert bx.matched_iou(a, b).item() == pytest.approx(iou)
    assert bx.matched_iou(a, b, "giou").item() == pytest.approx(iou - (100 - 84) / 100)
    assert bx.matched_iou(a, b, "diou").item() == pytest.approx(iou - distance / diagonal)
    assert bx.matched_iou(a, b, "ciou").item() == pytest.approx(iou - distance / diagonal - alpha * v)
    assert alpha * v > 0.001


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_gradients_equal_torchvision(kind: str) -> None:
    loss = {"giou": ops.generalized_box_iou_loss, "diou": ops.distance_box_iou_loss, "ciou": ops.complete_box_iou_loss}
    b = random_boxes(50, 1)
    grads = []
    for f in (lambda x: (1 - bx.matched_iou(x, b, kind)).sum(), lambda x: loss[kind](x, b, reduction="sum")):
        a = random_boxes(50).requires_grad_()
        f(a).backward()
        grads.append(a.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-7)


@given(box, box)
def test_iou_is_symmetric_and_bounded(p: list[float], q: list[float]) -> None:
    a, b = torch.tensor([p], dtype=torch.float64), torch.tensor([q], dtype=torch.float64)
    iou = bx.pairwise_iou(a, b)
    assert torch.equal(iou, bx.pairwise_iou(b, a).T)
    assert 0 <= iou.item() <= 1
    assert bx.matched_iou(a, b).item() == iou.item()
    assert bx.matched_iou(a, a).item() == pytest.approx(1)
    assert -1 <= bx.matched_iou(a, b, "giou").item() <= iou.item() + 1e-12
    assert bx.matched_iou(a, b, "ciou").item() <= bx.matched_iou(a, b, "diou").item() <= iou.item()


def test_empty_boxes() -> None:
    none, some = torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 2.0, 3.0]])
    assert bx.pairwise_iou(none, some).shape == (0, 1)
    assert bx.pairwise_iou(some, none).shape == (1, 0)
    assert bx.matched_iou(none, none, "ciou").shape == (0,)
    assert bx.area(none).shape == (0,)
    assert bx.clip(none, (4, 4)).shape == (0, 4)


def test_degenerate_boxes_give_numbers() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    for kind in ("iou", "giou", "diou", "ciou"):
        assert torch.isfinite(bx.matched_iou(point, point, kind)).all()


def test_shape_iou_by_hand() -> None:
    a, b = torch.tensor([[2.0, 4.0]]), torch.tensor([[4.0, 2.0], [2.0, 4.0], [1.0, 2.0]])
    assert bx.shape_iou(a, b)[0].tolist() == pytest.approx([4 / 12, 1, 2 / 8])


def test_overlap_share_by_hand() -> None:
    a, crowd = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[2.0, 0.0, 100.0, 100.0]])
    assert bx.pairwise_overlap_share(a, crowd).item() == 0.5
