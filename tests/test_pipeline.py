"""The identity of the whole street: truth → letterbox → assign → encode → raw maps → decode → NMS → invert → AP 1."""

import pytest
import torch

from tests.test_evaluation import sample
from yolite.codec import encode
from yolite.evaluation.coco import coco_metric
from yolite.geometry import Letterbox
from yolite.postprocess import Thresholds, postprocess
from yolite.structures import HeadSpec, Preprocess, Sample, Targets
from yolite.training.assign import by_ratio

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


def perfect_maps(targets: Targets, levels: list[HeadSpec], images: int, size: tuple[int, int]) -> list[torch.Tensor]:
    """What an ideal network would answer: at each positive the encoded box, certainty and the class."""
    maps = []
    for spec in levels:
        rows, columns = size[0] // spec.stride, size[1] // spec.stride
        found = by_ratio(targets, spec, (rows, columns))
        raw = torch.full((images, len(spec.anchors), 5 + spec.classes, rows, columns), -12.0)
        t = encode(targets.boxes[found.target], spec, found.anchor, found.row, found.column)
        at = (found.image, found.anchor, slice(None), found.row, found.column)
        answer = torch.full((len(t), 5 + spec.classes), -12.0)
        answer[:, :4] = t
        answer[:, 4] = 12.0
        answer[torch.arange(len(t)), 5 + targets.labels[found.target]] = 12.0
        raw[at] = answer
        maps.append(raw.flatten(1, 2))
    return maps


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
@pytest.mark.parametrize(("wh", "grid_scale"), [("sigmoid_square", 2.0), ("exp", 2.0), ("exp", 1.0)])
@pytest.mark.parametrize("size", [(320, 320), (256, 416)])
def test_truth_through_the_whole_street_scores_one(
    mode: str, wh: str, grid_scale: float, size: tuple[int, int]
) -> None:
    levels, samples = specs(wh, grid_scale), truths()
    letterboxes = [Letterbox.fit(s.size, Preprocess(size, mode=mode)) for s in samples]
    targets = Targets(
        torch.cat([box.apply(s.boxes) for box, s in zip(letterboxes, samples, strict=True)]),
        torch.cat([s.labels for s in samples]),
        torch.cat([torch.full((len(s.boxes),), n) for n, s in enumerate(samples)]),
        torch.zeros(sum(len(s.boxes) for s in samples), dtype=torch.bool),
    )
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
