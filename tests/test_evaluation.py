import json
from pathlib import Path

import pytest
import torch

from yolite.errors import UserError
from yolite.evaluation.coco import NUMBERS, coco_metric
from yolite.evaluation.results import read_results
from yolite.structures import Detections, Sample


def sample(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None, ident: int = 1) -> Sample:
    b = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    n = len(b)
    flags = torch.tensor(crowd) if crowd else torch.zeros(n, dtype=torch.bool)
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return Sample(None, (200, 300), b, torch.tensor(labels, dtype=torch.int64), flags, area,
                  torch.zeros(n, dtype=torch.bool), ident)  # fmt: skip


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores),
                      torch.tensor(labels, dtype=torch.int64), (200, 300))  # fmt: skip


BOX, OTHER = [10.0, 20.0, 60.0, 90.0], [100.0, 50.0, 250.0, 150.0]


def test_a_perfect_answer_scores_one() -> None:
    truth = [sample([BOX, OTHER], [0, 1])]
    result = coco_metric(truth, [found([BOX, OTHER], [0.9, 0.3], [0, 1])], ["a", "b"])
    assert result.numbers["AP"] == pytest.approx(1)
    assert [c.AP for c in result.per_class] == pytest.approx([1, 1])
    assert [c.objects for c in result.per_class] == [1, 1]
    assert result.numbers["APs"] == -1


def test_by_hand() -> None:
    """Two objects, three detections: hit, miss, hit. Precision 1, 1/2, 2/3: AP = (51 · 1 + 50 · 2/3) / 101."""
    truth = [sample([BOX, OTHER], [0, 0])]
    answer = found([BOX, [0.0, 0.0, 5.0, 5.0], OTHER], [0.9, 0.8, 0.7], [0, 0, 0])
    result = coco_metric(truth, [answer], ["a"])
    assert result.numbers["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert result.numbers["AR100"] == pytest.approx(1)


def test_a_class_off_by_one_scores_nothing() -> None:
    result = coco_metric([sample([BOX], [0])], [found([BOX], [0.9], [1])], ["a", "b"])
    assert result.numbers["AP"] == 0
    assert [c.AP for c in result.per_class] == [0, -1]


def test_a_loose_box_counts_at_fifty_alone() -> None:
    loose = [10.0, 20.0, 60.0, 20 + 70 * 0.62]  # IoU 0.62
    result = coco_metric([sample([BOX], [0])], [found([loose], [0.9], [0])], ["a"])
    assert result.numbers["AP50"] == pytest.approx(1)
    assert result.numbers["AP75"] == 0
    assert result.numbers["AP"] == pytest.approx(0.3)


def test_crowds_are_neither_missed_nor_false() -> None:
    truth = [sample([BOX, OTHER], [0, 0], [False, True])]
    inside = [[110.0, 60.0, 150.0, 100.0], [160.0, 60.0, 200.0, 100.0]]
    result = coco_metric(truth, [found([BOX, *inside], [0.5, 0.9, 0.8], [0, 0, 0])], ["a"])
    assert result.numbers["AP"] == pytest.approx(1)


def test_nothing_found_and_nothing_there() -> None:
    empty = found([], [], [])
    assert coco_metric([sample([BOX], [0])], [empty], ["a"]).numbers["AP"] == 0
    assert coco_metric([sample([], [])], [empty], ["a"]).numbers["AP"] == -1
    assert tuple(coco_metric([sample([], [])], [empty], ["a"]).numbers) == NUMBERS


def test_area_of_the_file_decides_the_size_class() -> None:
    truth = sample([BOX], [0])
    small = Sample(
        None, truth.size, truth.boxes, truth.labels, truth.iscrowd, torch.tensor([100.0]), truth.difficult, 1
    )
    result = coco_metric([small], [found([BOX], [0.9], [0])], ["a"])
    assert result.numbers["APs"] == pytest.approx(1)
    assert result.numbers["APm"] == -1


def test_results_file_by_ids(tmp_path: Path) -> None:
    truth = [sample([BOX], [0], ident=17), sample([OTHER], [1], ident=4)]
    path = tmp_path / "r.json"
    rows = [
        {"image_id": 4, "category_id": 9, "bbox": [100, 50, 150, 100], "score": 0.7},
        {"image_id": 17, "category_id": 5, "bbox": [10, 20, 50, 70], "score": 0.8},
    ]
    path.write_text(json.dumps(rows))
    answer = read_results(path, truth, [5, 9])
    assert coco_metric(truth, answer, ["a", "b"]).numbers["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "not a list"),
        ("[1]", "entry 0 is no detection"),
        ('[{"image_id": 99, "category_id": 5, "bbox": [0,0,1,1], "score": 1}]', "image 99"),
        ('[{"image_id": 1, "category_id": 6, "bbox": [0,0,1,1], "score": 1}]', "category 6"),
        ("[", "not readable JSON"),
    ],
)
def test_results_files_that_do_not_fit(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_results(path, [sample([BOX], [0])], [5])
