"""The identity of the whole street: truth → letterbox → assign → encode → raw maps → decode → NMS → invert → AP 1."""

import pytest
import torch

from tests.test_evaluation import sample
from yolite.boxes import pairwise_iou
from yolite.codec import encode
from yolite.evaluation.coco import coco_metric
from yolite.geometry import Letterbox
from yolite.postprocess import Thresholds, postprocess
from yolite.structures import HeadSpec, Preprocess, Sample, Targets
from yolite.training.assign import assign, reachable

CLASSES = ["a", "b", "c"]
LIMITS = Thresholds(0.001, 0.65, 100, best_class=False)


def specs(wh: str, grid_scale: float) -> list[HeadSpec]:
    anchors = [((12.0, 16.0), (20.0, 30.0)), ((40.0, 30.0), (60.0, 90.0)), ((120.0, 100.0), (200.0, 220.0))]
    return [HeadSpec(s, a, 3, grid_scale=grid_scale, wh=wh) for s, a in zip((8, 16, 32), anchors, strict=True)]


def truths() -> list[Sample]:
    """Pictures of several shapes whose boxes are neither square nor centred; one is empty."""
    g = torch.Generator().manual_seed(0)
    out = []
    for number, (height, width) in enumerate([(480, 640), (333, 500), (700, 301), (320, 320)]):
        low = torch.rand(6, 2, generator=g) * torch.tensor([width * 0.6, height * 0.6])
        # sides within a factor of 3 of some anchor: what no anchor reaches gets no positive (see assign)
        scale = min(width, height) * (0.08 + 0.25 * torch.rand(6, 1, generator=g))
        side = scale * (0.7 + 0.7 * torch.rand(6, 2, generator=g))
        boxes = torch.cat((low, low + side), 1).tolist() if number != 3 else []
        labels = torch.randint(3, (len(boxes),), generator=g).tolist()
        entry = sample(boxes, labels, ident=number)
        out.append(Sample(None, (height, width), entry.boxes, entry.labels, entry.iscrowd, entry.area, entry.difficult,
                          number))  # fmt: skip
    return out


def perfect_maps(
    targets: Targets, levels: list[HeadSpec], images: int, size: tuple[int, int], rule: str = "ratio"
) -> list[torch.Tensor]:
    """What an ideal network would answer: at each positive the encoded box, certainty and the class."""
    maps = []
    grids = [(size[0] // spec.stride, size[1] // spec.stride) for spec in levels]
    for spec, grid, found in zip(levels, grids, assign(targets, levels, grids, rule), strict=True):
        no, yes = (0.0, 1.0) if spec.objectness == "linear" else (-12.0, 12.0)
        raw = torch.full((images, spec.channels, *grid), no)
        t = encode(targets.boxes[found.target], spec, found.anchor, found.row, found.column)
        each = 5 if spec.classes_per == "cell" else 5 + spec.classes
        for n in range(len(t)):
            cell = raw[found.image[n], :, found.row[n], found.column[n]]
            start = int(found.anchor[n]) * each
            cell[start : start + 4] = t[n]
            cell[start + 4] = yes
            classes = len(spec.anchors) * 5 if spec.classes_per == "cell" else start + 5
            cell[classes : classes + spec.classes] = no  # another object's, where two want one prediction
            cell[classes + targets.labels[found.target[n]]] = yes
        maps.append(raw)
    return maps


GENERATIONS = {
    "best_iou": [HeadSpec(16, ((320.0, 320.0),) * 2, 3, "linear", 1.0, "square", "linear", "linear", "cell")],
    "best_anchor": [*specs("exp", 1.0)[:2], HeadSpec(32, ((120.0, 100.0), (200.0, 220.0)), 3, class_code="softmax")],
}


@pytest.mark.parametrize("rule", GENERATIONS)
def test_truth_through_the_street_of_each_generation(rule: str) -> None:
    """Their rules give each object to one prediction; objects that share one are left out of the truth."""
    levels, size = GENERATIONS[rule], (320, 320)
    samples, letterboxes, targets = letterboxed(size, "stretch")
    maps = perfect_maps(targets, levels, len(samples), size, rule)
    found = postprocess(maps, levels, letterboxes, LIMITS)
    kept = reachable(targets, levels, size, rule)
    assert len(targets.boxes) - 2 <= kept == sum(len(d) for d in found)
    result = coco_metric(samples, found, CLASSES)
    assert result.numbers["AR100"] >= 0.85
    for s, d in zip(samples, found, strict=True):
        best = pairwise_iou(d.boxes, s.boxes) * (d.labels[:, None] == s.labels)
        assert (best.amax(1) > 0.999).all() if len(d) else len(s.boxes) == 0


def letterboxed(size: tuple[int, int], mode: str) -> tuple[list[Sample], list[Letterbox], Targets]:
    samples = truths()
    letterboxes = [Letterbox.fit(s.size, Preprocess(size, mode=mode)) for s in samples]
    return samples, letterboxes, Targets(
        torch.cat([box.apply(s.boxes) for box, s in zip(letterboxes, samples, strict=True)]),
        torch.cat([s.labels for s in samples]),
        torch.cat([torch.full((len(s.boxes),), n) for n, s in enumerate(samples)]),
        torch.zeros(sum(len(s.boxes) for s in samples), dtype=torch.bool),
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
@pytest.mark.parametrize(("wh", "grid_scale"), [("sigmoid_square", 2.0), ("exp", 2.0), ("exp", 1.0)])
@pytest.mark.parametrize("size", [(320, 320), (256, 416)])
def test_truth_through_the_whole_street_scores_one(
    mode: str, wh: str, grid_scale: float, size: tuple[int, int]
) -> None:
    levels = specs(wh, grid_scale)
    samples, letterboxes, targets = letterboxed(size, mode)
    maps = perfect_maps(targets, levels, len(samples), size)
    found = postprocess(maps, levels, letterboxes, LIMITS)
    result = coco_metric(samples, found, CLASSES)
    assert result.numbers["AP"] == pytest.approx(1), result.numbers
    assert len(found[3]) == 0
    for s, d in zip(samples, found, strict=True):
        assert d.size == s.size


def test_a_cap_is_reported() -> None:
    levels, samples = specs("exp", 1.0), truths()[:1]
    box = Letterbox.fit(samples[0].size, Preprocess((320, 320)))
    n = len(samples[0].boxes)
    targets = Targets(box.apply(samples[0].boxes), samples[0].labels, torch.zeros(n, dtype=torch.int64),
                      torch.zeros(n, dtype=torch.bool))  # fmt: skip
    maps = perfect_maps(targets, levels, 1, (320, 320))
    (found,) = postprocess(maps, levels, [box], Thresholds(0.25, 0.5, 2, best_class=True))
    assert len(found) == 2
    assert found.capped


def test_a_diverged_network_gives_no_infinite_box() -> None:
    levels = specs("exp", 1.0)
    box = Letterbox.fit((100, 100), Preprocess((64, 64)))
    maps = [torch.full((1, s.channels, 64 // s.stride, 64 // s.stride), float("nan")) for s in levels]
    (found,) = postprocess(maps, levels, [box], LIMITS)
    assert len(found) == 0
