import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import scene
from yolite.console import Console
from yolite.data.dataset import Split
from yolite.data.images import write_image
from yolite.errors import UserError
from yolite.reading import build_dataset
from yolite.settings import make_config


def load(source: Path, role: str = "train", need_images: bool = True, **roles: str) -> Split:
    config = make_config({"data": {"source": str(source), **roles}})
    return build_dataset(config, Console()).load(role, need_images)


@contextlib.contextmanager
def edited(file: Path) -> Iterator[Any]:
    """Give the content of a json to be changed, and write it back."""
    content = json.loads(file.read_text())
    yield content
    file.write_text(json.dumps(content))


def test_the_three_readers_agree(three_formats: dict[str, Path]) -> None:
    splits = {name: load(path) for name, path in three_formats.items()}
    for name, split in splits.items():
        assert split.names == ["block", "disc"], name
        assert split.problems == [], name
    for a, b, c in zip(*(s.samples for s in splits.values()), strict=True):
        assert a.path.name == b.path.name == c.path.name
        for other in (b, c):
            assert a.size == other.size == (96, 128)
            torch.testing.assert_close(a.boxes, other.boxes, rtol=0, atol=1e-4)
            assert torch.equal(a.labels, other.labels)
    wanted = torch.tensor([box for _, box in scene(0)[1]]).float()
    assert torch.equal(splits["voc"].samples[0].boxes, wanted)


def test_coco_keeps_crowd_and_area_and_maps_ids(three_formats: dict[str, Path]) -> None:
    with edited(three_formats["coco"].parent / "coco.json") as content:
        content["annotations"][0].update(iscrowd=1, area=77.5)
    split = load(three_formats["coco"])
    sample = split.samples[0]
    assert sample.iscrowd.tolist()[0] is True
    assert sample.area.tolist()[0] == 77.5
    assert sample.ignore.tolist() == sample.iscrowd.tolist()
    assert sample.id == 10
    assert split.category_ids == [3, 7]


def test_a_coco_json_plays_every_role_without_images(three_formats: dict[str, Path]) -> None:
    for role in ("train", "val", "test"):
        split = load(three_formats["coco"].parent / "coco.json", role, need_images=False)
        assert len(split.samples) == 6
        assert split.samples[0].path is None


def test_voc_lists_difficult_and_numbers_as_written(three_formats: dict[str, Path]) -> None:
    root = three_formats["voc"]
    xml = root / "Annotations" / "s000.xml"
    xml.write_text(xml.read_text().replace("</object>", "<difficult>1</difficult></object>", 1))
    (root / "ImageSets" / "Main" / "few.txt").write_text("s000 1\ns001 -1\n")
    split = load(root, "val", val="few")
    assert len(split.samples) == 2
    assert split.samples[0].difficult.tolist()[0] is True
    assert split.samples[0].ignore.tolist()[0] is True
    with pytest.raises(UserError, match="one of few, train"):
        load(root, "val", val="nolist")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"bbox": [1, 2, 3]}, "field count"),
        ({"bbox": None}, "field count"),
        ({"bbox": "1234"}, "field count"),
        ({"bbox": ["x", 1, 2, 3]}, "not a number"),
        ({"bbox": ["1", 1, 2, 3]}, "not a number"),
        ({"bbox": [True, 1, 2, 3]}, "not a number"),
        ({"bbox": [10**400, 1, 2, 3]}, "not finite"),
        ({"category_id": True}, "unknown category"),
        ({"category_id": 3.5}, "unknown category"),
        ({"category_id": "3"}, "unknown category"),
        ({"image_id": True}, "annotation entry"),
        ({"image_id": 10.5}, "annotation entry"),
        ({"category_id": [7]}, "unknown category"),
        ({"category_id": 99}, "unknown category"),
        ({"image_id": [1]}, "annotation entry"),
        ({"image_id": 99, "id": "x"}, "label without image"),
        ({"bbox": [float("nan"), 1, 2, 3]}, "not finite"),
        ({"bbox": [10, 10, -5, 5]}, "zero size"),
    ],
)
def test_a_bad_annotation_costs_a_box_not_the_image(three_formats: dict[str, Path], change: dict, kind: str) -> None:
    file = three_formats["coco"].parent / "coco.json"
    with edited(file) as content:
        content["annotations"][0].update(change)
    split = load(three_formats["coco"])
    assert len(split.samples) == 6
    assert split.boxes == len(content["annotations"]) - 1
    (problem,) = split.problems
    (value,) = {key: v for key, v in change.items() if key != "id"}.values()
    assert (problem.kind, problem.file) == (kind, file)
    assert problem.line == 1 or "(annotation id 'x')" in problem.message
    assert repr(value)[:50] in problem.message or kind in ("not finite", "zero size")


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"iscrowd": value}, "flag") for value in (2, -1, 0.5, "yes", [1], float("nan"))]
    + [({"ignore": "no"}, "flag")]
    + [({"area": value}, "area") for value in (-5, float("nan"), 1e30, 96 * 128 + 1, "77", True, [1])],
)
def test_an_odd_value_beside_the_box_leaves_the_box(three_formats: dict[str, Path], change: dict, kind: str) -> None:
    file = three_formats["coco"].parent / "coco.json"
    with edited(file) as content:
        content["annotations"][0].update(change)
    split = load(three_formats["coco"])
    (problem,) = split.problems
    assert (problem.kind, problem.file, problem.line) == (kind, file, 1)
    assert repr(next(iter(change.values()))) in problem.message
    sample = split.samples[0]
    torch.testing.assert_close(sample.area[0], (sample.boxes[0, 2:] - sample.boxes[0, :2]).prod())
    assert not sample.ignore.any()
    assert split.boxes == len(content["annotations"])


@pytest.mark.parametrize("ident", [0, -3, 7, "a", "7"])
def test_an_annotation_id_that_stands_twice(three_formats: dict[str, Path], ident: int | str) -> None:
    with edited(three_formats["coco"].parent / "coco.json") as content:
        for annotation in content["annotations"]:
            annotation["id"] += 100
        content["annotations"][2]["id"] = 7 if ident == "7" else "7"  # another id than the one or the other
        for annotation in content["annotations"][:2]:
            annotation["id"] = ident
    (problem,) = load(three_formats["coco"]).problems
    assert (problem.kind, problem.line) == ("duplicate annotation id", 7 if ident == 7 else 0)
    assert repr(ident) in problem.message


@pytest.mark.parametrize("ident", [1.5, True, "3", None, float("nan"), float("inf"), [3]])
def test_a_category_without_a_whole_number(three_formats: dict[str, Path], ident: object) -> None:
    with edited(three_formats["coco"].parent / "coco.json") as content:
        content["categories"][0]["id"] = ident
    with pytest.raises(UserError, match=r"every category needs a whole-number id and a name, not \{'id': "):
        load(three_formats["coco"])


def test_an_image_that_is_true_and_sizes_that_are_not_stated(three_formats: dict[str, Path]) -> None:
    file = three_formats["coco"].parent / "coco.json"
    with edited(file) as content:
        content["images"][1]["width"], content["images"][2]["height"] = None, 0
        content["images"].append({**content["images"][3], "id": True})
    split = load(three_formats["coco"])
    assert [(p.kind, p.file.name) for p in split.problems] == [
        ("no stated size", "s001.png"), ("no stated size", "s002.png"), ("image entry", "coco.json"),
    ]  # fmt: skip
    assert [sample.size for sample in split.samples] == [(96, 128)] * 6


@pytest.mark.parametrize(
    ("old", "new", "line", "kind", "words", "boxes"),
    [
        ("<xmax>", "<xmax>x", 1, "not a number", "x", -1),
        ("<xmax>", "<xmax> </xmax><xmax>", 1, "field count", "bndbox", -1),
        ("<xmax>", "<xmax>1_", 1, "not a number", "1_", -1),
        ("<xmax>", "<xmax>\u0661", 1, "not a number", "\u0661", -1),
        ("<bndbox>", "<bndbox></bndbox><bndbox>", 1, "field count", "there are 2", -1),
        ("<width>128", "<width>1_28", 0, "size differs", "1_28x96", 0),
        ("object>", "Object>", 0, "misplaced object", "<Object>", -1),
        ("bndbox>", "box>", 1, "field count", "nothing, nothing, nothing, nothing", -1),
        ("<bndbox>", "<difficult>maybe</difficult><bndbox>", 1, "flag", "'maybe'", 0),
        ("<width>128", "<width>0", 0, "no stated size", "0x96", 0),
        ("size>", "measure>", 0, "no stated size", "nothingxnothing", 0),
        ("<annotation>", '<annotation xmlns="urn:x">', 0, "misplaced object", "<{urn:x}object>", None),
        ("<annotation>", "<annotation><annotation>", 0, "misplaced object", "somewhere in <annotation>", None),
    ],
)
def test_what_is_odd_in_an_annotation(
    three_formats: dict[str, Path], old: str, new: str, line: int, kind: str, words: str, boxes: int | None
) -> None:
    """What it costs: one box, none, or all of the file's (None)."""
    root = three_formats["voc"]
    (root / "classes.txt").write_text("block\ndisc\n")
    before, xml = load(root), root / "Annotations" / "s000.xml"
    text = xml.read_text().replace(old, new, 2 if old in ("bndbox>", "size>", "object>") else 1)
    xml.write_text(text.replace("</annotation>", "</annotation></annotation>") if "<annotation><a" in text else text)
    split = load(root)
    found = [p for p in split.problems if not (boxes is None and p.kind == "no stated size")]
    assert [(p.kind, p.file, p.line) for p in found] == [(kind, xml, line)]
    assert words in found[0].message
    left = 0 if boxes is None else len(before.samples[0].boxes) + boxes
    assert len(split.samples[0].boxes) == left


@pytest.mark.parametrize(
    ("row", "kind", "left"),
    [
        ("0 0.5 0.5 0.2", "field count", 1),
        ("0 0.5 0.5 0.2 0.2 0.9", "field count", 1),
        ("0 0.1 0.1 0.2 0.1 0.2", "field count", 1),
        ("0 0.1 0.1 0.1 0.1 0.9 0.9", "field count", 1),
        ("0 0.1 0.1 0.2 0.1 0.2 1.2", "field count", 1),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "polygon", 2),
        ("0 0.1 0.1 0.9 0.1 0.9 0.8 0.5 0.9 0.1 0.8", "polygon", 2),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 2", "pose", 2),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.45 0.5 1", "pose", 2),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 3", "field count", 1),
        ("0 0.5 0.5 0.2 0.2 0.5 0.9 2", "field count", 1),
        ("0 0.5 0.5 0.4 0.4 0.5 0.6", "ambiguous row", 1),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 1 0.45 0.5 0", "ambiguous row", 1),
        ("7 0.5 0.5 0.2 0.2", "class id out of range", 1),
        ("-1 0.5 0.5 0.2 0.2", "class id out of range", 1),
        ("0.5 0.5 0.5 0.2 0.2", "class id not an integer", 1),
        ("0 0.5 0.5 0.2_1 0.2", "not a number", 1),
        ("1 0.5 0.5 0.25 0.25", "duplicate box", 1),
        ("1 0.5 0.5 0.25000000001 0.25", "duplicate box", 1),
        ("0 a 0.5 0.2 0.2", "not a number", 1),
        ("0 nan 0.5 0.2 0.2", "not finite", 1),
        ("0 1e999 0.5 0.2 0.2", "not finite", 1),
        ("0 0.5 0.5 0 0.2", "zero size", 1),
        ("0 0.5 0.5 -0.1 0.2", "zero size", 1),
        ("0 0.5 0.5 1e-9 1e-9", "zero size", 1),
        ("0 0.5 0.5 0.2 1e-9", "zero size", 1),
        ("0 1.1 0.5 0.2 0.2", "outside", 1),
        ("0 1.7 0.5 0.2 0.2", "outside", 1),
        ("0 0.95 0.5 0.2 0.2", "out of bounds", 2),
        ("0 0.9001 0.5 0.2 0.2", "out of bounds by less than 1 px", 2),
    ],
)
def test_a_bad_row_costs_a_box_not_the_image(three_formats: dict[str, Path], row: str, kind: str, left: int) -> None:
    file = three_formats["yolo"].parent / "labels" / "train" / "s000.txt"
    file.write_text(f"1 0.5 0.5 0.25 0.25\n{row}\n")
    split = load(three_formats["yolo"])
    assert len(split.samples) == 6
    assert len(split.samples[0].boxes) == left
    (problem,) = split.problems
    assert (problem.file, problem.line, problem.kind) == (file, 2, kind)


def test_missing_and_empty_label_files_are_told_apart(three_formats: dict[str, Path]) -> None:
    labels = three_formats["yolo"].parent / "labels" / "train"
    (labels / "s000.txt").unlink()
    (labels / "s001.txt").write_text("")
    (labels / "ghost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    split = load(three_formats["yolo"])
    assert len(split.samples) == 6
    assert [len(s.boxes) for s in split.samples[:2]] == [0, 0]
    assert [(p.kind, p.file.name) for p in split.problems] == [
        ("no label file", "s000.txt"), ("empty label file", "s001.txt"), ("label without image", "ghost.txt"),
    ]  # fmt: skip


def test_an_unreadable_image_is_reported_and_left_out(three_formats: dict[str, Path]) -> None:
    bad = three_formats["yolo"].parent / "images" / "train" / "s002.png"
    bad.write_bytes(b"nothing")
    for path in three_formats.values():
        split = load(path)
        assert len(split.samples) == 5
        assert [(p.kind, p.file.name) for p in split.problems if p.kind == "unreadable image"] == [
            ("unreadable image", "s002.png")
        ]


@pytest.mark.parametrize("layout", ["images/train", "train/images"])
def test_folders_in_the_usual_layouts(tmp_path: Path, layout: str) -> None:
    for role in ("train", "val" if layout == "images/train" else "valid"):
        images = tmp_path / layout.replace("train", role)
        write_image(images / "a.png", np.zeros((20, 30, 3), np.uint8))
        labels = Path(str(images).replace("images", "labels"))
        labels.mkdir(parents=True)
        (labels / "a.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    split = load(tmp_path, "val")
    assert split.names == ["class 0", "class 1", "class 2"]
    assert split.samples[0].boxes.tolist() == [[7.5, 5, 22.5, 15]]
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    assert load(tmp_path, "val").names == ["a", "b", "c", "d"]


def test_a_list_of_images_and_a_role_override(three_formats: dict[str, Path]) -> None:
    root = three_formats["yolo"].parent
    (root / "few.txt").write_text("images/train/s001.png\nimages/train/s003.png\n")
    split = load(three_formats["yolo"], "val", val="few.txt")
    assert [s.id for s in split.samples] == ["s001", "s003"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: images/train\nnames: {0: a, 2: b}", "without gaps"),
        ("train: images/train", "names is missing"),
        ("train: images/train\nnames: {0: a, '0': b}", "each once"),
        ("train: images/train\nnames: {0: a, 0.5: b}", "numbered 0, 1, 2"),
        ("train: images/train\nnames: {false: a, true: b}", "numbered 0, 1, 2"),
        ("train: images/train\nnames: [yes, b]", "name of class 0 as true, which is no text: put it in quotes"),
        ("train: images/train\nnames: {0: a, 1: off}", "name of class 1 as false"),
        ("train: images/train\nnames: [a, null]", "name of class 1 as nothing"),
        ("train: images/train\nnames: [a, 1.10]", "name of class 1 as 1.1,"),
        ("train: images/train\nnames: [a, b]\nnc: 3", "nc is 3, but there are 2 names"),
        ("train: images/train\nnames: [a]\nnc: true", "nc is true, but"),
        ("train: images/train\nnames: [a, b]\nmirror_safe: maybe", "mirror_safe is 'maybe': give true or false"),
        ("train: images/train\nnames: [a, b]\nmirror_safe:", "mirror_safe is nothing: give"),
        ("names: [a]", "names no train"),
        ("train: images/nowhere\nnames: [a, b]", "does not exist"),
        ("[1, 2]", "must hold keys and values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_descriptions_that_do_not_work(three_formats: dict[str, Path], text: str, words: str) -> None:
    path = three_formats["yolo"].parent / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load(path)


def test_descriptions_that_do_work(three_formats: dict[str, Path]) -> None:
    path = three_formats["yolo"].parent / "good.yaml"
    for names in ("{1: b, 0: a}", "{'0': a, '1': b}", "[a, b]\nnc: 2"):
        path.write_text(f"train: images/train\nnames: {names}\nmirror_safe: no")
        split = load(path)
        assert (split.names, split.mirror_safe) == (["a", "b"], False)
    path.write_text("train: images/train\nnames: [0, 'no']")
    assert load(path).names == ["0", "no"]


def test_things_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere" / "x.yaml")
    with pytest.raises(UserError, match="is not a data set"):
        load(tmp_path)
    with pytest.raises(UserError, match="did you mean 'digits'"):
        load(Path("digit"))
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no images"):
        load(tmp_path)


def test_hostile_xml_is_refused(three_formats: dict[str, Path]) -> None:
    xml = three_formats["voc"] / "Annotations" / "s000.xml"
    xml.write_text('<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>')
    split = load(three_formats["voc"])
    assert split.problems[0].kind == "unreadable label file"
    assert "document type" in split.problems[0].message


def test_an_entity_bomb_in_another_encoding_is_refused(three_formats: dict[str, Path]) -> None:
    """The declaration is seen by the parser, not looked for as bytes."""
    bomb = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    (three_formats["voc"] / "Annotations" / "s000.xml").write_bytes(bomb.encode("utf-16"))
    (problem,) = load(three_formats["voc"]).problems
    assert (problem.kind, "document type" in problem.message) == ("unreadable label file", True)


def test_polygons_and_poses_give_their_boxes(three_formats: dict[str, Path]) -> None:
    file = three_formats["yolo"].parent / "labels" / "train" / "s000.txt"
    file.write_text("0 0.25 0.5 0.75 0.25 0.5 0.75\n1 0.5 0.5 0.25 0.5 0.5 0.5 2\n")
    split = load(three_formats["yolo"])
    assert split.samples[0].boxes.tolist() == [[32, 24, 96, 72], [48, 24, 80, 72]]
    assert [(p.kind, p.line, p.note) for p in split.problems] == [("polygon", 1, True), ("pose", 2, True)]


def test_images_of_voc_may_end_in_capitals(three_formats: dict[str, Path]) -> None:
    folder = three_formats["voc"] / "JPEGImages"
    (folder / "s003.png").rename(folder / "s003.PNG")
    split = load(three_formats["voc"])
    assert len(split.samples) == 6
    assert not split.problems


def test_ids_that_stand_twice(three_formats: dict[str, Path]) -> None:
    with edited(three_formats["coco"].parent / "coco.json") as content:
        content["images"].append({**content["images"][1], "id": 10})
        content["annotations"][1]["id"] = 1
    split = load(three_formats["coco"])
    assert len(split.samples) == 6
    assert {(p.kind, p.line) for p in split.problems} == {("duplicate image id", 0), ("duplicate annotation id", 1)}
    assert split.boxes == len(content["annotations"])


def test_rows_that_can_be_both_are_settled_by_the_others(three_formats: dict[str, Path]) -> None:
    """Three corners or one keypoint? One row cannot tell, a data set can."""
    labels = three_formats["yolo"].parent / "labels" / "train"
    both, triangle = "0 0.5 0.5 0.4 0.4 0.5 0.6", "1 0.1 0.1 0.2 0.1 0.2 0.2"
    (labels / "s000.txt").write_text(both)
    assert [p.kind for p in load(three_formats["yolo"]).problems] == ["ambiguous row"]
    (labels / "s001.txt").write_text(f"{triangle}\n1 0.3 0.3 0.2 0.5 0.9 0.9")
    split = load(three_formats["yolo"])
    assert [p.kind for p in split.problems] == ["polygon"] * 3
    torch.testing.assert_close(split.samples[0].boxes, torch.tensor([[51.2, 38.4, 64, 57.6]]))
    (labels / "s001.txt").write_text("".join(f"1 0.5 0.5 0.2 0.2 0.5 0.5{n}\n" for n in range(10)))
    split = load(three_formats["yolo"])
    assert [p.kind for p in split.problems] == ["pose"] * 11 + ["duplicate box"] * 9
    torch.testing.assert_close(split.samples[0].boxes, torch.tensor([[38.4, 28.8, 89.6, 67.2]]))


# ---------------------------------------------------------------- what lies in the folders of a YOLO set


def kinds_of(split: Split) -> list[tuple[str, str]]:
    return sorted((p.kind, p.file.name) for p in split.problems)


def test_nothing_called_like_an_image_vanishes(three_formats: dict[str, Path]) -> None:
    images = three_formats["yolo"].parent / "images" / "train"
    (images / "lost.png").symlink_to("nowhere.png")
    os.mkfifo(images / "pipe.jpg")
    (images / "folder.PNG").mkdir()
    (images / "away.jpg").symlink_to(images.parent)
    split = load(three_formats["yolo"])
    assert len(split.samples) == 6
    names = ["away.jpg", "folder.PNG", "lost.png", "pipe.jpg"]
    assert kinds_of(split) == [("unreadable image", name) for name in names]
    assert "a link that leads nowhere" in str(split.problems)


def test_linked_folders_are_said_and_can_be_named(three_formats: dict[str, Path], tmp_path: Path) -> None:
    root = three_formats["yolo"].parent
    write_image(tmp_path / "more" / "m.png", np.zeros((20, 30, 3), np.uint8))
    (root / "images" / "train" / "more").symlink_to(tmp_path / "more")
    (root / "images" / "train" / "loop").symlink_to(root / "images")
    (root / "labels" / "train" / "more").mkdir()
    (root / "labels" / "train" / "more" / "m.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    split = load(three_formats["yolo"])
    assert len(split.samples) == 6
    assert kinds_of(split) == [("linked folder", "loop"), ("linked folder", "more")]
    text = three_formats["yolo"].read_text()
    three_formats["yolo"].write_text(text.replace("images/train", "[images/train, images/train/more]"))
    split = load(three_formats["yolo"])
    assert (len(split.samples), len(split.samples[-1].boxes)) == (7, 1)


def test_orphans_in_any_label_folder(three_formats: dict[str, Path]) -> None:
    data = three_formats["yolo"]
    labels = data.parent / "labels"
    write_image(data.parent / "images" / "val" / "v.png", np.zeros((20, 30, 3), np.uint8))
    for name in ("top.txt", "test/unplayed.txt", "train/deep/down/nested.txt", "val/v.txt", "val/ghost.txt"):
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_text("0 0.5 0.5 0.5 0.5\n")
    (labels / "classes.txt").write_text("block\ndisc\n")
    data.write_text(data.read_text() + "val: images/val\n")
    unowned = [("label without image", name) for name in ("top.txt", "unplayed.txt")]
    assert kinds_of(load(data)) == [("label without image", "nested.txt"), *unowned]
    assert kinds_of(load(data, "val")) == [("label without image", "ghost.txt"), *unowned]
    assert kinds_of(load(data, "val", val="images/train")) == kinds_of(load(data, val="images/train"))
    assert ("label without image", "ghost.txt") in kinds_of(load(data, val="images/train"))


def test_orphans_beside_their_images(tmp_path: Path) -> None:
    (tmp_path / "flat.yaml").write_text("train: photos\nval: photos/val.txt\nnames: [a]\n")
    write_image(tmp_path / "photos" / "sub" / "a.png", np.zeros((20, 30, 3), np.uint8))
    texts = {"sub/a.txt": "0 0.5 0.5 0.5 0.5", "sub/ghost.txt": "0 0.5 0.5 0.5 0.5", "empty.txt": "",
             "README.txt": "What this is.\n0 1 2", "val.txt": "sub/a.png", "classes.txt": "1"}  # fmt: skip
    for name, text in texts.items():
        (tmp_path / "photos" / name).write_text(text)
    (tmp_path / "photos" / "latin.txt").write_bytes(b"gr\xf6\xdfe")
    found = [("label without image", name) for name in ("empty.txt", "ghost.txt")]
    assert kinds_of(load(tmp_path / "flat.yaml")) == found
    assert kinds_of(load(tmp_path / "flat.yaml", "val")) == []  # the list lies in the folder of train, which says it
    (tmp_path / "flat.yaml").write_text("val: photos/val.txt\nnames: [a]\n")
    assert kinds_of(load(tmp_path / "flat.yaml", "val")) == found[1:]


def test_files_that_do_not_end_like_an_image_are_counted(three_formats: dict[str, Path]) -> None:
    images = three_formats["yolo"].parent / "images" / "train"
    for name in ("b.gif", "sub/c.GIF", "d.jfif", "notes", "s000.txt", ".DS_Store"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).touch()
    (images.parent.parent / "labels" / "train" / "b.txt").touch()
    note, orphan = load(three_formats["yolo"]).problems
    assert (note.kind, note.note, note.file) == ("file not read", True, images)
    text = "5 files do not end like an image: .gif x 2, .jfif x 1, .txt x 1, no ending x 1 (first: b.gif)"
    assert note.message == text
    assert (orphan.kind, orphan.message) == ("label without image", "b.gif does not end like an image")


def test_a_listed_image_of_any_ending_has_its_label(three_formats: dict[str, Path], cli, tmp_path: Path) -> None:
    data = three_formats["yolo"]
    images = data.parent / "images" / "train"
    (images / "s000.png").rename(images / "s000.jfif")
    (images / "s001.png").rename(images / "s001")
    (data.parent / "all.txt").write_text("".join(f"./images/train/{p.name}\n" for p in sorted(images.iterdir())))
    data.write_text(data.read_text().replace("images/train", "all.txt") + "val: images/train\n")
    for made in (data, tmp_path / "copy"):
        for role in ("train", "val"):
            assert "label without image" not in {p.kind for p in load(made, role).problems}, (made, role)
        assert len(load(made).samples) == 6
        if made == data:
            assert cli("convert", "--data", data, "--to", "yolo", "--out", tmp_path / "copy")[0] == 0


def test_images_that_share_a_label_file_are_said(three_formats: dict[str, Path]) -> None:
    images = three_formats["yolo"].parent / "images" / "train"
    write_image(images / "s000.jpg", np.zeros((96, 128, 3), np.uint8))
    split = load(three_formats["yolo"])
    assert len(split.samples) == 7
    (problem,) = split.problems
    assert (problem.kind, problem.file.name, problem.note) == ("shared label file", "s000.txt", False)
    assert problem.message == "it belongs to s000.jpg and s000.png"


def test_boxes_that_differ_outside_the_image_alone_are_the_same(three_formats: dict[str, Path]) -> None:
    rows = "0 0.05 0.5 0.2 0.2\n0 0.04 0.5 0.22 0.2\n"
    (three_formats["yolo"].parent / "labels" / "train" / "s000.txt").write_text(rows)
    split = load(three_formats["yolo"])
    kinds = [problem.kind for problem in split.problems]
    assert (sorted(kinds), len(split.samples[0].boxes)) == (["duplicate box", "out of bounds", "out of bounds"], 1)


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_an_image_that_a_list_names_twice_has_its_faults_once(three_formats: dict[str, Path], kind: str) -> None:
    data = three_formats[kind]
    if kind == "yolo":
        (data.parent / "labels" / "train" / "s000.txt").write_text("0 a 0.5 0.2 0.2\n")
        (data.parent / "two.txt").write_text("images/train/s000.png\n" * 2 + "images/train/gone.png\n" * 2)
        split = load(data, train="two.txt")
    else:
        (data / "Annotations" / "s000.xml").unlink()
        (data / "ImageSets" / "Main" / "two.txt").write_text("s000\ngone\n" * 2)
        split = load(data, train="two")
    assert len(split.samples) == 2
    fault = "not a number" if kind == "yolo" else "no label file"
    assert sorted(p.kind for p in split.problems) == ["missing image", fault]


@pytest.mark.parametrize(
    ("text", "words"), [("block\n\ndisc\n", "line 2 is empty"), (" \n", "it is empty"), ("block\r\ndisc\n\n", "")]
)
def test_a_class_list_has_a_name_in_every_line(three_formats: dict[str, Path], text: str, words: str) -> None:
    """Left out, an empty one would give those after it another class."""
    three_formats["yolo"].unlink()
    for data in (three_formats["yolo"].parent, three_formats["voc"]):
        (data / "classes.txt").write_text(text)
        if words:
            with pytest.raises(UserError, match=words):
                load(data)
        else:
            assert load(data).names == ["block", "disc"]


def test_names_beside_a_json_are_its_own(three_formats: dict[str, Path]) -> None:
    data = three_formats["coco"]
    text = data.read_text()
    data.write_text(text + "names: [block, disc]\nnc: 2\n")
    assert load(data).problems == []
    data.write_text(text + "names: [disc, block]\n")
    with pytest.raises(UserError, match=r"its names are not those of .*coco.json"):
        load(data)
