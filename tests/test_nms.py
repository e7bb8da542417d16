import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from yolite.nms import hard_nms


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
