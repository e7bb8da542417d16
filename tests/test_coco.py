"""The metric against pycocotools by itself: every number the same to the bit."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.judge import judged
from tests.test_match import NAMES, random_set
from yolite.evaluation import match as matching
from yolite.evaluation.coco import NUMBERS, coco_metric
from yolite.structures import Detections, Sample

Set = tuple[list[Sample], list[Detections]]


def crowded(seed: int, images: int = 3, each: int = 260) -> Set:
    """More detections of a class than count; sides and areas at the limits of the sizes."""
    rng = np.random.default_rng(seed)
    samples, detections = random_set(seed, images)
    for n, found in enumerate(detections):
        corner = rng.integers(0, 200, (each, 2))
        box = torch.from_numpy(np.concatenate((corner, corner + rng.choice([8, 32, 96], (each, 2))), 1)).float()
        scores = torch.from_numpy(rng.choice([0.3, 0.5, 0.6], each)).float()
        labels = torch.from_numpy(rng.choice([0, 0, 0, 2], each))
        detections[n] = Detections(torch.cat((box, found.boxes)), torch.cat((scores, found.scores)),
                                   torch.cat((labels, found.labels)), found.size)  # fmt: skip
    areas = [torch.from_numpy(rng.choice([32.0**2, 96.0**2, 100.0, 2e4], len(s.labels))).float() for s in samples]
    return [dataclasses.replace(s, area=a) for s, a in zip(samples, areas, strict=True)], detections


def without(picked: Set, boxes: bool) -> Set:
    """The same without any detection, or without any object."""
    samples, detections = picked
    if boxes:
        return samples, [d[torch.zeros(len(d), dtype=torch.bool)] for d in detections]
    none = [torch.zeros(0, dtype=torch.bool)] * len(samples)
    return [dataclasses.replace(s, boxes=s.boxes[:0], labels=s.labels[:0], area=s.area[:0], iscrowd=n, difficult=n)
            for s, n in zip(samples, none, strict=True)], detections  # fmt: skip


SETS = {
    **{f"random {seed}": random_set(seed) for seed in range(6)},
    **{f"crowded {seed}": crowded(seed) for seed in range(3)},
    "one image": random_set(7, images=1, most=40),
    "nothing found": without(random_set(1), boxes=True),
    "nothing there": without(random_set(1), boxes=False),
}


@pytest.mark.parametrize("name", list(SETS))
@pytest.mark.parametrize("at_once", [1 << 20, 5])
def test_every_number_is_pycocotools_own(name: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "AT_ONCE", at_once)
    names = [*NAMES, "never seen"]
    judge = judged(*SETS[name], names)
    result = coco_metric(*SETS[name], names)
    assert [result.numbers[n] for n in NUMBERS] == judge.stats.tolist()
    np.testing.assert_array_equal(result.precision, judge.eval["precision"][0, :, :, 0, -1].T)
    np.testing.assert_array_equal(result.confidence, judge.eval["scores"][0, :, :, 0, -1].T)
    for index, own in enumerate(result.per_class):
        precision = judge.eval["precision"][:, :, index, :, -1]
        parts = [precision[..., 0], precision[0, :, 0], *(precision[..., size] for size in (1, 2, 3))]
        means = [part[part > -1].mean() if (part > -1).any() else -1.0 for part in parts]
        assert [own.AP, own.AP50, own.APs, own.APm, own.APl] == means


def test_the_sets_are_worth_it() -> None:
    """AP at every size, recall that grows with the boxes, more than 100 boxes of a class: else nothing is proven."""
    numbers = coco_metric(*SETS["random 0"], NAMES).numbers
    assert min(numbers.values()) > 0
    assert numbers["AR1"] < numbers["AR10"] <= numbers["AR100"]
    assert max(int(torch.bincount(d.labels).max()) for d in SETS["crowded 0"][1]) > 100
    numbers = coco_metric(*SETS["crowded 0"], NAMES).numbers
    assert numbers["AR10"] < numbers["AR100"]
