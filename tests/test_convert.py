"""`yolite convert`: what one reader reads from the source, another reads from the copy; the rest is said."""

import errno
import json
import shutil
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from pycocotools.coco import COCO

from tests.conftest import NAMES, scene, write_yolo
from tests.test_bad_input import refused
from tests.test_readers import load
from yolite.data.convert import Format, make_parts, write_dataset
from yolite.data.dataset import Split
from yolite.data.images import write_image
from yolite.data.readers import coco
from yolite.structures import Sample

Cli = Callable[..., tuple[int, str, str]]
FORMATS: tuple[Format, ...] = ("yolo", "coco", "voc")


def assert_same(read: Split, made: Split) -> None:
    """Two splits hold the same images and boxes, in one order."""
    assert made.problems == []
    assert made.names == read.names
    for a, b in zip(read.samples, made.samples, strict=True):
        assert a.path.read_bytes() == b.path.read_bytes()
        assert a.size == b.size
        for field in ("boxes", "labels", "iscrowd", "difficult"):
            assert torch.equal(getattr(a, field), getattr(b, field)), (field, a.path)
        torch.testing.assert_close(a.area, b.area, rtol=1e-5, atol=0)


def state(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What lies in a folder, and when it was last changed."""
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path in folder.rglob("*") if (s := path.lstat())}


@pytest.fixture
def flagged(three_formats: dict[str, Path]) -> Path:
    """The COCO set with a crowd, a mask's area, a difficult box, fractions, a background; not in order of name."""
    file = three_formats["coco"].parent / "coco.json"
    content = json.loads(file.read_text())
    content["images"].reverse()
    first = content["annotations"]
    first[0].update(iscrowd=1, area=77.5, segmentation=[[1, 2, 3]])
    first[-1].update(ignore=1, bbox=[10.25, 3.07, 20.1, 30.33], area=609.633)
    content["annotations"] = [a for a in first if a["image_id"] != 12]
    content["licenses"] = [{"id": 1}]
    file.write_text(json.dumps(content))
    return three_formats["coco"]


# ---------------------------------------------------------------- what is read back


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_format_becomes_every_other(
    three_formats: dict[str, Path], cli: Cli, tmp_path: Path, source: str, to: str
) -> None:
    before, out = state(tmp_path), tmp_path / "out"
    status, said, err = cli("convert", "--data", three_formats[source], "--to", to, "--out", out)
    assert (status, err) == (0, "")
    read, made = load(three_formats[source]), load(tmp_path / "out")
    assert_same(read, made)
    assert [s.path.name for s in made.samples] == [s.path.name for s in read.samples]
    assert f"train: 6 images, {read.boxes} boxes as {to}\n" in said
    assert {path: seen for path, seen in state(tmp_path).items() if out not in (path, *path.parents)} == before
    if to == "coco":
        assert made.category_ids == ([3, 7] if source == "coco" else [1, 2])
        assert [s.id for s in made.samples] == (list(range(10, 16)) if source == "coco" else list(range(1, 7)))


def test_coco_keeps_all_that_a_sample_holds(flagged: Path, cli: Cli, tmp_path: Path) -> None:
    status, said, _ = cli("convert", "--data", flagged, "--to", "coco", "--out", tmp_path / "out")
    assert status == 0
    assert_same(load(flagged), load(tmp_path / "out"))
    assert "not boxes, so not carried over: licenses x 1, segmentation x 1" in said
    judge = COCO(tmp_path / "out" / "annotations" / "train.json")
    assert [judge.imgs[i]["file_name"] for i in (15, 10)] == ["s005.png", "s000.png"]
    assert judge.getAnnIds(imgIds=[12]) == []
    assert [a["bbox"] for a in judge.anns.values() if a.get("ignore")] == [[10.25, 3.07, 20.1, 30.33]]


def test_yolo_leaves_crowd_and_difficult_out_and_says_so(flagged: Path, cli: Cli, tmp_path: Path) -> None:
    status, said, _ = cli("convert", "--data", flagged, "--to", "yolo", "--out", tmp_path / "out")
    read, made = load(flagged), load(tmp_path / "out")
    assert status == 0
    assert [s.path.name for s in made.samples] == [s.path.name for s in read.samples]
    assert [len(s.boxes) for s in made.samples] == [int((~s.ignore).sum()) for s in read.samples]
    assert f"{read.boxes - 2} of {read.boxes} boxes as yolo; 1 crowd boxes left out; 1 difficult boxes left out" in said
    assert (tmp_path / "out" / "labels" / "train" / "s002.txt").read_text() == ""


def test_voc_marks_crowds_difficult_and_says_so(flagged: Path, cli: Cli, tmp_path: Path) -> None:
    status, said, _ = cli("convert", "--data", flagged, "--to", "voc", "--out", tmp_path / "out")
    read, made = load(flagged), load(tmp_path / "out")
    assert status == 0
    assert [s.difficult.tolist() for s in made.samples] == [s.ignore.tolist() for s in read.samples]
    assert "1 crowd boxes marked difficult; 1 areas (of masks) replaced by those of the boxes" in said
    tree = ElementTree.parse(tmp_path / "out" / "Annotations" / "s005.xml")
    assert [tree.findtext(f"size/{side}") for side in ("width", "height")] == ["128", "96"]
    boxes = [[e.text for e in box] for box in tree.iterfind("object/bndbox")]
    assert boxes[-1] == ["10.25", "3.07", "30.35", "33.4"]
    assert tree.findall("object")[-1].findtext("difficult") == "1"


def test_the_numbers_of_a_yolo_row(tmp_path: Path) -> None:
    # docs/coordinates.md: xyxy (100, 200, 300, 400) of a picture of 640 x 480 px
    made = convert([sample_of(tmp_path, (480, 640), [[100, 200, 300, 400]])], "yolo", tmp_path / "out")
    text = (tmp_path / "out" / "labels" / "train" / "i480x640.txt").read_text()
    assert text == "0 0.3125 0.625 0.3125 0.4166666666666667\n"
    assert made.samples[0].boxes.tolist() == [[100, 200, 300, 400]]


def sample_of(folder: Path, size: tuple[int, int], boxes: list[list[float]]) -> Sample:
    """A picture of this size with boxes of alternating classes."""
    path = folder / "in" / f"i{size[0]}x{size[1]}.png"
    path.parent.mkdir()
    PillowImage.new("1", (size[1], size[0])).save(path)
    xyxy, count = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), len(boxes)
    no, sides = torch.zeros(count, dtype=torch.bool), (xyxy[:, 2:] - xyxy[:, :2]).double()
    return Sample(path, size, xyxy, torch.arange(count) % 2, no, sides.prod(1).float(), no, 1)


def convert(samples: list[Sample], to: Format, out: Path) -> Split:
    """Write samples as a format and read them back."""
    split = Split("train", samples, NAMES, [1, 2], [], "here")
    write_dataset(make_parts([(["train"], split)], "yolo", to), to, out, False, lambda *_: None)
    return load(out)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[tuple[int, int], list[list[float]]]:
    """A size of any parity and boxes anywhere in it, many of them at its border."""
    size = (draw(st.integers(1, 3000)), draw(st.integers(1, 3000)))
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        place = [st.floats(0, side, width=32) | st.sampled_from([0.0, float(side)]) for side in (size[1], size[0])]
        (x1, x2), (y1, y2) = (sorted((draw(p), draw(p))) for p in place)
        box = [x1, y1, x2, y2]
        near = any(max(abs(a - b) for a, b in zip(box, other, strict=True)) < 1e-5 for other in boxes)
        if min(x2 - x1, y2 - y1) > 1e-6 and not near:  # what a format writes alike is a box that is there twice
            boxes.append(box)
    return size, boxes


@pytest.mark.parametrize("to", FORMATS)
@given(picture=pictures())
@settings(max_examples=40)
@example(picture=((5, 2417), [[2398.009765625, 0.0, 2404.40625, 5.0]]))
def test_any_box_comes_back(to: Format, picture: tuple[tuple[int, int], list[list[float]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sample = sample_of(Path(folder), *picture)
        made = convert([sample], to, Path(folder) / "out")
    (back,) = made.samples
    assert [p for p in made.problems if not p.note] == []
    # from 8 px on this is the same float32
    torch.testing.assert_close(back.boxes, sample.boxes, rtol=0, atol=1e-6)
    assert torch.equal(back.labels, sample.labels)
    # the area is of the text's decimals, which may lie half a step of float32 from the box (at 3000 px: 1.2e-4)
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).sum(1)
    assert ((back.area - sample.area).abs() <= 1e-5 * sample.area + 2.5e-4 * sides).all()


@pytest.mark.parametrize("to", FORMATS)
def test_a_box_too_thin_for_any_decimals_is_counted(tmp_path: Path, to: Format) -> None:
    sample = sample_of(tmp_path, (50, 60), [[0, 0, 1e-9, 9], [1, 2, 3, 4]])
    (part,) = make_parts([(["train"], Split("train", [sample], NAMES, [1, 2], [], "here"))], "yolo", to)
    assert part.boxes == 1
    assert part.remarks == {"boxes thinner than 1e-06 px left out": 1}


# ---------------------------------------------------------------- image files


@pytest.mark.parametrize("to", FORMATS)
def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path, cli: Cli, to: str) -> None:
    names = ["a/x.png", "b/x.png", "b/x.bmp", "c/X.png"]
    for number, name in enumerate(names):
        write_image(tmp_path / "images" / name, np.full((9, 8 + number, 3), number, np.uint8))
        label = (tmp_path / "labels" / name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "list.txt").write_text("".join(f"images/{name}\n" for name in names))
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [thing]\n")
    status, said, _ = cli("convert", "--data", tmp_path / "data.yaml", "--to", to, "--out", tmp_path / "out")
    assert status == 0
    assert "3 images renamed, as another has their name" in said
    assert "b/x.png is x-2.png)" in said
    assert_same(load(tmp_path), load(tmp_path / "out"))
    assert len({s.path.stem.casefold() for s in load(tmp_path / "out").samples}) == 4


def test_a_line_break_in_a_file_name_breaks_no_line(tmp_path: Path, cli: Cli) -> None:
    write_image(tmp_path / "images" / "train" / "a\nb\x1b[2J.png", np.zeros((9, 8, 3), np.uint8))
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [thing]\n")
    status, said, err = cli("convert", "--data", tmp_path / "data.yaml", "--to", "yolo", "--out", tmp_path / "out")
    assert status == 0
    assert r"a\nb\x1b[2J.png is a_b_[2J.png)" in said
    assert err.count("\n") == len([line for line in err.splitlines() if line.startswith("warning: ")]) == 1


def test_voc_cannot_hold_every_file_name(tmp_path: Path, cli: Cli) -> None:
    for name in ("my photo.JPG", "plain.jpg"):
        write_image(tmp_path / "images" / "train" / name, np.zeros((9, 8, 3), np.uint8))
    shutil.copytree(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "classes.txt").write_text("thing\n")
    status, said, _ = cli("convert", "--data", tmp_path, "--to", "voc", "--out", tmp_path / "out")
    assert status == 0
    assert "1 images renamed" in said
    assert [s.path.name for s in load(tmp_path / "out").samples] == ["my_photo.jpg", "plain.jpg"]


@pytest.mark.parametrize("to", ["yolo", "voc"])
def test_an_unusual_ending_is_kept_or_refused(tmp_path: Path, cli: Cli, to: str) -> None:
    (tmp_path / "in").mkdir()
    PillowImage.new("RGB", (8, 9)).save(tmp_path / "in" / "p.gif")
    (tmp_path / "list.txt").write_text("in/p.gif\n")
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [thing]\n")
    result = cli("convert", "--data", tmp_path / "data.yaml", "--to", to, "--out", tmp_path / "out")
    if to == "voc":
        assert result[0] == 2
        assert "p.gif: VOC finds pictures by their endings" in result[2]
    else:
        assert load(tmp_path / "out").samples[0].path == tmp_path / "out" / "./images/train/p.gif"


@pytest.mark.parametrize("to", FORMATS)
def test_links(three_formats: dict[str, Path], cli: Cli, tmp_path: Path, to: str) -> None:
    assert cli("convert", "--data", three_formats["coco"], "--to", to, "--out", tmp_path / "out", "--link")[0] == 0
    for read, made in zip(load(three_formats["coco"]).samples, load(tmp_path / "out").samples, strict=True):
        assert made.path.is_symlink()
        assert made.path.resolve() == read.path.resolve()


def test_a_picture_turned_by_exif_keeps_its_bytes(tmp_path: Path, cli: Cli) -> None:
    picture = PillowImage.new("RGB", (40, 30))
    exif = picture.getexif()
    exif[0x0112] = 6
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "labels").mkdir()
    picture.save(tmp_path / "train" / "images" / "a.jpg", exif=exif)
    (tmp_path / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    status, said, _ = cli("convert", "--data", tmp_path, "--to", "coco", "--out", tmp_path / "out")
    assert status == 0
    assert "1 images turned by EXIF" in said
    assert_same(load(tmp_path), load(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())["images"][0]
    assert (record["width"], record["height"]) == (30, 40)


# ---------------------------------------------------------------- roles, classes


@pytest.mark.parametrize("to", FORMATS)
def test_every_role_is_converted_and_one_json_only_once(
    three_formats: dict[str, Path], cli: Cli, tmp_path: Path, to: str
) -> None:
    write_yolo(tmp_path / "two", {"train": 3, "val": 2})
    status, said, _ = cli("convert", "--data", tmp_path / "two", "--to", to, "--out", tmp_path / "out")
    assert status == 0
    for role in ("train", "val"):
        assert_same(load(tmp_path / "two", role), load(tmp_path / "out", role))
    assert f"train on it: yolite train --data {tmp_path / 'out'}" in said
    alone = three_formats["yolo"].parent / "images" / "train" / "all.json"
    shutil.copy(three_formats["coco"].parent / "coco.json", alone)
    status, said, _ = cli("convert", "--data", alone, "--to", to, "--out", tmp_path / "all")
    assert status == 0
    assert "train = val = test: 6 images" in said
    assert len(list((tmp_path / "all").rglob("*.png"))) == 6
    for role in ("train", "val", "test"):
        assert_same(load(alone, role), load(tmp_path / "all", role))


def test_lists_of_voc(three_formats: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    root, out = three_formats["voc"], tmp_path / "out"
    lists = root / "ImageSets" / "Main"
    (lists / "few.txt").write_text("s002\ns000\n")
    xml = root / "Annotations" / "s000.xml"
    xml.write_text(xml.read_text().replace("</object>", "<truncated>1</truncated><pose>Left</pose></object>", 1))
    status, said, err = cli("convert", "--data", root, "--to", "voc", "--out", out)
    assert status == 0
    assert "lists that play no role are left out: 1 (few)" in err
    assert "not carried over: truncated x 1, pose x 1" in said
    assert f"{out} has nothing for val" in said
    status, _, err = cli("convert", "--data", root, "--to", "voc", "--out", tmp_path / "both", "data.val=few")
    assert (status, err) == (0, "")
    assert_same(load(root, val="few", role="val"), load(tmp_path / "both", "val"))
    assert len(list((tmp_path / "both" / "JPEGImages").iterdir())) == 6
    (lists / "train.txt").rename(lists / "most.txt")
    result = cli("convert", "--data", root, "--to", "coco", "--out", tmp_path / "no")
    refused(result, "has no list train, val or test: choose one with data.ROLE=NAME, of few, most")


@pytest.mark.parametrize("to", FORMATS)
def test_classes_keep_their_order_and_those_without_boxes_stay(tmp_path: Path, cli: Cli, to: str) -> None:
    file = write_yolo(tmp_path / "in", {"train": 3})
    names = ["zebra", "Ant: a & <b>", "no", "über", "'1'"]
    file.write_text(f"train: images/train\nmirror_safe: false\nnames: {json.dumps(names)}\n")
    status, _, err = cli("convert", "--data", file, "--to", to, "--out", tmp_path / "out")
    made = load(tmp_path / "out")
    assert (status, made.names) == (0, names)
    assert made.mirror_safe is (to == "voc")
    assert ("VOC cannot hold mirror_safe" in err) is (to == "voc")
    assert_same(load(file), made)


@pytest.mark.parametrize(
    ("names", "to", "message"),
    [
        (["a", "a"], "coco", "two classes are called 'a'"),
        (["a", "a"], "voc", "two classes are called 'a'"),
        (["a ", "b"], "voc", "cannot hold the class name 'a '"),
        (["", "b"], "voc", "cannot hold the class name ''"),
        (["a\u0001", "b"], "voc", "cannot hold the class name"),
    ],
)
def test_class_names_that_would_be_lost_are_refused(
    tmp_path: Path, cli: Cli, names: list[str], to: str, message: str
) -> None:
    file = write_yolo(tmp_path / "in", {"train": 3})
    file.write_text(f"train: images/train\nnames: {json.dumps(names)}\n")
    refused(cli("convert", "--data", file, "--to", to, "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- the output folder


def test_wrong_options(shapes: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "cut.tmp").mkdir()
    for to, out, words, message in (
        ("pdf", "new", [], "--to 'pdf' is not known: give yolo, coco, voc"),
        ("voc", "full", [], "full is there and not empty: give a new folder"),
        ("voc", "file", [], "file is there and not empty: give a new folder"),
        ("voc", "file/new", [], "cannot be made or written"),
        ("voc", "cut", [], "cut.tmp is in the way, left by a conversion that was killed"),
        ("voc", "new", ["train.lr=1"], "convert has no use for train.lr"),
        ("voc", "new", ["data.test=nowhere"], "nowhere does not exist"),
        ("voc", str(shapes.parent / "images" / "train" / "voc"), [], "lies among the files of"),
    ):
        refused(cli("convert", "--data", shapes, "--to", to, "--out", tmp_path / out, *words), message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.tmp", "file", "full"]
    assert not (shapes.parent / "images" / "train" / "voc").exists()


def test_no_copy_becomes_a_part_of_its_source(cli: Cli, tmp_path: Path) -> None:
    """Pictures in folders inside that of the role: nothing may be put beside those either, nor among the labels."""
    data = write_yolo(tmp_path / "set", {"train/deep": 2})
    data.write_text(data.read_text().replace("train/deep: images/train/deep", "train: images/train"))
    root, before = data.parent, state(data.parent)
    for place in ("images/train/out", "labels/train/out", "labels/out"):
        refused(cli("convert", "--data", data, "--to", "yolo", "--out", root / place), "lies among the files of")
    (tmp_path / "list.txt").write_text("set/images/train/deep/s000.png\n")
    (tmp_path / "list.yaml").write_text(f"train: list.txt\nnames: {NAMES}\n")
    words = ["convert", "--data", tmp_path / "list.yaml", "--to", "yolo", "--out"]
    refused(cli(*words, root / "labels" / "out"), "lies among the files of")
    assert state(root) == before
    assert cli(*words, root / "out")[0] == 0


@pytest.mark.parametrize(("problem", "status"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "full"), 2)])
def test_an_interrupted_conversion_leaves_nothing(
    shapes: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException, status: int
) -> None:
    copy, calls = shutil.copyfile, []

    def copy_some(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 20:  # in the second role
            raise problem
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_some)
    result = cli("convert", "--data", shapes, "--to", "yolo", "--out", tmp_path / "out")
    assert result[0] == status
    assert len(calls) == 20
    assert list(tmp_path.iterdir()) == []
    if status == 2:
        refused(result, "cannot be written to")
    # an empty folder will do; so does a second try
    (tmp_path / "out").mkdir()
    assert cli("convert", "--data", shapes, "--to", "yolo", "--out", tmp_path / "out")[0] == 0
    assert_same(load(shapes, "val"), load(tmp_path / "out", "val"))


def test_scenes_are_of_both_classes() -> None:
    # else the class order would not be tested above
    assert {label for number in range(6) for label, _ in scene(number)[1]} == {0, 1}


def test_a_json_is_parsed_for_its_classes_and_its_boxes(
    cli: Cli, flagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once more for what is not carried over."""
    read: list[Path] = []
    monkeypatch.setattr(coco.files, "read_json", lambda path: read.append(path) or json.loads(path.read_bytes()))
    status, out, err = cli("convert", "--data", flagged, "--to", "yolo", "--out", tmp_path / "copy")
    assert (status, "segmentation x 1" in out) == (0, True), err
    assert [path.name for path in read] == ["coco.json"] * 2
