import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolite.geometry import Letterbox
from yolite.structures import Preprocess

size = st.tuples(st.integers(1, 900), st.integers(1, 900))


@given(
    size,
    st.sampled_from([(320, 320), (320, 256), (64, 416)]),
    st.sampled_from(["letterbox", "stretch"]),
    st.sampled_from([0, 32]),
)
def test_invert_undoes_apply(image: tuple[int, int], target: tuple[int, int], mode: str, step: int) -> None:
    record = Letterbox.fit(image, Preprocess(target, mode=mode), step)
    h, w = image
    boxes = torch.tensor([[0.0, 0.0, w, h], [w * 0.1, h * 0.3, w * 0.55, h * 0.9]])
    mapped = record.apply(boxes)
    torch.testing.assert_close(record.invert(mapped), boxes, rtol=1e-5, atol=1e-3)
    assert (mapped[:, :2] >= -1e-3).all()
    assert (mapped[:, 2] <= target[1] + 1e-3).all()
    assert (mapped[:, 3] <= target[0] + 1e-3).all()


def test_letterbox_by_hand() -> None:
    """A 640×480 picture in 320×320: scale 1/2, 40 rows of padding above and below."""
    record = Letterbox.fit((480, 640), Preprocess((320, 320)))
    assert (record.content, record.pad_y, record.pad_x) == ((240, 320), 40, 0)
    assert record.apply(torch.tensor([[100.0, 200.0, 300.0, 400.0]])).tolist() == [[50, 140, 150, 240]]
    assert record.invert(torch.tensor([[50.0, 140.0, 150.0, 240.0]])).tolist() == [[100, 200, 300, 400]]


def test_only_what_the_cells_need_is_padded() -> None:
    """The same picture for cells of 32 px: 8 rows above and below in place of 40, and the same scale."""
    preprocess = Preprocess((320, 320))
    record = Letterbox.fit((480, 640), preprocess, step=32)
    assert (record.content, record.input, record.pad_y, record.pad_x) == ((240, 320), (256, 320), 8, 0)
    assert record.pixels(np.zeros((480, 640, 3), np.uint8)).shape == (256, 320, 3)
    assert record.apply(torch.tensor([[100.0, 200.0, 300.0, 400.0]])).tolist() == [[50, 108, 150, 208]]
    assert Letterbox.fit((480, 640), Preprocess((320, 320), mode="stretch"), step=32).input == (320, 320)


@given(size, st.sampled_from([(320, 320), (320, 256), (64, 416)]))
def test_the_padding_is_less_than_a_cell(image: tuple[int, int], target: tuple[int, int]) -> None:
    whole, record = Letterbox.fit(image, Preprocess(target)), Letterbox.fit(image, Preprocess(target), step=32)
    assert record.content == whole.content
    for side, content, most in zip(record.input, record.content, target, strict=True):
        assert side % 32 == 0
        assert content <= side <= most
        assert side - content < 32


def test_stretch_by_hand() -> None:
    record = Letterbox.fit((100, 400), Preprocess((320, 320), mode="stretch"))
    assert record.apply(torch.tensor([[100.0, 50.0, 200.0, 100.0]])).tolist() == [[80, 160, 160, 320]]


@pytest.mark.parametrize("shape", [(37, 91), (91, 37), (480, 640), (333, 334)])
@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
def test_pixels_go_where_boxes_go(shape: tuple[int, int], mode: str) -> None:
    """A white block painted into the picture is found where its box is mapped to."""
    image = np.zeros((*shape, 3), np.uint8)
    h, w = shape
    x1, y1, x2, y2 = w // 4, h // 3, w // 4 + w // 2, h // 3 + h // 2
    image[y1:y2, x1:x2] = 255
    record = Letterbox.fit(shape, Preprocess((160, 160), mode=mode, pad=0))
    rows, columns = np.where(record.pixels(image)[..., 0] > 127)
    found = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]).float()
    torch.testing.assert_close(found, record.apply(torch.tensor([[x1, y1, x2, y2]]).float()), rtol=0, atol=1.0)


def test_padding_has_the_pad_value() -> None:
    record = Letterbox.fit((10, 20), Preprocess((64, 64), pad=77))
    out = record.pixels(np.zeros((10, 20, 3), np.uint8))
    assert (out[: record.pad_y] == 77).all()
    assert (out[record.pad_y + record.content[0] :] == 77).all()


def test_normalise_by_hand() -> None:
    p = Preprocess((32, 32), mean=(0.5, 0.0, 0.0), std=(0.5, 1.0, 2.0))
    out = p.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert out.flatten().tolist() == [1.0, 1.0, 0.5]
