"""`yolite compare`: the differences are pycocotools' own, the interval tells chance from change."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_ap import found, sample
from tests.test_match import NAMES, plain_set
from yolite.evaluation.coco import coco_metric
from yolite.evaluation.compare import SIZES, compare
from yolite.evaluation.results import results_rows
from yolite.structures import Detections, Sample


def blurred(samples: list[Sample], detections: list[Detections], share: float) -> list[Detections]:
    """Leave out a share of the detections."""
    generator = torch.Generator().manual_seed(3)
    return [d[torch.rand(len(d), generator=generator) >= share] for d in detections]


def test_the_numbers_are_pycocotools_own() -> None:
    samples, a = plain_set(2, images=8)
    b = blurred(samples, a, 0.4)
    result = compare(samples, a, b, NAMES, most=5)
    rows = {(d.kind, d.name): d for d in result.differences}
    for which, detections in (("a", a), ("b", b)):
        judged = coco_metric(samples, detections, NAMES)
        for key, name in ((("all", "AP"), "AP"), (("all", "AP50"), "AP50"), (("size", "small"), "APs"),
                          (("size", "medium"), "APm"), (("size", "large"), "APl")):  # fmt: skip
            assert getattr(rows[key], which) == pytest.approx(judged.numbers[name], abs=1e-12), (which, name)
        for entry in judged.per_class:
            assert getattr(rows["class", entry.name], which) == pytest.approx(entry.AP, abs=1e-12)
    assert rows["all", "AP"].objects == sum(rows["class", name].objects for name in NAMES)
    assert sum(rows["size", size].objects for size in list(SIZES)[1:]) == rows["all", "AP"].objects


def test_the_same_is_no_difference() -> None:
    samples, a = plain_set(4, images=5)
    result = compare(samples, a, a, NAMES, most=20)
    assert all((d.change, d.low, d.high, d.real) == (0, 0, 0, False) for d in result.differences)
    assert result.pictures == []


def test_chance_and_change() -> None:
    """A box more in one of 40 pictures is within chance; a class lost in every other picture is not."""
    box = [10.0, 10, 50, 50]
    truth = [sample([box, [100.0, 10, 140, 50]], [0, 1], ident=i) for i in range(40)]
    perfect = [found([box, [100.0, 10, 140, 50]], [0.9, 0.8], [0, 1]) for _ in truth]
    one_less = [found([box], [0.9], [0]), *perfect[1:]]
    half = [found([[100.0, 10, 140, 50]], [0.8], [1]) if i % 2 else p for i, p in enumerate(perfect)]
    little = {d.name: d for d in compare(truth, perfect, one_less, ["a", "b"], most=200).differences}
    assert little["b"].change < 0
    assert not little["b"].real
    result = compare(truth, perfect, half, ["a", "b"], most=200)
    much = {d.name: d for d in result.differences}
    assert much["a"].real
    assert much["a"].change == pytest.approx(51 / 101 - 1)
    assert much["a"].low < much["a"].change < much["a"].high < 0
    assert not much["b"].real
    assert [(p.image, p.missed, p.wrong, p.better) for p in result.pictures] == [
        (i, (0, 1), (0, 0), -1) for i in range(1, 40, 2)]  # fmt: skip


def test_without_objects_or_boxes() -> None:
    nothing = [sample([], []), sample([], [])]
    empty = [found([], [], [])] * 2
    result = compare(nothing, empty, empty, ["a"])
    assert {(d.a, d.b, d.real) for d in result.differences} == {(-1.0, -1.0, False)}
    assert result.confidence == (None, None)


@pytest.fixture
def truth(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A COCO json and two results files, the second with every other box left out."""
    samples, detections = plain_set(1, images=4)
    annotations = [
        {"id": 0, "image_id": n, "category_id": 10 + label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for n, s in enumerate(samples)
        for (x1, y1, x2, y2), label in zip(s.boxes.tolist(), s.labels.tolist(), strict=True)
    ]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 300, "height": 300} for n in range(4)]
    content = {"images": images, "annotations": [{**a, "id": i} for i, a in enumerate(annotations, 1)],
               "categories": [{"id": 10 + i, "name": name} for i, name in enumerate(NAMES)]}  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(content))
    for name, step in (("a.json", 1), ("b.json", 2)):
        rows = results_rows(samples, [d[torch.arange(0, len(d), step)] for d in detections], [10, 11, 12])
        (tmp_path / name).write_text(json.dumps(rows))
    return tmp_path / "truth.json", tmp_path / "a.json", tmp_path / "b.json"


def test_the_command(
    cli: Callable[..., tuple[int, str, str]], truth: tuple[Path, Path, Path], tmp_path: Path
) -> None:  # fmt: skip
    data, a, b = truth
    status, out, err = cli("compare", a, b, "--data", data, "--json", tmp_path / "c.json")
    assert status == 0, err
    assert "worse: " in out
    content = json.loads((tmp_path / "c.json").read_text())
    ap = content["differences"][0]
    assert ap["name"] == "AP"
    assert ap["change"] == pytest.approx(ap["b"] - ap["a"])
    assert content["resamples"] == 1000
    assert np.isfinite([d["low"] for d in content["differences"]]).all()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image_id": 99, "category_id": 10, "bbox": [0, 0, 1, 1], "score": 0.5}, "image 99, which the data set"),
        ({"image_id": 0, "category_id": 99, "bbox": [0, 0, 1, 1], "score": 0.5}, "category 99, which is not"),
    ],
)
def test_files_that_do_not_belong_together(
    cli: Callable[..., tuple[int, str, str]], truth: tuple[Path, Path, Path], row: dict, words: str
) -> None:
    data, a, b = truth
    b.write_text(json.dumps([row]))
    for command in (("compare", a, b), ("evaluate", "--results", b)):
        status, _, err = cli(*command, "--data", data)
        assert status == 2
        assert words in err
        assert err.count("\n") == 1, err
    status, _, err = cli("compare", a, b.with_name("none.json"), "--data", data)
    assert status == 2
    assert "none.json does not exist" in err
