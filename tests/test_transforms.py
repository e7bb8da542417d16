"""Boxes stay on their objects: a mark is painted into each box and found again after every transform."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolite.data.colour import recolour
from yolite.data.mosaic import Labelled, Patch, compose, mosaic_patches, paste, single_patch
from yolite.data.transforms import Augment, FlipAndColour

PLAIN = Augment(0, 0, 0, 0, 0, 0, 0, 0, 0.25)


def marked(height: int, width: int, seed: int) -> Labelled:
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    w, h = int(rng.integers(12, width // 2)), int(rng.integers(12, height // 2))
    x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
    image[y : y + h, x : x + w] = 255
    return Labelled(
        image, torch.tensor([[x, y, x + w, y + h]]).float(), torch.tensor([seed % 5]), torch.tensor([False])
    )


def mark_of(image: np.ndarray) -> torch.Tensor:
    rows, columns = np.where(image.max(-1) > 127)
    return torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


@settings(max_examples=60)
@given(st.integers(40, 131), st.integers(40, 131), st.integers(0, 999))
def test_zoom_and_shift(height: int, width: int, seed: int) -> None:
    own = marked(height, width, seed)
    augment = Augment(0, 0.5, 0.2, 0, 0, 0, 0, 0, 0.25)
    patch = single_patch(np.random.default_rng(seed), (height, width), (96, 128), augment)
    out = compose([own], [patch], (96, 128), 0, 0.25)
    if len(out.boxes):
        torch.testing.assert_close(mark_of(out.image), out.boxes[0], rtol=0, atol=1.3)


@settings(max_examples=60)
@given(st.integers(0, 999))
def test_mosaic(seed: int) -> None:
    pictures = [marked(61 + 7 * n, 90 - 5 * n, 4 * seed + n) for n in range(4)]
    augment = Augment(1, 0.4, 0, 0, 0, 0, 0, 0, 0.25)
    patches = mosaic_patches(np.random.default_rng(seed), [p.image.shape[:2] for p in pictures], (100, 120), augment)
    for picture, patch in zip(pictures, patches, strict=True):
        canvas = np.zeros((100, 120, 3), np.uint8)
        out = paste(canvas, [picture], [patch], 0.25)
        if len(out.boxes):
            torch.testing.assert_close(mark_of(canvas), out.boxes[0], rtol=0, atol=1.3)
            assert out.labels.tolist() == picture.labels.tolist()


def test_mosaic_without_zoom() -> None:
    patches = mosaic_patches(np.random.default_rng(0), [(50, 50)] * 4, (100, 120), PLAIN)
    for x1, y1, x2, y2, left, top, right, bottom in (patch.source + patch.target for patch in patches):
        assert (x2 - x1, y2 - y1) == (right - left, bottom - top)


def test_identity_patch_changes_nothing() -> None:
    own = marked(64, 64, 3)
    out = compose([own], [Patch((0, 0, 64, 64), (0, 0, 64, 64))], (64, 64), 0, 0.25)
    assert np.array_equal(out.image, own.image)
    assert torch.equal(out.boxes, own.boxes)


def test_a_box_that_is_hardly_visible_goes() -> None:
    picture = Labelled(np.zeros((50, 50, 3), np.uint8), torch.tensor([[0.0, 0.0, 20.0, 20.0]]), torch.tensor([1]),
                       torch.tensor([False]))  # fmt: skip
    shifted = Patch((16, 0, 50, 50), (0, 0, 34, 50))  # a fifth of it is left
    assert len(compose([picture], [shifted], (50, 50), 0, 0.25).boxes) == 0
    assert compose([picture], [shifted], (50, 50), 0, 0.1).boxes.tolist() == [[0, 0, 4, 20]]


@pytest.mark.parametrize("flip", ["hflip", "vflip", "both"])
@pytest.mark.parametrize("shape", [(51, 80), (64, 64), (80, 51)])
def test_flips(flip: str, shape: tuple[int, int]) -> None:
    own = marked(*shape, 7)
    augment = Augment(0, 0, 0, float(flip != "vflip"), float(flip != "hflip"), 0, 0, 0, 0.25)
    image, boxes, rows = FlipAndColour(augment)(own.image, own.boxes, seed=1)
    torch.testing.assert_close(mark_of(image), boxes[0], rtol=0, atol=1e-3)
    assert not torch.equal(boxes, own.boxes)
    assert rows.tolist() == [0]


def test_colour_moves_no_box_and_the_seed_decides() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    boxes = torch.tensor([[3.0, 4.0, 30.0, 20.0]])
    recolour = FlipAndColour(Augment(0, 0, 0, 0, 0, 0.05, 0.5, 0.3, 0.25))
    one, same, other = (recolour(image, boxes, s)[0] for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, image)
    assert torch.equal(recolour(image, boxes, 1)[1], boxes)


def test_what_a_window_shows_of_a_picture() -> None:
    # twice as large, a corner of it 10 px left of and 3 px above the window: 30 of its px fill 60 of the canvas
    assert Patch.seen((40, 50), 2.0, (10.0, 17.0), (20, 20, 80, 60)) == Patch((5, 2, 35, 22), (20, 20, 80, 60))
    # half as large, wholly inside
    assert Patch.seen((40, 50), 0.5, (30.0, 25.0), (20, 20, 80, 60)) == Patch((0, 0, 50, 40), (30, 25, 55, 45))
    # beside the window: nothing is drawn, and its boxes go
    beside = Patch.seen((40, 50), 1.0, (90.0, 20.0), (20, 20, 80, 60))
    picture = Labelled(np.full((40, 50, 3), 255, np.uint8), torch.tensor([[0.0, 0.0, 50.0, 40.0]]), torch.tensor([1]),
                       torch.tensor([False]))  # fmt: skip
    out = compose([picture], [beside], (100, 100), 7, 0.25)
    assert (out.image == 7).all()
    assert len(out.boxes) == 0


def test_colours_against_other_arithmetic() -> None:
    pixels = np.array([[[200, 40, 90], [10, 250, 120], [128, 128, 128]]], np.uint8)
    assert np.array_equal(recolour(pixels, 0, 1, 1, 1), pixels)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(recolour(pixels, 0, 0, 1, 1) - grey[..., None]).max() <= 1
    assert np.abs(recolour(pixels, 0, 1, 0.5, 1) - pixels / 2).max() <= 1
    wanted = np.clip(grey.mean() + 1.5 * (pixels - grey.mean()), 0, 255)
    assert np.abs(recolour(pixels, 0, 1, 1, 1.5) - wanted).max() <= 1
    turned = recolour(pixels, 0.05, 1, 1, 1)
    for after, before in zip(turned[0, :2] / 255, pixels[0, :2] / 255, strict=True):
        turn = (colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*before)[0]) % 1
        assert 0.03 < turn < 0.09  # NTSC's circle is not quite that of HSV
    assert turned[0, 2].tolist() == [128, 128, 128]


def test_flip_and_colour_are_drawn_apart() -> None:
    """Mirrored pictures are as bright as the others."""
    image = np.full((8, 8, 3), 100, np.uint8)
    image[:, :4] = 90
    both = FlipAndColour(replace(PLAIN, hflip=0.5, brightness=0.3))
    light: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(400):
        out = both(image, torch.zeros(0, 4), seed)[0].astype(float)
        light[bool(out[0, 0, 0] > out[0, 7, 0])].append(out.mean())
    assert abs(np.mean(light[True]) - np.mean(light[False])) < 5  # one draw for both: 14 apart on either side of 95
    assert min(len(one) for one in light.values()) > 160


def test_nothing_switched_on_changes_nothing() -> None:
    own = marked(40, 40, 1)
    image, boxes, _ = FlipAndColour(PLAIN)(own.image, own.boxes, 0)
    assert np.array_equal(image, own.image)
    assert torch.equal(boxes, own.boxes)


def test_many_boxes_keep_their_rows_through_a_flip() -> None:
    g = torch.Generator().manual_seed(0)
    low = torch.rand(30, 2, generator=g) * 40
    boxes = torch.cat((low, low + 5), 1)
    flipped, rows = FlipAndColour(Augment(0, 0, 0, 1.0, 0, 0, 0, 0, 0.25))(np.zeros((50, 50, 3), np.uint8), boxes, 0)[
        1:
    ]
    assert rows.tolist() == list(range(30))
    torch.testing.assert_close(flipped[:, 0], 50 - boxes[:, 2], rtol=0, atol=1e-4)
