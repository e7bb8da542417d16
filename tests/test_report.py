"""The report: one file that needs nothing else, whatever the names, boxes or run. In a browser: browser_report.py."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.test_ap import found, sample
from tests.test_checkpoint import content
from yolite.checkpoint import save_checkpoint
from yolite.commands.story import tell_results
from yolite.data.dataset import Split
from yolite.evaluation.analysis import analyse
from yolite.evaluation.coco import coco_metric
from yolite.report import evaluation as report
from yolite.report.pictures import MOST_BYTES, Album
from yolite.report.svg import Chart, ticks
from yolite.settings import make_config
from yolite.structures import Detections, Sample

Cli = Callable[..., tuple[int, str, str]]
HOSTILE = """<img src=x onerror="alert('1')">&amp;</script>`${1}`"""
A, B = [10.0, 20, 60, 90], [100.0, 50, 250, 150]


class Reader(HTMLParser):
    """Collects tags, addresses, scripts and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []
        self.data = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.sources += [str(v) for k, v in attrs if k in ("src", "href", "action")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        self.json = dict(attrs).get("type") == "application/json"

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open[-1:] == ["script"] and self.json:
            self.data += data


def written(
    tmp_path: Path, samples: list[Sample], detections: list[Detections], names: list[str], title: str = "r.json"
) -> tuple[str, Reader]:  # fmt: skip
    """Write the report of a results file and read it."""
    result = coco_metric(samples, detections, names)
    split = Split("val", samples, names, list(range(1, len(names) + 1)), [], "here [val]")
    story = tell_results(Path(title), split, make_config({}))
    path = tmp_path / "deep" / "report.html"
    size = report.write_report(path, story, analyse(samples, detections, result, names), samples)
    page = path.read_text(encoding="utf-8")
    assert size == len(page.encode())
    return page, Reader(page)


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """Write a picture of noise: the largest JPEG there is."""
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    return path


def test_names_are_escaped(tmp_path: Path) -> None:
    path = picture(tmp_path / "a<b>'\".png", (400, 400))
    samples = [replace(sample([A, B], [0, 1]), path=path)]
    detections = [found([A, [300.0, 300, 340, 340]], [0.9, 0.8], [0, 1])]
    page, reader = written(tmp_path, samples, detections, [HOSTILE, "disc"], title=f"{HOSTILE}.json")
    assert "<img src=x" not in page
    assert reader.handlers == []
    assert page.count("</script>") == reader.open.count("script")
    assert json.loads(reader.data)["names"] == [HOSTILE, "disc"]
    assert any(HOSTILE in text for text in reader.text)  # shown as it is


def test_the_file_needs_nothing_else(tmp_path: Path) -> None:
    samples = [replace(sample([A, B], [0, 1]), path=picture(tmp_path / "a.png", (400, 400)))]
    page, reader = written(tmp_path, samples, [found([A], [0.9], [1])], ["a", "b"])
    addresses = [s for s in reader.sources if not s.startswith(("data:", "#"))]
    assert addresses == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "@import" not in page
    assert "url(" not in page
    assert "data:image/jpeg;base64," in page
    assert "IoU 0.5, maxDets 100" in page


def test_the_numbers_in_the_page_are_those_of_the_evaluation(tmp_path: Path) -> None:
    samples = [sample([A, B], [0, 0])]
    detections = [found([A, [300.0, 300, 340, 340], B], [0.9, 0.8, 0.35], [0, 0, 0])]
    page, reader = written(tmp_path, samples, detections, ["a"])
    data = json.loads(reader.data)
    assert [data["right"][0][i] for i in (0, 349, 351, 901)] == [2, 2, 1, 0]
    assert [data["wrong"][0][i] for i in (0, 799, 801)] == [1, 1, 0]
    assert data["objects"] == [2]
    assert data["step"] == 0.001
    assert f"{coco_metric(samples, detections, ['a']).numbers['AP']:.3f}" in page


@pytest.mark.parametrize(
    ("samples", "detections"),
    [
        ([sample([], [])], [found([], [], [])]),
        ([sample([A], [0])], [found([], [], [])]),
        ([sample([], [])], [found([A], [0.9], [0])]),
        ([sample([A], [0], [True])], [found([A], [0.9], [0])]),
        ([replace(sample([A], [0]), size=(0, 0))], [found([A], [0.9], [0])]),
        ([replace(sample([A], [0]), path=Path("gone.jpg"))], [found([B], [0.9], [0])]),
        ([replace(sample([[390.0, 390, 900, 900]], [0]))], [found([[500.0, 500, 501, 501]], [0.9], [0])]),
    ],
    ids=["nothing", "no box", "no object", "crowd", "no size", "no file", "outside"],
)
def test_whatever_is_missing(tmp_path: Path, samples: list[Sample], detections: list[Detections]) -> None:
    page, reader = written(tmp_path, samples, detections, ["a"])
    json.loads(reader.data)
    assert "How this was made" in page
    assert "nan" not in page.lower().split("<script")[0].replace("nano", "")


def test_a_page_never_gets_too_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are embedded as long as there is room; the rest is counted and said."""
    monkeypatch.setattr(report, "Album", lambda: Album(300_000))
    path = picture(tmp_path / "noise.png", (480, 480))
    samples = [replace(sample([A], [0], ident=i), path=path) for i in range(12)]
    page, reader = written(tmp_path, samples, [found([], [], [])] * 12, ["a"])
    pictures = sum(len(s) for s in reader.sources if s.startswith("data:image"))
    assert 100_000 < pictures <= 300_000
    assert "more pictures would have made this page too heavy" in page
    # what a page may weigh: pictures, and for each class its row and counts (a page of 80 classes is in docs)
    assert MOST_BYTES + 2 * 2**20 < 15e6


def test_many_classes_keep_the_page_small(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(150)]
    rng = np.random.default_rng(0)
    samples, detections = [], []
    for number in range(60):
        corner = rng.uniform(0, 300, (20, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(10, 90, (20, 2))), 1).tolist()
        labels = rng.integers(0, 150, 20).tolist()
        samples.append(sample(boxes, labels, ident=number))
        detections.append(found(boxes, rng.random(20).tolist(), rng.permutation(labels).tolist()))
    page, reader = written(tmp_path, samples, detections, names)
    assert len(page) < 1_500_000
    data = json.loads(reader.data)
    assert data["step"] == 0.01
    assert len(data["right"][0]) == 100
    assert f"The {report.MATRIX} classes confused most of 150" in page


def test_crops_lie_where_the_box_is(tmp_path: Path) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[50:90, 200:260] = 255
    cv2.imwrite(str(tmp_path / "a.png"), image)
    one = replace(sample([], []), path=tmp_path / "a.png")
    crop = Album().crop(one, (200.0, 50.0, 260.0, 90.0), 200)
    assert crop is not None
    import base64

    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(crop.source.split(",")[1]), np.uint8), 0)
    left, top, width, height = (v / 100 for v in crop.share((200.0, 50.0, 260.0, 90.0)))
    h, w = pixels.shape
    inside = pixels[round(top * h) : round((top + height) * h), round(left * w) : round((left + width) * w)]
    assert inside.mean() > 245
    assert pixels[: round(top * h) - 1].mean() < 10
    assert Album().crop(one, (500.0, 500.0, 600.0, 600.0), 200) is None


def test_charts() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(3, 27) == [5, 10, 15, 20, 25]
    chart = Chart((0, 10), (0, 1), ("x <b>", "y"), "t")
    assert chart.at(0, 0)[1] > chart.at(0, 1)[1]
    chart.line([0, 5, 10], [0, None, float("nan")], "a & b")
    drawn = chart.__html__()
    assert "x &lt;b&gt;" in drawn
    assert "a &amp; b" in drawn
    assert "nan" not in drawn
    assert torch.tensor([chart.at(10, 1)]).tolist() == [[428, 12]]


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_evaluate_results_with_a_report(cli: Cli, three_formats: dict[str, Path], tmp_path: Path) -> None:
    truth = three_formats["coco"].parent / "coco.json"
    rows = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
            for a in json.loads(truth.read_text())["annotations"][1:]]  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(rows))
    page = tmp_path / "page.html"
    # the YAML knows where the pictures are
    command = ["evaluate", "--results", tmp_path / "r.json", "--data", three_formats["coco"], "--split", "train"]
    status, out, err = cli(*command, "--report", page)
    assert status == 0, err
    assert "page.html" in out
    assert page.read_text().count("data:image/jpeg") >= 1
    worst = json.loads((tmp_path / "page-worst.json").read_text())
    assert [i["rank"] for i in worst["images"]] == [1]
    assert worst["annotations"][0]["kind"] == "missed"
    assert Path(worst["images"][0]["file_name"]).is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [("page.txt", "the report is a .html"), ("", "is a folder"), ("file/x.html", "cannot be")],
)
def test_reports_that_cannot_be_written(cli: Cli, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = cli("evaluate", "--weights", "none.ckpt", "--report", tmp_path / name)
    assert status == 2
    assert words in err
    assert err.count("\n") == 1


def test_a_run_that_has_not_validated_yet(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    status, _, err = cli("evaluate", "--weights", run, "--data", shapes, "--report", tmp_path / "r.html")
    assert status == 2
    assert "holds no checkpoint" in err
    save_checkpoint(run / "last.ckpt", {**content(classes=2), "training": {}})
    (run / "metrics.jsonl").write_text("")
    status, out, err = cli(
        "evaluate", "--weights", run, "--data", shapes, "--imgsz", 64, "--report", tmp_path / "r.html"
    )
    assert status == 0, err
    assert "no epoch of this run is finished" in out
    page = (tmp_path / "r.html").read_text()
    assert "No epoch is finished yet" in page
    assert page.count("data:image/jpeg") >= 6
    assert "anchors on 3 levels" in page
