from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from yolite.boxes import matched_iou
from yolite.defaults import NMS
from yolite.nms import Method, hard_nms, suppress


def crowd(n: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=g) * 200
    boxes = torch.cat((low, low + 5 + torch.rand(n, 2, generator=g) * 60), 1)
    return boxes, torch.rand(n, generator=g), torch.randint(classes, (n,), generator=g)


def plain_nms(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, iou: float) -> list[int]:
    """The definition, box by box."""
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        overlaps = [box_iou(boxes[i : i + 1].double(), boxes[j : j + 1].double()).item() for j in kept
                    if labels[i] == labels[j]]  # fmt: skip
        if all(o <= iou for o in overlaps):
            kept.append(i)
    return kept


@settings(max_examples=20)
@given(st.integers(0, 120), st.integers(1, 4), st.integers(0, 99), st.floats(0.05, 0.95))
def test_equals_the_definition(n: int, classes: int, seed: int, iou: float) -> None:
    boxes, scores, labels = crowd(n, classes, seed)
    kept, capped = hard_nms(boxes, scores, labels, iou, max_det=1000)
    assert kept.tolist() == plain_nms(boxes, scores, labels, iou)
    assert not capped


def test_equals_torchvision_on_many_boxes() -> None:
    boxes, scores, labels = crowd(20000, 5, 3)
    kept, capped = hard_nms(boxes, scores, labels, 0.5, 300)
    assert kept.tolist() == batched_nms(boxes.double(), scores.double(), labels, 0.5)[:300].tolist()
    assert capped


def test_looks_past_the_first_candidates() -> None:
    """5000 copies of one box stand before the second object: no shortcut may lose it."""
    one = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(5000, 1)
    boxes = torch.cat((one, torch.tensor([[50.0, 50.0, 60.0, 60.0]])))
    scores = torch.linspace(1, 0.5, 5001)
    kept, _ = hard_nms(boxes, scores, torch.zeros(5001, dtype=torch.int64), 0.5, 2)
    assert kept.tolist() == [0, 5000]


def test_a_pair_at_exactly_the_threshold_stays() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [0.0, 0.0, 4.0, 1.0]])  # IoU exactly 0.5
    scores, labels = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64)
    assert hard_nms(boxes, scores, labels, 0.5, 10)[0].tolist() == [0, 1]
    assert hard_nms(boxes, scores, labels, 0.499, 10)[0].tolist() == [0]


def test_classes_do_not_suppress_each_other_unless_told() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0]] * 2)
    scores, labels = torch.tensor([0.8, 0.9]), torch.tensor([0, 1])
    assert hard_nms(boxes, scores, labels, 0.5, 10)[0].tolist() == [1, 0]
    assert hard_nms(boxes, scores, labels, 0.5, 10, class_wise=False)[0].tolist() == [1]


@pytest.mark.parametrize("most", [1, 5])
def test_the_cap_is_said(most: int) -> None:
    boxes, scores, labels = crowd(100, 1, 0)
    kept, capped = hard_nms(boxes, scores, labels, 0.5, most)
    assert len(kept) == most
    assert capped


def test_empty() -> None:
    kept, capped = hard_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5, 10)
    assert kept.tolist() == []
    assert not capped


# ---- the other variants ------------------------------------------------------------------------------------------


def test_the_command_line_offers_every_method() -> None:
    assert get_args(Method) == NMS


# One row, all 12 high, from x to x + 12: neighbours shifted by 4 overlap by 8 / 16, those shifted by 8 by 4 / 20.
ROW = torch.tensor([[0.0, 0.0, 12.0, 12.0], [4.0, 0.0, 16.0, 12.0], [8.0, 0.0, 20.0, 12.0]])
SAME = torch.zeros(3, dtype=torch.int64)


def test_soft_nms_by_hand() -> None:
    """0.9 is first; it lowers 0.8 to 0.8 (1 - 9/15) = 0.32, not 0.7 (4/20); 0.7 lowers that to 0.32 (1 - 7/17)."""
    boxes = torch.tensor([[0.0, 0.0, 12.0, 12.0], [3.0, 0.0, 15.0, 12.0], [8.0, 0.0, 20.0, 12.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    found = suppress(boxes, scores, SAME, 0.3, 10, "soft", 0.1)
    assert found.boxes[:, 0].tolist() == [0, 8, 3]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.32 * 10 / 17])
    below = suppress(boxes, scores, SAME, 0.3, 10, "soft", 0.19)
    assert len(below.scores) == 2, "what is not above conf goes"
    classes = torch.tensor([0, 1, 0])
    apart = suppress(boxes, scores, classes, 0.3, 10, "soft", 0.1)
    assert apart.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert apart.labels.tolist() == [0, 1, 0]


def test_diou_nms_by_hand() -> None:
    """IoU 0.5; centres 4 apart, the enclosing box 16 x 12 with a diagonal of 20: 0.5 - 16 / 400 = 0.46."""
    scores = torch.tensor([0.9, 0.8])
    assert len(suppress(ROW[:2], scores, SAME[:2], 0.47, 10, "diou").scores) == 2
    assert len(suppress(ROW[:2], scores, SAME[:2], 0.47, 10, "hard").scores) == 1
    assert len(suppress(ROW[:2], scores, SAME[:2], 0.459, 10, "diou").scores) == 1


def test_weighted_fusion_by_hand() -> None:
    """0.9 and 0.6 overlap by 0.5: x = (0.9 * 0 + 0.6 * 4) / 1.5 = 1.6, score 0.75; then 5.6 / 18.4."""
    found = suppress(ROW, torch.tensor([0.9, 0.6, 0.3]), SAME, 0.4, 10, "fusion")
    assert torch.allclose(found.boxes, torch.tensor([[1.6, 0.0, 13.6, 12.0], [8.0, 0.0, 20.0, 12.0]]))
    assert found.scores.tolist() == pytest.approx([0.75, 0.3])
    three = suppress(ROW, torch.tensor([0.9, 0.6, 0.3]), SAME, 0.3, 10, "fusion")
    assert three.boxes.tolist() == [pytest.approx([(0.6 * 4 + 0.3 * 8) / 1.8, 0, 12 + 4.8 / 1.8, 12])]
    assert three.scores.tolist() == pytest.approx([0.6])


@settings(max_examples=15)
@given(st.integers(0, 60), st.integers(1, 3), st.integers(0, 99), st.floats(0.05, 0.95))
def test_diou_equals_the_definition(n: int, classes: int, seed: int, iou: float) -> None:
    boxes, scores, labels = crowd(n, classes, seed)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        near = [j for j in kept if labels[i] == labels[j]]
        values = matched_iou(boxes[[i] * len(near)].double(), boxes[near].double(), "diou")
        if not near or values.max() <= iou:
            kept.append(i)
    assert torch.equal(suppress(boxes, scores, labels, iou, 1000, "diou").boxes, boxes[kept])


@pytest.mark.parametrize("method", ["soft", "diou", "fusion"])
def test_every_variant_equals_hard_where_nothing_overlaps(method: Method) -> None:
    """Far apart every variant returns what it was given, best first; and a class of its own is never touched."""
    g = torch.Generator().manual_seed(1)
    low = torch.arange(40.0)[:, None] * torch.tensor([30.0, 0.0]) + torch.rand(40, 2, generator=g)
    boxes, scores = torch.cat((low, low + 20), 1), torch.rand(40, generator=g)
    labels = torch.randint(3, (40,), generator=g)
    hard, other = (suppress(boxes, scores, labels, 0.5, 100, m) for m in ("hard", method))
    assert torch.equal(other.labels, hard.labels)
    assert torch.allclose(other.boxes, hard.boxes)
    assert torch.allclose(other.scores, hard.scores)
    stacked = suppress(boxes[:1].repeat(3, 1), scores[:3], torch.arange(3), 0.5, 100, method)
    assert len(stacked.scores) == 3


@pytest.mark.parametrize("method", NMS)
def test_every_variant_says_its_cap_and_takes_nothing(method: Method) -> None:
    boxes, scores, labels = crowd(100, 2, 0)
    few = suppress(boxes, scores, labels, 0.5, 4, method)
    assert (len(few.scores), few.capped) == (4, True)
    assert few.scores.tolist() == sorted(few.scores.tolist(), reverse=True)
    everything = suppress(boxes, scores, labels, 0.5, 100, method)
    assert not everything.capped
    assert torch.equal(everything.scores[:4], few.scores)
    none = suppress(boxes[:0], scores[:0], labels[:0], 0.5, 4, method)
    assert (none.boxes.shape, none.scores.shape, none.labels.dtype) == ((0, 4), (0,), torch.int64)
