"""Tiles, mirrored and resized looks at one picture: one object, one box."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.squares import square_model, squares
from yolite import Predictor
from yolite.boxes import pairwise_iou
from yolite.errors import UserError
from yolite.structures import Preprocess
from yolite.views import starts, views


@settings(max_examples=60)
@given(st.integers(1, 4000), st.integers(32, 700), st.floats(0, 0.9))
def test_tiles_cover_the_picture_and_overlap(length: int, tile: int, overlap: float) -> None:
    begins = starts(length, tile, overlap)
    assert begins[0] == 0
    assert begins[-1] + tile >= length
    if length <= tile:
        assert begins == [0]
        return
    assert begins[-1] + tile == length
    shared = [a + tile - b for a, b in pairwise(begins)]
    assert min(shared) >= min(tile - 1, round(overlap * tile)) - 1


def test_a_picture_no_larger_than_the_input_is_looked_at_once() -> None:
    assert len(views((96, 60), Preprocess((96, 96)), 32, True, 0.25, False, True)) == 1
    assert len(views((97, 60), Preprocess((96, 96)), 32, True, 0.25, False, True)) == 3


def test_tta_mirrors_only_what_was_trained_so() -> None:
    looks = [views((50, 60), Preprocess((96, 96)), 32, False, 0.25, True, mirrors) for mirrors in (True, False)]
    assert [v.mirrored for v in looks[0]] == [False, True, False, True]
    assert [v.letterbox.input for v in looks[0]] == [(96, 96), (96, 96), (64, 64), (128, 128)]
    assert [v.letterbox.input for v in looks[1]] == [(96, 96), (64, 64), (128, 128)]


def only(found: list[torch.Tensor], truth: tuple[int, ...], least: float) -> None:
    (boxes,) = found
    assert len(boxes) == 1, f"{truth}: {boxes.tolist()}"
    iou = pairwise_iou(boxes, torch.tensor([truth], dtype=torch.float32)).item()
    assert iou > least, f"{truth}: {boxes.tolist()}"


@pytest.mark.parametrize("favoured", [1.0, 1e9], ids=["surer of small pieces", "surer of large ones"])
@pytest.mark.parametrize(("side", "least"), [(5, 0.9), (20, 0.9), (45, 0.9), (150, 0.8)])
def test_an_object_moved_across_every_seam_is_found_once(side: int, least: float, favoured: float) -> None:
    """Smaller than the overlap (24 px), larger than it, and larger than a tile (96 px)."""
    predictor = Predictor(square_model(favoured=favoured))
    height, width = 160, 200
    for step in range(0, width - side, 2 if side == 5 else 3):
        # on a slanted line that crosses every seam in both directions
        x, y = step, min(height - side, step * (height - side) // max(1, width - side))
        truth = (x, y, x + side, y + side)
        picture = squares((height, width), [truth])
        only([r.boxes for r in predictor.predict(picture, tile=True, batch=16)], truth, least)


@pytest.mark.parametrize("favoured", [1.0, 1e9])
def test_pieces_are_joined_where_no_view_shows_the_object_whole(favoured: float) -> None:
    """60 px, more than the tiles share, and too small to be seen (29 px of input) in the view of the whole picture."""
    predictor = Predictor(square_model(favoured=favoured, least=30))
    for step in range(0, 100, 3):
        truth = (step + 20, step, step + 80, step + 60)
        picture = squares((160, 200), [truth])
        only([r.boxes for r in predictor.predict(picture, tile=True, batch=16)], truth, 0.9)


@pytest.mark.parametrize("nms", ["hard", "agnostic", "soft", "diou", "fusion"])
def test_neighbours_at_a_seam_stay_two(nms: str) -> None:
    """Two squares side by side, 9 px apart, and one above: three boxes, wherever the seams are."""
    predictor = Predictor(square_model())
    for shift in range(0, 200, 11):
        truth = [(shift, 80, shift + 18, 98), (shift + 27, 80, shift + 45, 98), (shift + 5, 40, shift + 23, 58)]
        (found,) = predictor.predict(squares((230, 260), truth), tile=True, batch=16, nms=nms)
        assert len(found.boxes) == 3, (shift, found.boxes)
        assert (pairwise_iou(torch.tensor(truth).float(), found.boxes).amax(1) > 0.9).all()


def test_tiles_see_what_the_whole_picture_is_too_small_for() -> None:
    picture = squares((600, 600), [(301, 300, 308, 307)])
    plain, tiled = (list(Predictor(square_model()).predict(picture, tile=t)) for t in (False, True))
    assert len(plain[0].boxes) == 0, "one px of the input: nothing"
    only([tiled[0].boxes], (301, 300, 308, 307), 0.9)


@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize("nms", ["hard", "fusion"])
def test_tta_finds_each_object_once_and_in_place(nms: str, tile: bool) -> None:
    truth = [(10, 20, 40, 50), (100, 60, 125, 85), (150, 10, 190, 50)]
    (found,) = Predictor(square_model()).predict(squares((120, 200), truth), tta=True, nms=nms, tile=tile)
    assert len(found.boxes) == 3
    assert (pairwise_iou(torch.tensor(truth).float(), found.boxes).amax(1) > 0.8).all()


def test_the_cap_and_classes_hold_for_merged_views() -> None:
    truth = [(x, y, x + 10, y + 10) for x in range(5, 250, 30) for y in range(5, 220, 30)]
    predictor = Predictor(square_model())
    (every,) = predictor.predict(squares((230, 260), truth), tile=True)
    assert (len(every.boxes), every.detections.capped) == (len(truth), False)
    (few,) = predictor.predict(squares((230, 260), truth), tile=True, max_det=7)
    assert (len(few.boxes), few.detections.capped) == (7, True)
    assert few.scores.tolist() == sorted(every.scores.tolist(), reverse=True)[:7]


def test_an_empty_picture() -> None:
    (found,) = Predictor(square_model()).predict(squares((230, 260), []), tile=True, tta=True)
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("wrong", [{"overlap": 1.0}, {"conf": 2}, {"batch": 0}, {"stride": 0}, {"nms": "best"}])
def test_arguments_are_checked_at_once(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Predictor(square_model()).predict(np.zeros((5, 5, 3), np.uint8), **wrong)


def test_tta_needs_a_network_of_any_size() -> None:
    fixed = square_model()
    fixed.network.fixed = True  # type: ignore[misc] # a property of other networks
    assert len(list(Predictor(fixed).predict(squares((50, 60), [])))) == 1
    assert fixed.network.shapes == [(1, 3, 96, 96)], "padded to all of its one size"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="take 96x96 alone"):
        Predictor(fixed).predict(squares((50, 60), []), tta=True)
