"""`yolite check`: one planted fault of every kind is found, each with its place; training leaves out the same."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.conftest import write_yolo
from tests.test_house import ROOT
from yolite.console import Console
from yolite.data import inspect
from yolite.data.duplicates import _candidates
from yolite.data.images import write_image
from yolite.data.inspect import Store, _looks
from yolite.data.loader import Pictures
from yolite.data.look import look_at
from yolite.data.problems import KINDS
from yolite.reading import build_dataset, load_splits
from yolite.settings import load_config, make_config
from yolite.structures import Preprocess

Cli = Callable[..., tuple[int, str, str]]
Finding = tuple[str, int, str]

ROWS = [
    ("0 0.5 0.5 0.2", "field count"),
    ("0 0.5 0.5 0.2 0.2 0.5 0.5 1 0.45 0.5 0", "ambiguous row"),
    ("0 0.1 0.1 0.9 0.1 0.9 0.8 0.5 0.9 0.1 0.8", "polygon"),
    ("0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.45 0.5 1", "pose"),
    ("0 a 0.5 0.2 0.2", "not a number"),
    ("0 nan 0.5 0.2 0.2", "not finite"),
    ("0 0.5 0.5 0 0.2", "zero size"),
    ("0 1.7 0.5 0.2 0.2", "outside"),
    ("0 0.95 0.5 0.2 0.2", "out of bounds"),
    ("0 0.9001 0.5 0.2 0.2", "out of bounds by less than 1 px"),
    ("0.5 0.5 0.5 0.2 0.2", "class id not an integer"),
    ("7 0.5 0.5 0.2 0.2", "class id out of range"),
    ("1 0.3 0.3 0.1 0.1", "duplicate box"),
]


def check(cli: Cli, data: Path, *words: str | Path) -> tuple[int, dict, str]:
    """Run the command; return its status, its JSON and what it printed."""
    out = data.parent / "check.json"
    status, printed, err = cli("check", "--data", data, "--json", out, *words)
    assert "Traceback" not in err
    assert "JPEG" not in err
    return status, json.loads(out.read_text()), printed


def places(report: dict) -> set[Finding]:
    return {(Path(p["file"]).name, p["line"], p["kind"]) for p in report["problems"] + report["notes"]}


def plant_pictures(train: Path, val: Path) -> set[Finding]:
    """Spoil images of a YOLO set, one fault each."""

    def change(name: str, to: Callable[[PillowImage.Image], PillowImage.Image], **options: object) -> None:
        with PillowImage.open(train / f"{name}.png") as picture:
            to(picture).save(train / f"{name}.png", **options)

    def half(source: str) -> PillowImage.Image:
        return PillowImage.open(train / source).resize((100, 75))

    (train / "s000.png").write_bytes(b"nothing")
    (train / "s001.png").write_bytes((train / "s001.png").read_bytes()[:-40])
    change("s002", lambda p: p.copy(), format="JPEG")
    change("s003", lambda p: p.convert("L"))
    change("s004", lambda p: p.convert("RGBA"))
    change("s005", lambda p: p.convert("CMYK"), format="JPEG")
    (train / "s005.png").rename(train / "s005.jpg")
    cv2.imwrite(str(train / "s006.png"), cv2.imread(str(train / "s006.png")).astype(np.uint16) * 257)
    exif = PillowImage.Exif()
    exif[0x0112] = 3
    change("s007", lambda p: p.copy(), exif=exif)
    shutil.copy(train / "s008.png", train / "s009.png")
    half("s010.png").save(train / "s011.png")
    shutil.copy(train / "s012.png", val / "s021.png")
    half("s013.png").save(val / "s022.png")
    change("s014", lambda p: p.copy(), format="JPEG", quality=95)
    jpeg = (train / "s014.png").read_bytes()
    (train / "s014.png").unlink()
    (train / "s014.jpg").write_bytes(jpeg[: len(jpeg) // 2] + jpeg[len(jpeg) // 2 + 40 :])
    kinds = ["unreadable image", "truncated image", "extension", "grayscale", "alpha", "CMYK", "16-bit",
             "EXIF orientation"]  # fmt: skip
    found = {(f"s{n:03d}.{'jpg' if n == 5 else 'png'}", 0, kind) for n, kind in enumerate(kinds)}
    return found | {
        ("s014.jpg", 0, "damaged image"), ("s009.png", 0, "duplicate image"), ("s011.png", 0, "similar image"),
        ("s021.png", 0, "duplicate image across splits"), ("s022.png", 0, "similar image across splits"),
    }  # fmt: skip


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, set[Finding]]:
    """A YOLO data set with one fault of every kind that it can have, and the faults."""
    data = write_yolo(tmp_path / "planted", {"train": 20, "val": 4})
    root = data.parent
    found = plant_pictures(root / "images" / "train", root / "images" / "val")
    labels = root / "labels" / "train"
    (labels / "s015.txt").write_text("1 0.3 0.3 0.1 0.1\n\n" + "".join(f"{row}\n" for row, _ in ROWS))
    found |= {("s015.txt", number, kind) for number, (_, kind) in enumerate(ROWS, 3)}
    (labels / "s016.txt").unlink()
    (labels / "s017.txt").write_text("\n")
    (labels / "s018.txt").write_bytes("größe".encode("latin-1"))
    (labels / "ghost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    images = root / "images" / "train"
    with PillowImage.open(images / "s019.png") as picture:
        picture.rotate(90).save(images / "s019.bmp")
    (images / "link").symlink_to(root)
    (images / "film.gif").touch()
    data.write_text(data.read_text() + "test: images/nowhere\n")
    return data, found | {
        ("s016.txt", 0, "no label file"), ("s017.txt", 0, "empty label file"), ("ghost.txt", 0, "label without image"),
        ("s018.txt", 0, "unreadable label file"), ("data.yaml", 0, "unreadable role"),
        ("s019.txt", 0, "shared label file"), ("link", 0, "linked folder"), ("train", 0, "file not read"),
    }  # fmt: skip


def plant_coco(data: Path) -> set[Finding]:
    """Spoil a COCO set (and give it a second role with another class)."""
    file = data.parent / "coco.json"
    content = json.loads(file.read_text())
    other = {**content, "categories": [{"id": 3, "name": "block"}, {"id": 7, "name": "cat"}],
             "annotations": [{**content["annotations"][0], "id": 99, "category_id": 7}],
             "images": [{"id": 1, "file_name": "gone.png"}, content["images"][0]]}  # fmt: skip
    (data.parent / "val.json").write_text(json.dumps(other))
    data.write_text(data.read_text() + "val: {images: yolo/images/train, annotations: val.json}\n")
    for number, change in enumerate([{"category_id": 12}, {"bbox": [1, 2]}, {"image_id": [3]}, {"image_id": 77}]):
        content["annotations"].append({**content["annotations"][0], "id": 100 + number, **change})
    content["annotations"].append({**content["annotations"][1], "bbox": [1, 1, 9, 9]})
    content["annotations"][2].update(iscrowd=2, area=-1)
    content["images"][2]["width"] = 5
    content["images"] += [{"id": 5}, {**content["images"][1], "id": 10}]
    file.write_text(json.dumps(content))
    twice = content["annotations"][1]["id"]
    return {
        ("val.json", 99, "unknown class"), ("gone.png", 0, "missing image"), ("coco.json", 100, "unknown category"),
        ("coco.json", 101, "field count"), ("coco.json", 102, "annotation entry"), ("s002.png", 0, "size differs"),
        ("coco.json", 103, "label without image"), ("coco.json", twice, "duplicate annotation id"),
        ("coco.json", content["annotations"][2]["id"], "flag"), ("coco.json", content["annotations"][2]["id"], "area"),
        ("coco.json", 0, "image entry"), ("coco.json", 0, "duplicate image id"),
        ("s000.png", 0, "duplicate image across splits"),
    }  # fmt: skip


def plant_voc(root: Path) -> set[Finding]:
    """Spoil a VOC set."""
    (root / "classes.txt").write_text("block\ndisc\n")
    xml = root / "Annotations"

    def change(name: str, old: str, new: str) -> None:
        (xml / name).write_text((xml / name).read_text().replace(old, new, 1))

    (xml / "s000.xml").write_text('<!DOCTYPE a [<!ENTITY b "bb">]><annotation>&b;</annotation>')
    (xml / "s001.xml").unlink()
    (xml / "s002.xml").write_text("<annotation/>")
    change("s003.xml", "<width>128", "<width>64")
    change("s004.xml", "<xmax>", "<xmax>x")
    change("s005.xml", "<name>", "<name>cat")
    change("s005.xml", "<annotation>", "<annotation><part><object/></part>")
    (xml / "ghost.xml").write_text("<annotation/>")
    with (root / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write("gone\n../../gone\n/nowhere/gone\n")
    return {
        ("s000.xml", 0, "unreadable label file"), ("s001.xml", 0, "no label file"), ("s002.xml", 0, "empty label file"),
        ("s002.xml", 0, "no stated size"), ("s005.xml", 0, "misplaced object"),
        ("s003.xml", 0, "size differs"), ("s004.xml", 1, "not a number"), ("s005.xml", 1, "unknown class"),
        ("ghost.xml", 0, "label without image"), ("gone.jpg", 0, "missing image"),
    }  # fmt: skip


def test_every_planted_fault_is_found_at_its_place(
    cli: Cli, planted: tuple[Path, set[Finding]], three_formats: dict[str, Path]
) -> None:
    data, wanted = planted
    status, report, printed = check(cli, data)
    assert places(report) == wanted
    assert "Corrupt JPEG data" in next(p["message"] for p in report["problems"] if p["kind"] == "damaged image")
    assert len(report["problems"]) + len(report["notes"]) == len(wanted), "each once"
    seen = {kind for _, _, kind in wanted}
    for name, plant in (("coco", plant_coco), ("voc", plant_voc)):
        wanted = plant(three_formats[name])
        other, report, _ = check(cli, three_formats[name])
        assert (other, places(report)) == (1, wanted)
        seen |= {kind for _, _, kind in wanted}
    assert seen == set(KINDS) - {"no size"}, "that one is met only where no images are read"
    assert status == 1
    for kind in {kind for _, _, kind in planted[1]}:
        assert f"{kind}:\n" in printed
    assert f"s015.txt:{2 + [k for _, k in ROWS].index('zero size') + 1}: box [64, 38.4, 64, 57.6]" in printed


def test_the_json_says_all_of_it(cli: Cli, planted: tuple[Path, set[Finding]]) -> None:
    _, report, _ = check(cli, planted[0])
    for part, counts in (("problems", "counts"), ("notes", "note_counts")):
        for problem in report[part]:
            assert set(problem) == {"file", "line", "kind", "message", "action"}
            assert problem["message"]
            assert problem["action"] == KINDS[problem["kind"]].action
            assert KINDS[problem["kind"]].note == (part == "notes")
        assert sum(report[counts].values()) == len(report[part])
    assert report["images"] == 23
    assert report["images"] == sum(row["images"] for row in report["health"]["splits"].values())
    assert report["boxes"] == sum(sum(row.values()) for row in report["health"]["classes"].values())
    assert report["health"]["splits"]["train"]["background"] == 3


def test_training_leaves_out_the_same(cli: Cli, planted: tuple[Path, set[Finding]], capfd) -> None:
    data, wanted = planted
    _, report, _ = check(cli, data)
    dataset = build_dataset(make_config({"data": {"source": str(data)}}), Console())
    splits = load_splits(dataset, ["train", "val"], Console())
    said = capfd.readouterr()
    found = {(p.file.name, p.line, p.kind) for split in splits for p in split.problems}
    assert found == wanted - {("data.yaml", 0, "unreadable role")}
    assert sum(len(split.samples) for split in splits) == report["images"]
    assert sum(split.boxes for split in splits) == report["boxes"]
    lines = [line for line in said.err.splitlines() if line]
    assert [line.split(":")[:2] for line in lines] == [["warning", " train"], ["warning", " val"]], "one line a role"
    for kind in {kind for _, _, kind in found}:
        assert f"1 x {kind} ({KINDS[kind].action})" in said.err
    kinds = [kind for name, _, kind in found if name not in ("s021.png", "s022.png")]
    notes = sum(KINDS[kind].note for kind in kinds)
    assert f"train: {len(kinds) - notes} problems: 1 x " in lines[0]
    assert f"; {notes} notes: 1 x " in lines[0]
    assert lines[0].endswith("; `yolite check` names each file, line and value")
    for split in splits:
        assert Pictures(split.samples, Preprocess((64, 64))).fill_cache() == [], "all of them can be decoded"


def test_a_clean_set_gives_none(cli: Cli, shapes: Path, three_formats: dict[str, Path], tmp_path: Path) -> None:
    for data in (shapes, *three_formats.values(), three_formats["coco"].parent / "coco.json"):
        out = tmp_path / "clean.json"
        status, printed, err = cli("check", "--data", data, "--json", out)
        report = json.loads(out.read_text())
        assert (report["problems"], report["notes"], status, err) == ([], [], 0, ""), data
        assert report["images"] == (22 if data == shapes else 6)
        assert "problems: none\nnotes: none\n" in printed


def test_notes_alone_are_no_failure(cli: Cli, three_formats: dict[str, Path]) -> None:
    (three_formats["yolo"].parent / "labels" / "train" / "s000.txt").write_text("")
    status, report, _ = check(cli, three_formats["yolo"])
    assert (status, report["problems"], report["note_counts"]) == (0, [], {"empty label file": 1})


def test_a_role_of_which_nothing_is_left_is_reported(cli: Cli, tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "a", {"train": 3, "val": 2})
    for file in (data.parent / "images" / "val").iterdir():
        file.write_bytes(b"nothing")
    status, report, _ = check(cli, data)
    assert (status, report["counts"]) == (1, {"unreadable image": 2})
    assert report["health"]["splits"]["val"]["images"] == 0
    (data.parent / "images" / "val").rename(data.parent / "images" / "other")
    (data.parent / "images" / "train").rename(data.parent / "images" / "another")
    assert cli("check", "--data", data)[0] == 2


def test_one_file_in_two_roles(cli: Cli, three_formats: dict[str, Path]) -> None:
    data = three_formats["yolo"]
    data.write_text(data.read_text() + "val: images/train\n")
    (data.parent / "labels" / "train" / "s000.txt").write_text("0 0.5 0.5 0 0.1\n")
    _, report, _ = check(cli, data)
    assert report["counts"] == {"duplicate image across splits": 6, "zero size": 1}
    assert "the same file again (train and val)" in report["problems"][-1]["message"]


@pytest.mark.parametrize("name", [r"$\foo$", "\ud800"])
def test_a_class_name_that_is_no_formula(cli: Cli, three_formats: dict[str, Path], tmp_path: Path, name: str) -> None:
    data = three_formats["yolo"]
    data.write_text(data.read_text().replace("'block'", json.dumps(name)))
    assert cli("check", "--data", data, "--plot", tmp_path / "p.png")[0] == 0
    assert cv2.imread(str(tmp_path / "p.png")) is not None


def test_findings_that_read_alike_all_count(cli: Cli, three_formats: dict[str, Path], capfd) -> None:
    """Of annotations without ids nothing tells two of one fault apart; a picture that is listed twice has it once."""
    file = three_formats["coco"].parent / "coco.json"
    content = json.loads(file.read_text())
    first = {key: value for key, value in content["annotations"][0].items() if key != "id"}
    content["annotations"] += [{**first, "category_id": 12}] * 3
    file.write_text(json.dumps(content))
    assert check(cli, three_formats["coco"])[1]["counts"] == {"unknown category": 3}
    data = three_formats["yolo"]
    images = data.parent / "images" / "train"
    with PillowImage.open(images / "s000.png") as picture:
        picture.convert("L").save(images / "s000.png")
    (data.parent / "all.txt").write_text(
        "images/train/s000.png\n" + "".join(f"{p}\n" for p in sorted(images.iterdir()))
    )
    (data.parent / "labels" / "train" / "s000.txt").write_text("0 a\n")
    _, report, _ = check(cli, data, "data.train=all.txt")
    assert (report["counts"], report["note_counts"]) == ({"not a number": 1, "duplicate image": 1}, {"grayscale": 1})
    load_splits(build_dataset(make_config({"data": {"source": str(data), "train": "all.txt"}}), Console()), ["train"],
                Console())  # fmt: skip
    said = capfd.readouterr().err
    assert "train: 2 problems: 1 x not a number (box left out), 1 x duplicate image (both are used); 1 note: " in said


def test_options_of_the_command(cli: Cli, shapes: Path, tmp_path: Path) -> None:
    status, printed, _ = cli("check", "--data", shapes, "--plot", tmp_path / "p.png", "--imgsz", "64")
    assert (status, cv2.imread(str(tmp_path / "p.png")) is not None) == (0, True)
    assert "at 64x64 px" in printed
    for words in (["--plot", tmp_path / "p.jpg"], ["--json", tmp_path], ["--show", "0"], ["--imgsz", "33"]):
        status, _, err = cli("check", "--data", shapes, *words)
        assert (status, err.count("\n"), err[:7]) == (2, 1, "error: ")


def test_classes_of_one_name_are_told_apart(cli: Cli, three_formats: dict[str, Path], tmp_path: Path) -> None:
    data = three_formats["yolo"]
    _, report, _ = check(cli, data)
    data.write_text(data.read_text().replace("'block', 'disc'", "'thing', 'thing'"))
    _, printed, err = cli("check", "--data", data, "--json", tmp_path / "twice.json")
    twice = json.loads((tmp_path / "twice.json").read_text())
    assert list(twice["health"]["classes"]) == ["thing (class 0)", "thing (class 1)"]
    assert list(twice["health"]["classes"].values()) == list(report["health"]["classes"].values())
    assert err.startswith("warning: several classes are called 'thing': ")
    assert "thing (class 1)" in printed


@pytest.mark.filterwarnings("error")
def test_tiny_boxes_are_drawn_without_a_warning(cli: Cli, three_formats: dict[str, Path], tmp_path: Path) -> None:
    """One that float32 holds in the image, but no more beside the padding of 40 px; and one that it does not hold."""
    (three_formats["yolo"].parent / "labels" / "train" / "s000.txt").write_text("0 1e-9 1e-9 1e-9 1e-9\n")
    (three_formats["yolo"].parent / "labels" / "train" / "s001.txt").write_text("0 0.5 0.5 1e-9 1e-9\n")
    _, report, _ = check(cli, three_formats["yolo"], "--plot", tmp_path / "p.png")
    assert places(report) == {("s001.txt", 1, "zero size")}


# ---------------------------------------------------------------- what is kept between calls


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash of its content, and its time of change."""
    return {str(p): f"{p.stat().st_mtime_ns} {hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else ''}"
            for p in sorted(folder.rglob("*"))}  # fmt: skip


def test_nothing_is_written_beside_the_data(cli: Cli, planted: tuple[Path, set[Finding]], tmp_path: Path) -> None:
    before = tree(planted[0].parent)
    cli("check", "--data", planted[0], "--json", tmp_path / "o.json")
    assert tree(planted[0].parent) == before


def test_what_was_found_is_known_the_next_time(cli: Cli, planted: tuple[Path, set[Finding]]) -> None:
    _, first, said = check(cli, planted[0])
    assert "24 images looked into, 22 of them for the first time" in said
    _, second, said = check(cli, planted[0])
    assert "24 images looked into, 0 of them for the first time" in said
    assert first == second


def test_an_edit_is_never_served_stale(cli: Cli, three_formats: dict[str, Path]) -> None:
    data = three_formats["yolo"]
    assert check(cli, data)[0] == 0
    label, image = (
        data.parent / kind / "train" / name for kind, name in (("labels", "s000.txt"), ("images", "s001.png"))
    )
    times = {p: (p.stat().st_atime_ns, p.stat().st_mtime_ns) for p in (label, image)}
    label.write_text(label.read_text().replace("0.", "7.", 1))
    pixels = bytearray(image.read_bytes())
    pixels[len(pixels) // 2] ^= 1
    image.write_bytes(pixels)
    for path, stamps in times.items():  # size and time are as they were
        os.utime(path, ns=stamps)
    _, report, _ = check(cli, data)
    assert places(report) == {("s000.txt", 1, "outside"), ("s001.png", 0, "unreadable image")}
    data.write_text(data.read_text().replace("'block', 'disc'", "'block'"))
    assert "class id out of range" in check(cli, data)[1]["counts"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"made_by": 3}', b'{"made_by": MADE, "looks": [[1], {}]}'])
def test_a_damaged_store_is_made_anew(three_formats: dict[str, Path], damage: bytes) -> None:
    folder = three_formats["yolo"].parent / "images" / "train"
    paths, store = sorted(folder.iterdir()), Store(str(folder))
    looks, line = inspect.inspect(paths, store)
    assert "6 of them for the first time" in line
    store.path.write_bytes(damage.replace(b"MADE", json.dumps(inspect._MADE_BY).encode()))
    assert inspect.inspect(paths, store) == (looks, line)
    assert "0 of them for the first time" in inspect.inspect(paths, store)[1]
    assert [p.name for p in store.path.parent.iterdir() if p.suffix != ".json"] == []


def test_the_store_does_not_grow_for_ever(three_formats: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(inspect, "KEPT_UNUSED", 2)
    paths = sorted((three_formats["yolo"].parent / "images" / "train").iterdir())
    store, month_old, new = Store("mine"), Store("old").path, Store("new").path
    for number in (6, 2, 2):  # the third finds nothing new, but is a use
        looks, _ = inspect.inspect(paths[:number], store)
        os.utime(store.path, (0, 0))
    assert list(store.load().values()) == looks + inspect.inspect(paths[2:], store)[0]
    assert time.time() - store.path.stat().st_mtime < 60
    for path, days in ((month_old, 31), (new, 29)):
        path.write_text("{}")
        os.utime(path, (time.time() - days * 86400,) * 2)
    dead = subprocess.Popen(["true"])
    dead.wait()
    leftovers = [store.path.with_suffix(f".{pid}.tmp") for pid in (dead.pid, os.getppid())]
    for path in leftovers:
        path.write_text("")
    write_image(tmp_path / "other.png", np.full((9, 9, 3), 7, np.uint8))
    looks, _ = inspect.inspect([tmp_path / "other.png"], store)
    assert len(store.load()) == 3, "the new one and two of six"
    assert sorted(store.path.parent.iterdir()) == sorted([store.path, new, leftovers[1]])


def test_without_a_cache_folder(cli: Cli, planted: tuple[Path, set[Finding]], monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        _, report, said = check(cli, planted[0])
        assert places(report) == planted[1]
        assert "not kept for the next time" in said


def test_several_processes_see_what_one_sees(planted: tuple[Path, set[Finding]], monkeypatch) -> None:
    paths = sorted((planted[0].parent / "images").rglob("*.*"))
    alone = list(_looks(paths, frozenset()))
    monkeypatch.setattr(inspect, "_WORTH", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert list(_looks(paths, frozenset())) == alone
    assert [look.kind for look in alone].count("truncated image") == 1


# ---------------------------------------------------------------- the same picture twice


def test_near_hashes_are_all_found() -> None:
    """Against every pair; bits are changed in one to five places."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 800, dtype=np.uint64)
    for i in range(1, 200, 2):
        hashes[i] = hashes[i - 1] ^ np.bitwise_or.reduce(
            np.uint64(1) << rng.choice(64, int(rng.integers(1, 6)), False).astype(np.uint64)
        )
    wanted = {(i, j) for j in range(len(hashes)) for i in range(j) if bin(int(hashes[i] ^ hashes[j])).count("1") <= 3}
    assert _candidates(hashes) == wanted
    assert len(wanted) > 30
    assert len(_candidates(rng.integers(0, 2**63, 100_000, dtype=np.uint64))) == 0


@pytest.mark.parametrize(
    "how", [lambda p: p.resize((90, 68)), lambda p: p.point(lambda v: int(v * 0.8 + 20)), lambda p: p.convert("L")]
)
def test_changed_copies_look_alike(cli: Cli, three_formats: dict[str, Path], how: Callable) -> None:
    images = three_formats["yolo"].parent / "images" / "train"
    how(PillowImage.open(images / "s003.png")).save(images / "t.jpg", quality=60)
    (images.parent.parent / "labels" / "train" / "t.txt").write_text("")
    _, report, _ = check(cli, three_formats["yolo"])
    assert ("t.jpg", 0, "similar image") in places(report)


def test_plain_pictures_are_not_called_alike(tmp_path: Path) -> None:
    for shade in (20, 21, 200):
        PillowImage.new("RGB", (50, 50), (shade,) * 3).save(tmp_path / f"{shade}.png")
    looks = [look_at(path) for path in sorted(tmp_path.iterdir())]
    assert inspect.find_duplicates(["train"] * 3, sorted(tmp_path.iterdir()), looks) == []


# ---------------------------------------------------------------- the page about it


def test_the_page_lists_every_kind_with_its_action() -> None:
    rows = [line for line in (ROOT / "docs" / "data.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == [f"| `{name}` | {'note' if kind.note else 'problem'} | {kind.what} | {kind.action} |"
                    for name, kind in KINDS.items()]  # fmt: skip


def test_the_size_that_is_asked_for_is_that_of_training() -> None:
    assert load_config(None, None, {}, []).imgsz == (320, 320)


def test_every_kind_in_the_code_is_on_the_list() -> None:
    for path in (ROOT / "yolite").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem" and len(node.args) > 2:
                kind = node.args[2]
                assert not isinstance(kind, ast.Constant) or kind.value in KINDS, (path, kind.lineno)


def test_a_list_that_plays_val_and_test_is_checked_once(cli, three_formats) -> None:
    """Else all its images would be there twice, across splits; judging what was trained on is a finding."""
    lists = three_formats["voc"] / "ImageSets" / "Main"
    (lists / "rest.txt").write_text("s004\ns005\n")
    (lists / "train.txt").write_text("".join(f"s00{n}\n" for n in range(4)))
    status, out, err = cli("check", "--data", three_formats["voc"], "data.val=rest", "data.test=rest")
    assert status == 0, out + err
    assert "test is what plays val too (rest): checked once" in out


def test_augmented_batches_as_pictures(cli, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = cli("check", "--data", shapes, "--imgsz", 96, "--show", 3, "train.batch=4")
    assert status == 0, err
    assert "3 augmented batches of 4 images in runs/check-1" in out
    assert sorted(p.name for p in (tmp_path / "runs" / "check-1").iterdir()) == [f"batch-00{n}.png" for n in (1, 2, 3)]


def test_the_batches_shown_are_those_of_the_settings(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of eight pictures have no box: with data.background=0 only the others are there to be shown."""
    monkeypatch.chdir(tmp_path)
    data = write_yolo(tmp_path / "set", {"train": 8, "val": 2})
    for number in range(4):
        (data.parent / "labels" / "train" / f"s{number:03d}.txt").write_text("")
    words = ["data.background=0", "data.balance=classes", "loss.class_weights=auto"]
    status, out, err = cli("check", "--data", data, "--imgsz", 96, "--show", 1, "augment.mosaic=0", *words)
    assert status == 0, err
    assert "data.balance=classes, data.background=0: an epoch shows 4 pictures instead of 8; boxes of a class" in out
    assert "loss.class_weights (auto: one over the boxes): boxes of a class an epoch x weight: " in out
    assert "1 augmented batches of 4 images" in out
    status, _, err = cli("check", "--data", data, "--imgsz", 96, "--show", 1, "loss.class_weights=[1, 2, 3]")
    assert (status, "has 3 numbers for 2 classes" in err) == (2, True)
    for file in (data.parent / "images" / "train").iterdir():
        file.write_bytes(b"nothing")
    status, _, err = cli("check", "--data", data, "--imgsz", 96, "--show", 1)
    assert (status, "no image of the role 'train' can be read" in err) == (2, True)


def test_twenty_findings_of_a_kind_are_printed_or_all(cli: Cli, three_formats: dict[str, Path]) -> None:
    data = three_formats["yolo"]
    label = data.parent / "labels" / "train" / "s000.txt"
    label.write_text("".join(f"0 0.5 0.5 0 0.{n}\n" for n in range(10, 35)) + "7 0.5 0.5 0.1 0.1\n")
    for words, shown in (([], 20), (["--all"], 25)):
        status, out, _ = cli("check", "--data", data, *words)
        places = [line.split(": ")[0].strip() for line in out.splitlines() if line.startswith(f"  {label}:")]
        assert status == 1
        assert places == [f"{label}:{n}" for n in range(1, shown + 1)] + [f"{label}:26"]
        assert ("  ... and 5 more: --all or --json FILE" in out.splitlines()) == (shown == 20)
