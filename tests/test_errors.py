"""TIDE's error split: one of every kind by hand, and what mending gives back, by pycocotools on the mended sets."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.test_ap import found, sample
from tests.test_match import plain_set
from yolite.evaluation.coco import coco_metric
from yolite.evaluation.errors import KINDS, ErrorSplit, error_split
from yolite.evaluation.match import Matching, match
from yolite.structures import Detections, Sample

A, B, C, D, E = ([100.0 * i, 0, 100.0 * i + 40, 40] for i in range(5))
NAMES = ["a", "b"]


def every_kind() -> tuple[Sample, Detections]:
    """Objects A to E of class a (E missed), a right box, then one of each kind, in falling score."""

    def right_part(box: list[float], share: float) -> list[float]:
        return [box[0], box[1], box[0] + 40 * share, box[3]]

    boxes = [
        A,  # right
        A,  # Dupe: A is taken
        B,  # Cls: of class b
        right_part(C, 0.4),  # Loc: IoU 0.4
        right_part(D, 0.3),  # Both: of class b, IoU 0.3
        [0.0, 300, 40, 340],  # Bkg
    ]
    answer = found(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 1, 0, 1, 0])
    return sample([A, B, C, D], [0, 0, 0, 0]), answer


def test_every_kind_once() -> None:
    truth, answer = every_kind()
    split = error_split(match([truth], [answer], NAMES))
    assert [list(KINDS)[k] if k >= 0 else "" for k in split.kind] == ["", "Dupe", "Cls", "Loc", "Both", "Bkg"]
    assert split.object.tolist() == [-1, 0, 1, 2, 3, -1]
    assert split.missed.tolist() == [False, False, False, True]  # D: only a Both box is near; B and C have theirs
    assert split.counts == dict.fromkeys(KINDS, 1)


def test_what_each_gives_back_by_hand() -> None:
    """One right box first, of four objects: AP50 = 26 / 101, whatever wrong boxes follow."""
    truth, answer = every_kind()
    split = error_split(match([truth], [answer], NAMES))
    assert split.ap == pytest.approx(26 / 101)
    assert split.gives_back["Cls"] == pytest.approx((26 + 25 * 2 / 3) / 101 - split.ap)  # right, wrong, right
    assert split.gives_back["Loc"] == pytest.approx((26 + 25 * 2 / 3) / 101 - split.ap)
    assert split.gives_back["Miss"] == pytest.approx(34 / 101 - split.ap)  # of three objects
    assert [split.gives_back[k] for k in ("Both", "Dupe", "Bkg")] == pytest.approx([0, 0, 0])
    assert split.all_wrong == pytest.approx(0)
    assert split.all_missed == pytest.approx(1 - split.ap)


def ap50(samples: list[Sample], detections: list[Detections], names: list[str]) -> float:
    return coco_metric(samples, detections, names).numbers["AP50"]


def mended(matching: Matching, split: ErrorSplit, place: int) -> list[Detections]:
    """The detections with one kind mended for real; who wants an object that has another box must score higher."""
    kind, out = list(KINDS)[place], []
    kept: dict[int, int] = {}  # object: the box that has it in the end
    if kind in ("Cls", "Loc"):
        for row in np.flatnonzero(split.kind == place).tolist():
            thing = int(split.object[row])
            rivals = [row, *(r for r in (int(matching.found_by[0][thing]), kept.get(thing, -1)) if r >= 0)]
            kept[thing] = max(rivals, key=lambda r: matching.score[r])
    for number in range(matching.images):
        boxes, scores, labels = [], [], []
        for row in np.flatnonzero(matching.image == number).tolist():
            wrong, thing = split.kind[row] == place, int(split.object[row])
            has = int(matching.match[0][row])
            if (wrong and kept.get(thing) != row) or (has >= 0 and kept.get(has, row) != row):
                continue
            boxes.append(list(matching.truth_boxes[thing] if wrong and kind == "Loc" else matching.boxes[row]))
            labels.append(int(matching.truth_label[thing] if wrong else matching.label[row]))
            scores.append(float(matching.score[row]))
        out.append(found(boxes, scores, labels))
    return out


@pytest.mark.parametrize("seed", range(5))
def test_what_mending_gives_back_is_pycocotools_ap_of_the_mended_set(seed: int) -> None:
    """Cls boxes get the other class, Loc boxes the object's own coordinates, the rest goes: judged by pycocotools."""
    names = ["a", "b", "c"]
    samples, detections = plain_set(seed, images=20)
    matching = match(samples, detections, names)
    split = error_split(matching)
    before = coco_metric(samples, detections, names).numbers["AP50"]
    assert split.ap == pytest.approx(before, abs=1e-12)
    assert min(split.counts.values()) > 0
    for place, kind in enumerate(list(KINDS)[:5]):
        after = coco_metric(samples, mended(matching, split, place), names).numbers["AP50"]
        assert after - before == pytest.approx(split.gives_back[kind], abs=1e-12), kind
    fewer = []
    for number, s in enumerate(samples):
        keep = torch.from_numpy(~split.missed[matching.truth_image == number])
        fewer.append(replace(s, boxes=s.boxes[keep], labels=s.labels[keep], iscrowd=s.iscrowd[keep],
                             area=s.area[keep], difficult=s.difficult[keep]))  # fmt: skip
    after = coco_metric(fewer, detections, names).numbers["AP50"]
    assert after - before == pytest.approx(split.gives_back["Miss"], abs=1e-12)


def test_nothing_found_and_nothing_there() -> None:
    nothing = error_split(match([sample([A], [0])], [found([], [], [])], NAMES))
    assert nothing.counts == {**dict.fromkeys(KINDS, 0), "Miss": 1}
    assert nothing.gives_back["Miss"] == 1
    empty = error_split(match([sample([], [])], [found([A], [0.5], [0])], NAMES))
    assert empty.counts["Bkg"] == 1
    assert empty.ap == -1
    assert set(empty.gives_back.values()) == {0.0}


def test_crowds_are_no_errors() -> None:
    truth = sample([A, B], [0, 0], [False, True])
    split = error_split(match([truth], [found([A, B, [210, 0, 230, 20]], [0.9, 0.8, 0.7], [0, 0, 0])], NAMES))
    assert split.counts == {**dict.fromkeys(KINDS, 0), "Bkg": 1}
