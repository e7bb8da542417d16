"""What to do next: each sentence is said where its numbers say it, and only there."""

from dataclasses import replace

import pytest

from tests.test_ap import found, sample
from yolite.evaluation.advice import advice, advice_of_training
from yolite.evaluation.analysis import Analysis, analyse
from yolite.evaluation.coco import coco_metric
from yolite.structures import Detections, Sample

A, B, C = [10.0, 10, 60, 60], [100.0, 10, 150, 60], [200.0, 10, 250, 60]
NOWHERE = [300.0, 300, 340, 340]


def judged(samples: list[Sample], detections: list[Detections], names: list[str]) -> Analysis:
    return analyse(samples, detections, coco_metric(samples, detections, names), names)


def good() -> Analysis:
    """Everything is found, with the score that it deserves."""
    return judged([sample([A, B, C], [0, 1, 0])], [found([A, B, C], [0.99, 0.99, 0.99], [0, 1, 0])], ["a", "b"])


def numbers(analysis: Analysis, **values: float) -> Analysis:
    """Replace some of the 12 numbers."""
    return replace(analysis, result=replace(analysis.result, numbers=analysis.result.numbers | values))


def test_there_is_nothing_to_do() -> None:
    assert advice(good()) == []


def test_labels_and_the_costliest_mistake() -> None:
    samples = [sample([A, B], [0, 0])]
    lines = advice(judged(samples, [found([NOWHERE, A, B], [0.9, 0.8, 0.7], [0, 0, 0])], ["a"]))
    assert lines[0].startswith("Look at the 1 labels that may be wrong")
    assert lines[1].startswith("Bkg mistakes cost most, 0.3")  # precision 2/3 at best: AP50 2/3
    assert "labels to check" in lines[1]


def test_a_network_that_found_nothing_says_nothing_of_labels() -> None:
    truth = [sample([A, B, C], [0, 0, 0])]
    for boxes in ([], [NOWHERE]):
        (line,) = advice(judged(truth, [found(boxes, [0.9] * len(boxes), [0] * len(boxes))], ["a"]))
        assert line.startswith("No box is right")
    lines = advice(judged(truth, [found([A, NOWHERE], [0.9, 0.8], [0, 0])], ["a"]))
    assert not [line for line in lines if "labels that may be wrong" in line]  # three doubts, three objects


def test_a_network_that_has_hardly_learnt_is_to_learn_first() -> None:
    """One right box under nine wrong ones: nothing is said of the labels that those doubt."""
    truth = [sample([A, B, C, [10.0, 200, 60, 250]], [0, 0, 0, 0])]
    boxes = [[300.0, 10.0 * n, 340, 10.0 * n + 30] for n in range(9)]
    (line,) = advice(judged(truth, [found([*boxes, A], [0.9 - 0.01 * n for n in range(10)], [0] * 10)], ["a"]))
    assert line.startswith("Hardly anything is learnt yet (AP50 0.0")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"AP75": 0.5, "AP50": 0.9}, "The boxes are loose (AP75 0.500, AP50 0.900)"),
        ({"APs": 0.2, "APm": 0.5}, "Small objects are found worse (APs 0.200, larger ones 0.500)"),
    ],
)
def test_numbers_that_are_far_apart(values: dict[str, float], words: str) -> None:
    at_rest = {"AP50": 0.9, "AP75": 0.8, "APs": 0.5, "APm": 0.5, "APl": -1.0}
    assert advice(numbers(good(), **at_rest)) == []
    (line,) = advice(numbers(good(), **(at_rest | values)))
    assert line.startswith(words)


def test_loose_boxes_are_spoken_of_once() -> None:
    truth = [sample([A, B], [0, 0])]
    answer = found([[10.0, 10, 60, 30], [100.0, 10, 150, 40]], [0.9, 0.8], [0, 0])  # IoU 0.4 and 0.6
    lines = advice(judged(truth, [answer], ["a"]))
    assert len([line for line in lines if "labels that fit tightly" in line]) == 1
    assert any(line.startswith("Loc mistakes cost most") for line in lines)


def test_no_object_of_a_size_says_nothing() -> None:
    assert advice(numbers(good(), AP50=0.9, AP75=0.8, APs=-1.0, APm=0.9, APl=0.9)) == []


@pytest.mark.parametrize("objects", [10, 9])
def test_a_weak_class_and_a_threshold_of_its_own(objects: int) -> None:
    samples = [sample([A, B, C], [0, 0, 1])] * objects
    boxes = found([A, B, NOWHERE, [300.0, 10, 340, 60], C], [0.9, 0.9, 0.4, 0.35, 0.3], [0, 0, 1, 1, 1])
    lines = advice(judged([replace(s, id=i) for i, s in enumerate(samples)], [boxes] * objects, ["a", "b"]))
    weak = [line for line in lines if line.startswith("b is the weakest class (AP 0.333, 10 objects)")]
    apart = [line for line in lines if line.startswith("b: the best threshold of the class is far")]
    assert len(weak) == len(apart) == (objects == 10)  # of nine objects nothing is said


def test_scores_that_are_no_chances() -> None:
    loud = good()
    loud = replace(loud, calibration=replace(loud.calibration, error=0.2))
    (line,) = advice(loud)
    assert line.endswith("calibration error is 0.200.")


def history(scores: list[float], losses: list[float]) -> list[dict[str, float]]:
    return [{"AP": a, "val_loss": v} for a, v in zip(scores, losses, strict=True)]


def test_what_the_curves_of_a_training_say() -> None:
    flat = [0.1, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    falling = [1 - 0.05 * i for i in range(10)]
    assert advice_of_training(history(flat, falling)) == []
    (line,) = advice_of_training(history([*flat[:9], 0.52], falling))
    assert line == "AP still rose by 0.020 in the last 1 of 10 epochs: train longer."
    (line,) = advice_of_training(history(flat, [1.0, 0.5, *[0.6] * 8]))
    assert line.startswith("The validation loss rose from 0.500 to 0.600")
    assert advice_of_training([]) == advice_of_training(history(flat[:4], falling[:4])) == []
