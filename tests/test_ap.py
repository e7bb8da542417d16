"""AP of the shared matching, curves over the confidence, confusion and calibration."""

import numpy as np
import pytest
import torch

from tests.judge import judged
from tests.test_match import NAMES, plain_set, random_set
from yolite.evaluation.ap import average_precision, class_ap, mean_ap, ranks
from yolite.evaluation.coco import coco_metric
from yolite.evaluation.curves import (
    CONFIDENCES,
    by_frequency,
    calibration,
    confusion,
    curves,
    deploy,
)
from yolite.evaluation.match import match
from yolite.structures import Detections, Sample

BOX = [10.0, 20.0, 60.0, 90.0]


def sample(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None, ident: int = 1) -> Sample:
    b = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    flags = torch.tensor(crowd) if crowd else torch.zeros(len(b), dtype=torch.bool)
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return Sample(None, (400, 400), b, torch.tensor(labels, dtype=torch.int64), flags, area,
                  torch.zeros(len(b), dtype=torch.bool), ident)  # fmt: skip


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores),
                      torch.tensor(labels, dtype=torch.int64), (400, 400))  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_it_is_pycocotools_own(seed: int) -> None:
    samples, detections = random_set(seed)
    judge = judged(samples, detections, NAMES, [100])
    ours = match(samples, detections, NAMES, judge.params.iouThrs)
    for label in range(3):
        precision = judge.eval["precision"][:, :, label, 0, 0]
        expected = [float(p.mean()) if (p > -1).any() else -1.0 for p in precision]
        assert class_ap(ranks(ours)[label], np.ones(6)) == pytest.approx(expected, abs=1e-12)
    whole = mean_ap(np.array([class_ap(ranks(ours)[label], np.ones(6)).mean() for label in range(3)]))
    assert whole == pytest.approx(coco_metric(samples, detections, NAMES).numbers["AP"], abs=1e-12)


def test_an_image_of_weight_two_is_an_image_that_is_there_twice() -> None:
    samples, detections = plain_set(7)
    weights = np.array([2.0, 1, 0, 3, 1, 1])
    several = [i for i, w in enumerate(weights) for _ in range(int(w))]
    result = coco_metric([samples[i] for i in several], [detections[i] for i in several], NAMES)
    ours = match(samples, detections, NAMES, np.arange(50, 100, 5) / 100)
    for label in range(3):
        ap = class_ap(ranks(ours)[label], weights).mean()
        assert ap == pytest.approx(result.per_class[label].AP, abs=1e-12)


def test_without_objects_or_boxes() -> None:
    none = np.zeros((2, 0))
    assert average_precision(none, none, 0).tolist() == [-1, -1]
    assert average_precision(none, none, 3).tolist() == [0, 0]
    assert mean_ap(np.array([-1.0, 0.5, 0.25])) == 0.375


def four_boxes() -> tuple[list[Sample], list[Detections]]:
    """Scores 0.9 right, 0.8 wrong, 0.6 right, 0.2 wrong of three objects, one of which nobody finds."""
    boxes = [[0.0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40]]
    away = [[0.0, 200, 40, 240], [100, 200, 140, 240]]
    return [sample(boxes, [0, 0, 0])], [found([boxes[0], away[0], boxes[1], away[1]], [0.9, 0.8, 0.6, 0.2], [0] * 4)]


def test_counts_over_the_confidence() -> None:
    c = curves(match(*four_boxes(), ["a"]))
    for confidence, right, wrong in ((0.0, 2, 2), (0.2, 2, 1), (0.59, 2, 1), (0.6, 1, 1), (0.8, 1, 0), (0.9, 0, 0)):
        point = c.at(0, round(1000 * confidence))
        assert (point.right, point.wrong, point.missed) == (right, wrong, 3 - right), confidence
    # (a float32 score of 0.6 is not above 0.6, as in `postprocess`)
    point = c.at(None, 400)
    assert point.precision == pytest.approx(2 / 3)
    assert point.recall == pytest.approx(2 / 3)
    assert point.f == pytest.approx(2 / 3)
    assert c.at(0, 950).precision is None
    assert len(CONFIDENCES) == 1000


def test_the_threshold_to_deploy() -> None:
    c = curves(match(*four_boxes(), ["a"]))
    best = deploy(c, 0)
    assert best is not None
    assert 0.2 <= best.confidence < 0.6
    assert best.confidence == pytest.approx(0.4, abs=0.002)  # the middle of where F1 is 2/3
    sure = deploy(c, 0, precision=1.0)
    assert sure is not None
    assert sure.confidence == pytest.approx(0.8, abs=0.001)
    assert sure.recall == pytest.approx(1 / 3)
    sloppy = deploy(c, None, precision=0.5)
    assert sloppy is not None
    assert sloppy.confidence == 0
    assert deploy(c, 0, beta=0.1).confidence >= 0.8  # type: ignore[union-attr]  # precision is nearly all that counts
    assert deploy(curves(match([sample([BOX], [0])], [found([], [], [])], ["a"])), 0) is None


def test_a_precision_that_is_never_reached() -> None:
    wrong_first = [found([[0.0, 200, 40, 240], BOX], [0.9, 0.5], [0, 0])]
    assert deploy(curves(match([sample([BOX], [0])], wrong_first, ["a"])), 0, precision=0.9) is None


def test_confusion_by_hand() -> None:
    """Right a; b taken for a; an a nobody finds; an a where nothing is; a crowd that counts nowhere."""
    far = [[100.0, 0, 140, 40], [200, 0, 240, 40], [300, 0, 340, 40]]
    truth = sample([BOX, far[0], far[1], far[2]], [0, 1, 0, 0], [False, False, False, True])
    answer = found([BOX, far[0], [0, 300, 40, 340], far[2], far[1]], [0.9, 0.8, 0.7, 0.6, 0.1], [0, 0, 0, 0, 0])
    matching = match([truth], [answer], ["a", "b"])
    assert confusion(matching, 0.3).tolist() == [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert confusion(matching, 0.05).tolist() == [[2, 0, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("confidence", [0.0, 0.15, 0.6, 0.95])
def test_the_rows_and_columns_of_a_confusion(confidence: float) -> None:
    matching = match(*random_set(3), NAMES)
    table, c = confusion(matching, confidence), curves(matching)
    assert table[:-1].sum(1).tolist() == c.objects.tolist()
    place = round(1000 * confidence)
    assert table.diagonal()[:-1].tolist() == c.right[:, place].tolist()
    assert table[:, :-1].sum(0).tolist() == (c.right + c.wrong)[:, place].tolist()
    assert table[-1, -1] == 0


def test_calibration_by_hand() -> None:
    """Two boxes of 0.8 of which one is right, one of 0.3 that is right: |0.8 − 0.5| · 2/3 + |0.3 − 1| / 3."""
    boxes = [BOX, [200.0, 0, 240, 40], [300.0, 0, 340, 40], [0.0, 300, 40, 340]]
    answer = found(boxes, [0.8, 0.8, 0.3, 0.01], [0, 0, 0, 0])
    result = calibration(match([sample([boxes[0], boxes[2]], [0, 0])], [answer], ["a"]))
    assert result.boxes.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 2, 0]  # 0.01 is below where it begins
    assert result.error == pytest.approx(0.3 * 2 / 3 + 0.7 / 3, abs=1e-6)
    assert calibration(match([sample([], [])], [found([], [], [])], ["a"])).error is None


def test_by_frequency() -> None:
    boxes = [[20.0 * i, 0, 20 * i + 15, 15] for i in range(12)]
    truth = [sample([*boxes, BOX], [0] * 12 + [1])]
    groups = by_frequency(coco_metric(truth, [found([BOX], [0.9], [1])], ["a", "b", "c"]))
    assert [(g.name, g.classes, g.objects, round(g.AP, 3)) for g in groups] == [
        ("rare", 1, 1, 1.0), ("common", 1, 12, 0.0)]  # fmt: skip
