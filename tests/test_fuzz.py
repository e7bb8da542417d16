"""A thousand broken files: none may crash, hang, fill the memory, or vanish from the report.

Everything is drawn from seeds. A malformed file is either reported (a problem, or a `UserError`), or what is left of it
is shown to be valid: the picture decodes to the size its header states, every row and annotation is a box or a finding.
"""

import contextlib
import json
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from tests.conftest import NAMES, scene, write_yolo
from yolite.console import Console
from yolite.data.dataset import open_dataset
from yolite.data.images import ImageError, image_size, read_image
from yolite.data.look import look_at, problems_of
from yolite.data.problems import KINDS, Problem, make_sample
from yolite.data.readers.voc import read_voc
from yolite.data.readers.yolo import read_labels, read_yolo
from yolite.errors import UserError
from yolite.reading import build_dataset, load_splits
from yolite.settings import make_config
from yolite.structures import Sample

SECONDS = 5
"""A case may take so long (a busy machine included)."""
MEMORY = 300 << 20
"""The process may grow by so much over all cases."""
SIZE = (48, 64)
LEAVES_OUT = {kind for kind, k in KINDS.items() if k.action in ("box left out", "the second is left out")}


class HangError(BaseException):
    """The time of a case is over; no `except Exception` can hide it."""


@contextlib.contextmanager
def limit(case: object) -> Iterator[None]:
    """Let a case take its time, no more; a `UserError` is an answer."""

    def stop(*_: object) -> None:
        raise HangError(str(case))

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.suppress(UserError):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def no_memory_is_eaten() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


# ---------------------------------------------------------------- how files break


def flip(rng: np.random.Generator, data: bytes) -> bytes:
    out = bytearray(data)
    for place in rng.integers(len(out), size=int(rng.integers(1, 20))):
        out[place] ^= 1 << int(rng.integers(8))
    return bytes(out)


def flip_early(rng: np.random.Generator, data: bytes) -> bytes:
    return flip(rng, data[:64]) + data[64:]


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data)))]


def lose(rng: np.random.Generator, data: bytes) -> bytes:
    a, b = sorted(int(v) for v in rng.integers(len(data), size=2))
    return data[:a] + data[b:]


def insert(rng: np.random.Generator, data: bytes) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + rng.bytes(int(rng.integers(1, 40))) + data[place:]


def blank(rng: np.random.Generator, data: bytes) -> bytes:
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    return data[:place] + bytes([int(rng.choice([0, 0xFF]))]) * length + data[place + length :]


def repeat(rng: np.random.Generator, data: bytes) -> bytes:
    a, b = sorted(int(v) for v in rng.integers(len(data), size=2))
    return data[:b] + data[a:b] * 3 + data[b:]


BREAKS = [flip, flip_early, cut, lose, insert, blank, repeat]
ENCODINGS = ["utf-16", "utf-16-be", "utf-32", "cp500", "utf-7"]


def pictures() -> dict[str, bytes]:
    """The same small picture in every format and many variants."""
    picture = PillowImage.fromarray(scene(1, SIZE)[0][:48, :64])
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    variants: list[tuple[str, PillowImage.Image, dict[str, Any]]] = [
        ("JPEG", picture, {}), ("JPEG", picture, {"progressive": True}), ("JPEG", picture.convert("L"), {}),
        ("JPEG", picture.convert("CMYK"), {}), ("JPEG", picture, {"exif": exif}), ("PNG", picture, {}),
        ("PNG", picture.convert("P"), {}), ("PNG", picture.convert("LA"), {}), ("PNG", picture, {"exif": exif}),
        ("PNG", PillowImage.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)), {}),
        ("BMP", picture, {}), ("WEBP", picture, {}), ("WEBP", picture, {"lossless": True}), ("TIFF", picture, {}),
        ("TIFF", picture, {"compression": "tiff_lzw"}), ("TIFF", picture, {"exif": exif}),
        ("TIFF", picture, {"compression": "jpeg"}), ("GIF", picture.convert("P"), {}),
    ]  # fmt: skip
    out = {}
    for number, (kind, image, options) in enumerate(variants):
        file = BytesIO()
        image.save(file, kind, **options)
        out[f"{number}.{kind.lower()}"] = file.getvalue()
    return out


def broken_pictures(each: int) -> Iterator[tuple[str, bytes]]:
    """Yield a name and the content of every broken picture."""
    rng = np.random.default_rng(1)
    for name, data in pictures().items():
        for how in BREAKS:
            for number in range(each):
                yield f"{how.__name__}{number}_{name}", how(rng, data)
    png = pictures()["5.png"]
    yield "bomb.png", png[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + png[24:]
    yield "chunk.png", png[:33] + b"\x3f\xff\xff\xff" + png[37:]
    jpeg = pictures()["0.jpeg"]
    size = jpeg.index(b"\xff\xc0") + 5
    yield "large.jpg", jpeg[:size] + (13_000).to_bytes(2, "big") * 2 + jpeg[size + 4 :]
    yield "empty.jpg", b""
    yield "noise.jpg", rng.bytes(5000)
    yield "fill.jpg", b"\xff" * 100_000
    yield "segments.jpg", b"\xff\xd8" + b"\xff\xe0\x00\x00" * 30_000


def test_broken_pictures(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for name, data in broken_pictures(4):
        path = tmp_path / name
        path.write_bytes(data)
        with limit(name):
            look = look_at(path)
            if look.kind:
                with pytest.raises(ImageError) as caught:
                    read_image(path)
                assert (look.kind, look.error) == (caught.value.kind, str(caught.value)), name
                (problem,) = problems_of(path, look)
                assert problem.action == "image left out"
            else:
                image = read_image(path)
                assert image.dtype == np.uint8
                assert image.shape == (*image_size(path), 3), name
                with PillowImage.open(path) as picture:
                    assert sorted(picture.size) == sorted(image.shape[:2]), name
            seen[look.kind or "valid"] += 1
        path.unlink()
    assert sum(seen.values()) > 500
    assert min(seen["valid"], seen["unreadable image"], seen["truncated image"]) > 20, seen


# ---------------------------------------------------------------- labels


def label_texts() -> Iterator[tuple[str, bytes]]:
    """Yield broken YOLO label files."""
    rng = np.random.default_rng(2)
    plain = b"0 0.5 0.5 0.25 0.25\n1 0.3 0.4 0.2 0.1\n0 0.1 0.1 0.2 0.1 0.2 0.2\n1 0.7 0.7 0.1 0.1 0.7 0.7 2\n"
    for how in BREAKS:
        for number in range(30):
            yield f"{how.__name__}{number}", how(rng, plain)
    for name in ENCODINGS:
        yield name, plain.decode().encode(name)
    words = ["1e308", "-1e308", "1e400", "nan", "-inf", "9" * 5000, "0x1", "1_0", "٣", "½", "", "1,5", "--1", "1e-400",
             "\x00", "0.5\x0b0.5", "0.5\u2028", "-0", "1e18", "1." + "0" * 9999 + "1"]  # fmt: skip
    for word in words:
        for place in range(5):
            fields = ["1", "0.5", "0.5", "0.25", "0.25"]
            fields[place] = word
            yield f"word {word[:12]!r} at {place}", " ".join(fields).encode()
    yield "long row", b"0 " + b"0.5 0.25 0.75 " * 30_000
    yield "many rows", b"".join(b"0 0.5 0.5 0.25 0.%d\n" % n for n in range(100, 3000))
    yield "carriage returns", plain.replace(b"\n", b"\r") + b"\r\r\n\n" + plain
    yield "one endless word", b"1" * 1_000_000
    yield "blank", b" \t\r\n\x0c\n" * 1000


def check_sample(sample: Sample, classes: int, case: str) -> None:
    """Boxes are finite, inside the image, and of known classes."""
    height, width = sample.size
    x1, y1, x2, y2 = sample.boxes.unbind(1)
    assert bool(torch.isfinite(sample.boxes).all() and torch.isfinite(sample.area).all()), case
    assert bool(((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height) & (x1 <= x2) & (y1 <= y2)).all()), case
    assert bool(((sample.labels >= 0) & (sample.labels < classes)).all()), case


def test_broken_labels(tmp_path: Path) -> None:
    file, cases, read = tmp_path / "a.txt", 0, 0
    for case, data in label_texts():
        cases += 1
        file.write_bytes(data)
        with limit(case):
            problems: list[Problem] = []
            rows = read_labels(file, SIZE, 2, problems)
            sample = make_sample(None, SIZE, rows, file, "a", problems)
            check_sample(sample, 2, case)
            if any(p.line == 0 for p in problems):
                assert len(problems) == 1, case
                assert not len(sample.boxes)
                continue
            read += 1
            text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            lines = {number for number, line in enumerate(text.split("\n"), 1) if line.strip()}
            left_out = [p.line for p in problems if p.kind in LEAVES_OUT]
            assert len(left_out) == len(set(left_out)), f"{case}: each row once"
            assert lines >= {p.line for p in problems}, case
            assert len(lines) == len(sample.boxes) + len(left_out), f"{case}: {problems}"
    assert cases > 300
    assert read > 150


# ---------------------------------------------------------------- Pascal VOC


def voc_root(root: Path) -> Path:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    PillowImage.new("RGB", SIZE[::-1]).save(root / "JPEGImages" / "a.png")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


XML = ("<annotation><size><width>64</width><height>48</height></size>" + "".join(
    f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>5</ymin><xmax>{x + 9}</xmax>"
    "<ymax>30</ymax></bndbox></object>" for name, x in (("block", 3), ("disc", 20), ("block", 40))
) + "</annotation>")  # fmt: skip


def xml_files() -> Iterator[tuple[str, bytes]]:
    """Yield broken annotations."""
    rng = np.random.default_rng(3)
    for how in BREAKS:
        for number in range(20):
            yield f"{how.__name__}{number}", how(rng, XML.encode())
    for name in ENCODINGS:
        yield name, XML.encode(name)
        yield f"says {name}", f'<?xml version="1.0" encoding="{name}"?>{XML}'.encode()
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "bang"}">' for n in range(12))
    for name in ("utf-8", "utf-16", "utf-16-be"):
        for inner, tag in ((f"[{bomb}]", "&e11;"), ('SYSTEM "file:///etc/passwd"', ""), ("", ""),
                           ('[<!ENTITY x SYSTEM "/dev/zero">]', "&x;")):  # fmt: skip
            text = f'<?xml version="1.0" encoding="{name}"?><!DOCTYPE a {inner}>{XML.replace("block", "block" + tag)}'
            yield f"doctype {inner[:20]} {name}", text.encode(name)
    for word in ("1e308", "nan", "-inf", "9" * 5000, "", " 5 ", "5px", "٣", "<b/>", "<![CDATA[7]]>", "&#0;", "&#55;"):
        yield f"word {word[:9]}", XML.replace(">3<", f">{word}<").encode()
        yield f"size {word[:9]}", XML.replace(">64<", f">{word}<").encode()
        yield f"name {word[:9]}", XML.replace(">disc<", f">{word}<").encode()
    yield "deep", b"<a>" * 200_000
    yield "deep and closed", b"<object>" * 100_000 + b"</object>" * 100_000
    yield "many attributes", b"<a " + b" ".join(b'b%d="1"' % n for n in range(20_000)) + b"/>"
    yield "long name", XML.replace(">disc<", f">{'d' * 2_000_000}<").encode()


def test_broken_xml(tmp_path: Path) -> None:
    root, cases, read = voc_root(tmp_path / "voc"), 0, 0
    file = root / "Annotations" / "a.xml"
    for case, data in xml_files():
        cases += 1
        file.write_bytes(data)
        with limit(case):
            problems: list[Problem] = []
            (sample,) = read_voc(root, "train", NAMES, problems, Counter())
            check_sample(sample, 2, case)
            if any(p.kind in ("unreadable label file", "empty label file") for p in problems):
                assert not len(sample.boxes), case
                continue
            read += 1
            assert "doctype" not in case
            objects = ElementTree.fromstring(data).findall("object")
            left_out = sum(p.kind in LEAVES_OUT and p.kind != "misplaced object" for p in problems)
            assert len(objects) == len(sample.boxes) + left_out, case
    assert cases > 190
    assert read > 25


# ---------------------------------------------------------------- COCO


def coco_plain() -> dict[str, Any]:
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(1, 4)]
    boxes = [[5 + 3 * n, 4 + 2 * n, 20, 10 + n] for n in range(9)]
    annotations = [{"id": n + 1, "image_id": 1 + n % 3, "category_id": 3 + 4 * (n % 2), "bbox": box, "area": 99.5,
                    "iscrowd": 0} for n, box in enumerate(boxes)]  # fmt: skip
    return {"images": images, "annotations": annotations,
            "categories": [{"id": 3, "name": "block"}, {"id": 7, "name": "disc"}]}  # fmt: skip


def coco_files() -> Iterator[tuple[str, bytes]]:
    """Yield broken jsons: bytes, and values of any kind in any place."""
    rng = np.random.default_rng(4)
    plain = json.dumps(coco_plain()).encode()
    for how in BREAKS:
        for number in range(12):
            yield f"{how.__name__}{number}", how(rng, plain)
    for name in ENCODINGS:
        yield name, plain.decode().encode(name)
    strange: list[Any] = [None, True, -1, 0, 1.5, float("nan"), float("inf"), 10**400, "", "x", "\ud800",
                          "a\x00b", "../../x", "/dev/zero", "x" * 100_000, [], [[]], {}, {"id": 1}, [1, 2, 3, 4],
                          [1e308] * 4]  # fmt: skip
    for number in range(170):
        content = coco_plain()
        section = str(rng.choice(["images", "annotations", "categories"]))
        place = int(rng.integers(len(content[section])))
        value = strange[int(rng.integers(len(strange)))]
        key = str(rng.choice([*content[section][place], "whole"]))
        if key == "whole":
            content[section][place] = value
        else:
            content[section][place][key] = value
        yield f"{section}.{place}.{key} = {str(value)[:20]!r} ({number})", json.dumps(content).encode()
    yield "deep", b"[" * 200_000
    yield "deep objects", b'{"images":' * 100_000
    yield "deep inside", plain.replace(b"99.5", b"[" * 5_000 + b"]" * 5_000, 1)
    yield "huge number", plain.replace(b"99.5", b"9" * 100_000, 1)
    yield "twice a key", plain.replace(b'"images"', b'"images": [], "images"', 1)


def test_broken_coco(tmp_path: Path) -> None:
    for number in range(1, 4):
        PillowImage.new("RGB", SIZE[::-1]).save(tmp_path / f"{number}.png")
    file, cases, read = tmp_path / "a.json", 0, 0
    for case, data in coco_files():
        cases += 1
        file.write_bytes(data)
        with limit(case):
            split = open_dataset(file, {}).read("train")
            content = json.loads(data)
            read += 1
            for sample in split.samples:
                check_sample(sample, len(split.names), case)
            left_out = [p for p in split.problems if p.action in ("image left out", "the second is left out")]
            images = [p for p in left_out if p.kind != "duplicate box"]
            assert len(content["images"]) == len(split.samples) + len(images), case
            kept = [sample.id for sample in split.samples]
            orphans = [a for a in content["annotations"] if isinstance(a, dict) and a.get("image_id") not in kept
                       and isinstance(a.get("image_id"), (int, str))]  # fmt: skip
            if images and orphans:
                continue  # their image is reported, and they with it or on their own
            reported = sum(p.kind in LEAVES_OUT or p.kind == "label without image" for p in split.problems)
            reported -= sum(p.kind == "duplicate image id" for p in split.problems)
            assert len(content["annotations"]) == split.boxes + reported, f"{case}: {split.problems}"
    assert cases > 250
    assert read > 100


# ---------------------------------------------------------------- lists of images


def list_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield broken lists of images."""
    rng = np.random.default_rng(5)
    plain = "".join(f"images/train/s{n:03d}.png\n" for n in range(4)).encode()
    for how in BREAKS:
        for number in range(8):
            yield f"{how.__name__}{number}", how(rng, plain)
    for name in ENCODINGS:
        yield name, plain.decode().encode(name)
    for word in ("/etc/passwd", "/dev/zero", "/dev/stdin", "../" * 500 + "etc/passwd", "..", ".", "/", "images",
                 "pipe.png", "zero.png", "loop.png", "x" * 5000, "a\x00b.png", "list.txt", "~/x.png", "$HOME/x.png",
                 "http://a/b.jpg", "images/train/../train/s000.png", str(root / "images/train/s000.png"), "C:\\x.png",
                 "-", "\u202e.png"):  # fmt: skip
        yield f"word {word[:12]!r}", f"{word}\nimages/train/s001.png\n".encode()
    yield "long", plain * 200


def test_broken_lists(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "a", {"train": 4}).parent
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "loop.png").symlink_to("loop.png")
    (root / "list.txt").symlink_to("/dev/zero")
    file, cases, read = root / "l.txt", 0, 0
    for case, data in list_files(root):
        cases += 1
        file.write_bytes(data)
        with limit(case):
            problems: list[Problem] = []
            samples = read_yolo([file], 2, problems)
            read += 1
            lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
            named = {file.parent / line.strip() for line in lines}
            used = {sample.path for sample in samples}
            assert len(named) == len(used) + sum(p.action == "image left out" for p in problems), case
    assert cases > 80
    assert read > 25


# ---------------------------------------------------------------- through the commands


def broken_set(root: Path) -> Path:
    """A YOLO set among whose files many are broken."""
    data = write_yolo(root, {"train": 12, "val": 4})
    rng = np.random.default_rng(6)
    images, labels = root / "images" / "train", root / "labels" / "train"
    for name, content in list(broken_pictures(1))[::3]:
        path = (images / name).with_suffix(".jpg" if name.endswith("jpeg") else Path(name).suffix.replace("gif", "png"))
        path.write_bytes(content)
        (labels / path.name).with_suffix(".txt").write_bytes(
            BREAKS[int(rng.integers(7))](rng, b"0 0.5 0.5 0.25 0.25\n" * 3)
        )
    return data


def test_check_and_training_survive_a_broken_set(cli: Callable, tmp_path: Path) -> None:
    data = broken_set(tmp_path / "broken")
    files = [p for p in (data.parent / "images").rglob("*") if p.is_file()]
    status, _, err = cli("check", "--data", data, "--json", tmp_path / "o.json")
    assert (status, "Traceback" in err) == (1, False), err
    report = json.loads((tmp_path / "o.json").read_text())
    left_out = {p["file"] for p in report["problems"] if p["action"] == "image left out"}
    assert len(files) == report["images"] + len(left_out), "every file is used or reported"
    splits = load_splits(
        build_dataset(make_config({"data": {"source": str(data)}}), Console()), ["train", "val"], Console()
    )
    assert [len(s.samples) for s in splits] == [s["images"] for s in report["health"]["splits"].values()]
    for cache in ("ram", "off"):
        words = ["train", "--data", data, "--imgsz", "32", "--epochs", "1", "--batch", "8", f"data.cache={cache}",
                 "model.width=0.25", "data.workers=0", "--device", "cpu"]  # fmt: skip
        status, printed, err = cli(*words, "--out", tmp_path / cache)
        assert (status, "Traceback" in err, "grey picture" in err) == (0, False, False), err
        assert f"train: {len(splits[0].samples)} images" in printed


def command_cases(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield dozens of data sets with one broken file each."""
    (root / "coco").mkdir()
    for number in range(1, 4):
        PillowImage.new("RGB", SIZE[::-1]).save(root / "coco" / f"{number}.png")
    voc, yolo = voc_root(root / "voc"), write_yolo(root / "yolo", {"train": 4})
    for case, data in list(coco_files())[::18]:
        (root / "coco" / "a.json").write_bytes(data)
        yield case, root / "coco" / "a.json"
    for case, data in list(xml_files())[::14]:
        (voc / "Annotations" / "a.xml").write_bytes(data)
        yield case, voc
    text = yolo.read_text()
    (yolo.parent / "data.yaml").write_text(text.replace("images/train", "l.txt"))
    for case, data in list(list_files(yolo.parent))[::9]:
        (yolo.parent / "l.txt").write_bytes(data)
        yield case, yolo
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(b + 1)}: &{chr(b + 1)} [{', '.join(['*' + chr(b)] * 9)}]\n" for b in range(ord("a"), ord("k"))
    )
    for case in ("names: *k\ntrain: images/train", "names: [a]\ntrain: *k", "names: {0: *k}\ntrain: images/train",
                 "names: [a]\ntrain: images/train\npath: *k", "names: [a]\ntrain: {images: *k, annotations: *k}",
                 "names: [a]\ntrain: images/train\nkeys: *k"):  # fmt: skip
        (yolo.parent / "data.yaml").write_text(bomb + case)
        yield case, yolo


def test_commands_answer_broken_sets(cli: Callable, tmp_path: Path) -> None:
    seen: Counter[int] = Counter()
    for case, data in command_cases(tmp_path):
        with limit(case):
            status, printed, err = cli("check", "--data", data)
            assert status in (0, 1, 2), case
            assert "Traceback" not in printed + err, case
            assert status != 2 or (err.startswith("error: ") and err.count("\n") == 1), err
            assert len(err) < 2000, case
            seen[status] += 1
    assert sum(seen.values()) > 36
    assert seen[1] > 5
    assert seen[2] > 5


def test_labels_that_never_end(tmp_path: Path) -> None:
    """A pipe would block, a device never end, a huge file fill the memory."""
    root = voc_root(tmp_path / "voc")
    for name in ("a.txt", "Annotations/a.xml"):
        file = root / name
        for make in (os.mkfifo, lambda f: f.symlink_to("/dev/zero"), lambda f: f.touch() or os.truncate(f, 2**33)):
            make(file)
            problems: list[Problem] = []
            with limit(name):
                if file.suffix == ".txt":
                    read_labels(file, SIZE, 2, problems)
                else:
                    read_voc(root, "train", NAMES, problems, Counter())
            assert [p.kind for p in problems] == ["unreadable label file"]
            file.unlink()
