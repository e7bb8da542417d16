"""The shared matching against pycocotools' own, on random sets made to be nasty: crowds, ties, many of a class."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.judge import judged
from yolite.evaluation.match import Matching, match, place_in_class
from yolite.structures import Detections, Sample

NAMES = ["a", "b", "c"]
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


def random_set(seed: int, images: int = 6, most: int = 12) -> tuple[list[Sample], list[Detections]]:
    """Objects and detections that lie near, on and away from them; few distinct scores, so that many are equal."""
    rng = np.random.default_rng(seed)
    samples, detections = [], []
    for number in range(images):
        n = int(rng.integers(0, most))
        corner = rng.integers(0, 150, (n, 2)).astype(np.float32)
        truth = np.concatenate((corner, corner + rng.integers(5, 130, (n, 2))), 1).astype(np.float32)
        jitter = rng.integers(-12, 13, (3 * n, 4)) * (rng.random((3 * n, 1)) < 0.8)
        moved = np.repeat(truth, 3, 0) + jitter
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        labels = rng.integers(0, 3, n)
        guessed = np.where(rng.random(3 * n) < 0.75, np.repeat(labels, 3), rng.integers(0, 3, 3 * n))
        flags = [torch.from_numpy(rng.random(n) < share) for share in (0.2, 0.1)]
        box = torch.from_numpy(truth.reshape(-1, 4))
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        samples.append(Sample(None, (300, 300), box, torch.from_numpy(labels), flags[0], area, flags[1], number))
        scores = torch.from_numpy(rng.choice([0.1, 0.2, 0.5, 0.7, 0.9], 3 * n).astype(np.float32))
        found = Detections(torch.from_numpy(moved.astype(np.float32)), scores, torch.from_numpy(guessed), (300, 300))
        detections.append(found)
    return samples, detections


def plain_set(seed: int, images: int = 6) -> tuple[list[Sample], list[Detections]]:
    """The same without crowds, with scores that all differ, and nothing near every third object."""
    samples, detections = random_set(seed, images)
    samples = [replace(s, iscrowd=s.iscrowd & False, difficult=s.difficult & False) for s in samples]
    detections = [d[torch.arange(len(d)) // 3 % 3 != 0] for d in detections]
    count = [len(d) for d in detections]
    scores = torch.randperm(sum(count), generator=torch.Generator().manual_seed(seed)) / sum(count)
    return samples, [replace(d, scores=part) for d, part in zip(detections, scores.split(count), strict=True)]


def compare(ours: Matching, theirs: dict, image: int, label: int) -> None:
    """One image and class, at all thresholds: the same scores, matches (by object) and ignored ones."""
    rows = np.flatnonzero((ours.image == image) & (ours.label == label))
    objects = np.flatnonzero((ours.truth_image == image) & (ours.truth_label == label))
    assert ours.score[rows].tolist() == theirs["dtScores"]
    # pycocotools numbers all objects from 1 in the order of the table, which is that of `truth_*`
    np.testing.assert_array_equal(ours.match[:, rows] + 1, theirs["dtMatches"])
    np.testing.assert_array_equal(ours.ignored[:, rows], theirs["dtIgnore"])
    order = np.array(theirs["gtIds"], int) - 1
    np.testing.assert_array_equal(np.sort(order), objects)
    np.testing.assert_array_equal(ours.truth_ignored[order], theirs["gtIgnore"].astype(bool))
    np.testing.assert_array_equal(ours.found_by[:, order] >= 0, theirs["gtMatches"] > 0)


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("most", [100, 3])
def test_it_is_pycocotools_own(size: str, most: int) -> None:
    pairs = 0
    for seed in range(6):
        samples, detections = random_set(seed)
        judge = judged(samples, detections, NAMES, [most])
        ours = match(samples, detections, NAMES, judge.params.iouThrs, most, SIZES[size])
        for theirs in judge.evalImgs:
            if theirs and tuple(theirs["aRng"]) == SIZES[size]:
                compare(ours, theirs, theirs["image_id"] - 1, theirs["category_id"] - 1)
                pairs += int((theirs["dtMatches"] > 0).sum())
        assert len(ours.score) == sum(len(e["dtScores"]) for e in judge.evalImgs if e and e["aRng"] == [0, 1e10])
    assert pairs > 100


def test_of_equal_objects_the_last_is_taken() -> None:
    samples, detections = random_set(0)
    twice = [torch.arange(2 * len(s.labels)) // 2 for s in samples]
    fields = ("boxes", "labels", "iscrowd", "area", "difficult")
    samples = [replace(s, **{f: getattr(s, f)[rows] for f in fields}) for s, rows in zip(samples, twice, strict=True)]
    judge = judged(samples, detections, NAMES, [100])
    ours = match(samples, detections, NAMES, judge.params.iouThrs)
    for theirs in judge.evalImgs:
        if theirs and theirs["aRng"] == [0, 1e10]:
            compare(ours, theirs, theirs["image_id"] - 1, theirs["category_id"] - 1)


def test_who_is_near_whom() -> None:
    box = torch.tensor([[0.0, 0, 100, 100], [200, 200, 250, 250]])
    none = torch.zeros(2, dtype=torch.bool)
    sample = Sample(None, (300, 300), box, torch.tensor([0, 1]), none, torch.tensor([10000.0, 2500]), none, 1)
    found = Detections(torch.tensor([[0.0, 0, 100, 20], [0, 0, 100, 5], [200, 200, 250, 230]]),
                       torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]), (300, 300))  # fmt: skip
    near = match([sample], [found], NAMES).near
    assert near.detection.tolist() == [0, 2]
    assert near.object.tolist() == [0, 1]
    assert near.iou == pytest.approx([0.2, 0.6])


def test_nothing_at_all() -> None:
    for samples in ([], random_set(0, images=2, most=1)[0]):
        ours = match(samples, [Detections(s.boxes, s.area, s.labels, s.size) for s in samples], NAMES, (0.5, 0.75))
        assert ours.match.shape == (2, 0)
        assert ours.images == len(samples)
        assert ours.objects().tolist() == [0, 0, 0]


def test_the_place_in_each_class() -> None:
    assert place_in_class(np.array([1, 0, 1, 1, 0, 2])).tolist() == [0, 0, 1, 2, 1, 0]
