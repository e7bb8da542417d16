"""The worst pictures: what is in the list, in which order, and the file for labelling tools."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_ap import found, sample
from tests.test_match import NAMES, random_set
from yolite.errors import UserError
from yolite.evaluation.analysis import Analysis, analyse, to_plain
from yolite.evaluation.coco import coco_metric
from yolite.evaluation.results import read_results, results_rows, worst_file
from yolite.evaluation.worst import doubts
from yolite.sources import require_items
from yolite.structures import Detections, Sample

A, B, C, D = ([100.0 * i, 0, 100.0 * i + 40, 40] for i in range(4))


def analysed(samples: list[Sample], detections: list[Detections], names: list[str], **options: float) -> Analysis:
    return analyse(samples, detections, coco_metric(samples, detections, names), names, **options)


def three_pictures() -> Analysis:
    """0: all right; 1: A found late, B missed, a sure box where no label is; 2: a label that nobody finds."""
    samples = [sample([A], [0], ident=7), sample([A, B, C], [0, 0, 1], ident=8), sample([D], [0], ident=9)]
    detections = [
        found([A], [0.9], [0]),
        found([[0, 300, 40, 340], C, A, [100, 0, 110, 40]], [0.95, 0.8, 0.3, 0.01], [0, 0, 0, 0]),
        found([], [], []),
    ]
    return analysed(samples, detections, ["a", "b"], precision=0.01)


def test_the_ranking_and_its_reasons() -> None:
    analysis = three_pictures()
    assert analysis.confidence == 0  # any precision will do: all boxes are shown
    first, second = analysis.worst
    assert (first.image, second.image) == (1, 2)
    assert first.badness == pytest.approx(1 + 1 + 0.95 + 0.8 + 0.01)
    reasons = {(f.kind, f.error, f.doubt) for f in first.findings}
    assert reasons == {
        ("missed", "", ""),  # B, beside which a loose box lies, and C, which has a box of another class
        ("false alarm", "Bkg", "no label"), ("false alarm", "Cls", "another class"), ("false alarm", "Loc", ""),
    }  # fmt: skip
    assert [(f.kind, f.error, f.doubt) for f in second.findings] == [("missed", "Miss", "nobody finds it")]
    assert [f.doubt for f in doubts(analysis.worst)] == ["no label", "another class", "nobody finds it"]


def test_what_is_below_the_threshold_is_not_shown() -> None:
    samples = [sample([A, B], [0, 0])]
    detections = [found([A, B, C], [0.9, 0.3, 0.2], [0, 0, 0])]
    analysis = analysed(samples, detections, ["a"], beta=0.1)  # precision counts
    assert analysis.confidence > 0.2
    (picture,) = analysed(samples, [found([A, C, B], [0.9, 0.5, 0.3], [0, 0, 0])], ["a"], beta=0.1).worst
    assert [(f.kind, f.score) for f in picture.findings] == [("missed", pytest.approx(0.3))]


def test_a_perfect_and_an_empty_evaluation() -> None:
    perfect = analysed([sample([A], [0])], [found([A], [0.9], [0])], ["a"])
    assert perfect.worst == []
    for samples, detections in (([sample([], [])], [found([], [], [])]), ([sample([A], [0])], [found([], [], [])])):
        empty = analysed(samples, detections, ["a"])
        assert empty.deploy is None
        assert empty.confidence == 0.25
        json.dumps(to_plain(empty, samples), allow_nan=False)


def test_the_file_is_a_coco_json() -> None:
    analysis = three_pictures()
    samples = [sample([A], [0], ident=n) for n in (7, 8, 9)]
    content = worst_file(samples, analysis.worst, ["a", "b"], [3, 5], {})
    assert [(i["id"], i["rank"], i["source_id"]) for i in content["images"]] == [(1, 1, 8), (2, 2, 9)]
    last = content["annotations"][-1]
    assert {k: last[k] for k in ("image_id", "category_id", "bbox", "kind", "doubt", "score")} == {
        "image_id": 2, "category_id": 3, "bbox": [300, 0, 40, 40], "kind": "missed", "doubt": "nobody finds it",
        "score": None}  # fmt: skip
    assert content["categories"] == [{"id": 3, "name": "a"}, {"id": 5, "name": "b"}]
    json.dumps(content, allow_nan=False)


def test_written_detections_are_read_back_to_the_bit(tmp_path: Path) -> None:
    samples, detections = random_set(5)
    detections = [replace(d, boxes=d.boxes * 1.2345 + 0.1, scores=d.scores / 3) for d in detections]
    path = tmp_path / "d.json"
    path.write_text(json.dumps(results_rows(samples, detections, [4, 8, 15])))
    again = read_results(path, samples, [4, 8, 15])
    for a, b in zip(detections, again, strict=True):
        order = a.scores.argsort(descending=True, stable=True)
        assert a.boxes[order].equal(b.boxes)
        assert a.scores[order].equal(b.scores)
        assert a.labels[order].equal(b.labels)
    assert coco_metric(samples, again, NAMES).numbers == coco_metric(samples, detections, NAMES).numbers


def test_ids_that_stand_for_two_images(tmp_path: Path) -> None:
    samples = [sample([A], [0], ident=1)] * 2
    with pytest.raises(UserError, match="several images"):
        results_rows(samples, [found([], [], [])] * 2, [1])
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(UserError, match="several images"):
        read_results(tmp_path / "r.json", samples, [1])


def test_detect_takes_the_file_as_a_list(tmp_path: Path) -> None:
    content = worst_file([sample([A], [0], ident=n) for n in (7, 8, 9)], three_pictures().worst, ["a", "b"], [1, 2], {})
    path = tmp_path / "worst.json"
    path.write_text(json.dumps(content))
    assert [item.content for item in require_items([path])] == [tmp_path / "8", tmp_path / "9"]
    content["images"][0]["file_name"] = "/elsewhere/x.jpg"
    path.write_text(json.dumps(content))
    assert require_items([path])[0].content == Path("/elsewhere/x.jpg")
    for wrong in ("[]", "{}", '{"images": []}', '{"images": [{"id": 1}]}'):
        path.write_text(wrong)
        with pytest.raises(UserError, match="no list of images"):
            require_items([path])
