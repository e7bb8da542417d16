import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolite.codec import code, decode, decode_at, decode_likely, encode, encode_code, scores, split
from yolite.structures import HeadSpec

VARIANTS = [
    HeadSpec(16, ((30.0, 50.0), (60.0, 20.0)), 3, xy, scale, wh, class_code, objectness, per)
    for xy, scale in (("sigmoid", 1.0), ("sigmoid", 1.05), ("sigmoid", 2.0), ("linear", 1.0), ("free", 1.0))
    for wh in ("exp", "sigmoid_square", "square")
    for class_code, objectness, per in (
        ("sigmoid", "sigmoid", "box"), ("softmax", "sigmoid", "box"), ("linear", "linear", "cell"),
        ("softmax", "sigmoid", "cell"),
    )
]  # fmt: skip


@pytest.mark.parametrize("spec", VARIANTS)
@settings(max_examples=15)
@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.floats(0.3, 3.5), st.floats(0.3, 3.5), st.integers(0, 1))
def test_encode_is_the_inverse_of_decode(spec: HeadSpec, x: float, y: float, w: float, h: float, anchor: int) -> None:
    row, column = 5, 9
    cx, cy = (column + x) * 16, (row + y) * 16
    aw, ah = spec.anchors[anchor]
    box = torch.tensor([[cx - w * aw / 2, cy - h * ah / 2, cx + w * aw / 2, cy + h * ah / 2]], dtype=torch.float64)
    at = (torch.tensor([anchor]), torch.tensor([row]), torch.tensor([column]))
    t = encode(box, spec, *at)
    torch.testing.assert_close(decode_at(t, spec, *at), box, rtol=1e-9, atol=1e-7)


def test_by_hand_yolov3_code() -> None:
    """σ(0) = ½: the centre of cell (column 3, row 2); e^ln2 = 2: twice the anchor's width."""
    spec = HeadSpec(8, ((10.0, 20.0),), 1)
    t = torch.tensor([[0.0, 0.0, math.log(2), 0.0]], dtype=torch.float64)
    box = decode_at(t, spec, torch.tensor([0]), torch.tensor([2]), torch.tensor([3]))
    assert box[0].tolist() == pytest.approx([28 - 10, 20 - 10, 28 + 10, 20 + 10])


def test_by_hand_modern_code() -> None:
    """xy = 2σ − ½ cells, wh = (2σ)² anchors, at σ = ¾ each."""
    spec = HeadSpec(8, ((10.0, 20.0),), 1, grid_scale=2.0, wh="sigmoid_square")
    t = torch.full((1, 4), math.log(3), dtype=torch.float64)
    box = decode_at(t, spec, torch.tensor([0]), torch.tensor([2]), torch.tensor([3]))
    cx, cy, w, h = (3 + 1.0) * 8, (2 + 1.0) * 8, 2.25 * 10, 2.25 * 20
    assert box[0].tolist() == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def test_by_hand_yolov1_code() -> None:
    """Offsets of a cell as they are, the roots of width and height as shares of the input (arXiv 1506.02640)."""
    spec = HeadSpec(64, ((448.0, 320.0),) * 2, 3, "linear", 1.0, "square", "linear", "linear", "cell")
    t = torch.tensor([[0.25, 1.5, 0.5, -0.25]], dtype=torch.float64)
    box = decode_at(t, spec, torch.tensor([1]), torch.tensor([2]), torch.tensor([3]))
    cx, cy, w, h = 3.25 * 64, 3.5 * 64, 0.25 * 448, 0.0625 * 320
    assert box[0].tolist() == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def test_by_hand_free_offsets() -> None:
    """From the middle of cell (column 3, row 2), half an anchor width left and two heights down."""
    spec = HeadSpec(8, ((10.0, 20.0),), 1, xy="free")
    t = torch.tensor([[-0.5, 2.0, 0.0, 0.0]], dtype=torch.float64)
    box = decode_at(t, spec, torch.tensor([0]), torch.tensor([2]), torch.tensor([3]))
    assert box[0].tolist() == pytest.approx([28 - 5 - 5, 20 + 40 - 10, 28 - 5 + 5, 20 + 40 + 10])


@pytest.mark.parametrize("spec", VARIANTS)
def test_the_code_of_a_box_is_what_its_raw_numbers_give(spec: HeadSpec) -> None:
    box, at = torch.tensor([[150.0, 70.0, 170.0, 110.0]], dtype=torch.float64), torch.tensor([[1], [5], [9]])
    torch.testing.assert_close(code(encode(box, spec, *at), spec), encode_code(box, spec, *at), rtol=1e-9, atol=1e-9)


def test_classes_of_a_cell_are_shared_by_its_boxes() -> None:
    """Channels: the fields of box 0, of box 1, then the classes."""
    spec = HeadSpec(8, ((1.0, 1.0), (2.0, 2.0)), 3, classes_per="cell")
    raw = torch.arange(2 * spec.channels * 2 * 4).float().view(2, spec.channels, 2, 4)
    assert spec.channels == 13
    t = split(raw, spec)
    assert t.shape == (2, 2, 2, 4, 8)
    for anchor in (0, 1):
        assert torch.equal(t[1, anchor, 1, 2, :5], raw[1, 5 * anchor : 5 * anchor + 5, 1, 2])
        assert torch.equal(t[1, anchor, 1, 2, 5:], raw[1, 10:, 1, 2])


@pytest.mark.parametrize("spec", VARIANTS)
def test_the_whole_map_and_single_predictions_agree(spec: HeadSpec) -> None:
    torch.manual_seed(0)
    raw = torch.randn(2, spec.channels, 3, 5)
    decoded = decode(raw, spec)
    assert decoded.boxes.shape == (2, 2, 3, 5, 4)
    at = torch.tensor([[1, 0], [0, 1]])
    image, anchor = at
    row, column = torch.tensor([2, 0]), torch.tensor([4, 1])
    t = split(raw, spec)[image, anchor, row, column]
    assert torch.equal(decode_at(t[:, :4], spec, anchor, row, column), decoded.boxes[image, anchor, row, column])
    assert torch.equal(decoded.objectness[image, anchor, row, column], t[:, 4])


@pytest.mark.parametrize("spec", VARIANTS)
@pytest.mark.parametrize("conf", [0.0, 0.3, 0.6])
def test_skipping_unlikely_predictions_loses_none(spec: HeadSpec, conf: float) -> None:
    torch.manual_seed(0)
    raw = torch.randn(1, spec.channels, 4, 6) * 2
    whole = decode(raw, spec)
    values = scores(whole.objectness, whole.classes, spec).flatten(0, 3)
    wanted = (values > conf).any(-1)
    boxes, likely = decode_likely(raw[0], spec, conf)
    some = (likely > conf).any(-1)
    torch.testing.assert_close(boxes[some], whole.boxes.flatten(0, 3)[wanted])
    torch.testing.assert_close(likely[some], values[wanted])


def test_scores_by_hand() -> None:
    spec = HeadSpec(8, ((1.0, 1.0),), 2)
    objectness, classes = torch.tensor([0.0]), torch.tensor([[0.0, math.log(3)]])
    assert scores(objectness, classes, spec)[0].tolist() == pytest.approx([0.25, 0.375])
    soft = HeadSpec(8, ((1.0, 1.0),), 2, class_code="softmax")
    assert scores(objectness, classes, soft)[0].tolist() == pytest.approx([0.125, 0.375])
    plain = HeadSpec(8, ((1.0, 1.0),), 3, class_code="linear", objectness="linear")
    numbers = torch.tensor([[0.5, -2.0, 3.0]])
    assert scores(torch.tensor([0.4]), numbers, plain)[0].tolist() == pytest.approx([0.2, 0.0, 0.4])
    assert scores(torch.tensor([-0.4]), numbers, plain)[0].tolist() == [0, 0, 0], "minus by minus is no object"


def test_huge_raw_numbers_stay_finite() -> None:
    spec = HeadSpec(32, ((100.0, 100.0),), 1)
    raw = torch.full((1, spec.channels, 1, 1), 1e4)
    assert torch.isfinite(decode(raw, spec).boxes).all()


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="12 channels"):
        split(torch.zeros(1, 12, 2, 2), HeadSpec(8, ((1.0, 1.0),), 2))
    with pytest.raises(ValueError, match="2 anchors × 5 \\+ 2 classes need 12"):
        split(torch.zeros(1, 14, 2, 2), HeadSpec(8, ((1.0, 1.0),) * 2, 2, classes_per="cell"))


def test_bad_specs_are_refused() -> None:
    with pytest.raises(ValueError, match="sides must be positive"):
        HeadSpec(8, ((0.0, 1.0),), 2)
    with pytest.raises(ValueError, match="at least 1"):
        HeadSpec(8, ((1.0, 1.0),), 2, grid_scale=0.5)
    with pytest.raises(ValueError, match="means nothing with xy=free"):
        HeadSpec(8, ((1.0, 1.0),), 2, xy="free", grid_scale=2.0)
