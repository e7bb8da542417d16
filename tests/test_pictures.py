"""The cache of decoded pictures in a memory-mapped file: the same pictures, never stale, never half-written."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import write_yolo
from tests.test_loader import AUGMENT, same
from yolite import processes
from yolite.console import Console
from yolite.data import pictures as module
from yolite.data.loader import TrainLoader, plain_batches
from yolite.data.pictures import Pictures
from yolite.errors import UserError
from yolite.processes import ALONE, Processes, memory_size
from yolite.reading import build_dataset
from yolite.settings import make_config
from yolite.structures import Preprocess
from yolite.training import decide
from yolite.training.resume import hash_labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / "d", {"train": 6})


def opened(data: Path, side: int = 96) -> Pictures:
    split = build_dataset(make_config({"data": {"source": str(data)}}), Console(quiet=True)).load("train")
    return Pictures(split.samples, Preprocess((side, side)))


def test_the_file_holds_the_pictures_and_is_used_again(data: Path, tmp_path: Path, monkeypatch) -> None:
    plain, mapped = opened(data), opened(data)
    assert mapped.fill_cache(folder=tmp_path / "cache") == []
    for index in range(len(plain)):
        np.testing.assert_array_equal(mapped.read(index)[0], plain.read(index)[0])
        assert isinstance(mapped.read(index)[0].base, np.memmap)
    assert mapped.cache_file(tmp_path / "cache").stat().st_size == plain.cache_bytes
    monkeypatch.setattr(module, "read_image", lambda path: pytest.fail("decoded again"))
    again = opened(data)
    assert again.fill_cache(folder=tmp_path / "cache") == []
    for workers in (0, 1):
        one, two = (list(TrainLoader(p, AUGMENT, 3, 1, 2, workers).epoch(0)) for p in (mapped, again))
        assert all(same(a, b) for a, b in zip(one, two, strict=True))


def test_what_a_killed_process_left_is_cleared_away(data: Path, tmp_path: Path) -> None:
    made, dead = opened(data), subprocess.Popen(["true"])
    dead.wait()
    file = made.cache_file(tmp_path / "cache")
    file.parent.mkdir()
    file.with_suffix(f".{dead.pid}.tmp").touch()
    assert made.fill_cache(folder=tmp_path / "cache") == []
    assert sorted(file.parent.iterdir()) == [file, file.with_suffix(".json")]


def test_it_is_never_stale(data: Path, tmp_path: Path) -> None:
    """An image that was replaced, even by one of the same length and date, is decoded again."""
    opened(data).fill_cache(folder=tmp_path / "cache")
    file = next((tmp_path / "d" / "images" / "train").iterdir())
    before = file.stat()
    white = np.full((96, 128, 3), 255, np.uint8)
    data_of = cv2.imencode(".png", white)[1].tobytes()
    file.write_bytes(data_of + b"\0" * (before.st_size - len(data_of)))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    now = opened(data)
    now.fill_cache(folder=tmp_path / "cache")
    place = [s.path for s in now.samples].index(file)
    assert now.read(place)[0].min() == 255
    assert len(list((tmp_path / "cache").iterdir())) == 2, "the old file is written over"
    opened(data, 64).fill_cache(folder=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 4, "another size is another file"


def test_a_broken_picture_is_told_again_from_the_file(data: Path, tmp_path: Path) -> None:
    file = next((tmp_path / "d" / "images" / "train").iterdir())
    samples = opened(data)
    file.write_bytes(b"no picture")
    for made in (samples, Pictures(list(samples.samples), samples.preprocess)):
        bad = made.fill_cache(folder=tmp_path / "cache")
        assert [str(s.path) for s, _ in bad] == [str(file)]
        assert len(made) == 5


def test_a_damaged_index_is_made_again_and_a_full_disk_is_told(data: Path, tmp_path: Path, monkeypatch) -> None:
    cache = tmp_path / "cache"
    opened(data).fill_cache(folder=cache)
    index = next(cache.glob("*.json")).read_text()
    for text in ("", "[]", '{"content": 1}', "{", index.replace('"rows": [', '"rows": [[1], ')):
        next(cache.glob("*.json")).write_text(text)
        made = opened(data)
        made.fill_cache(folder=cache)
        np.testing.assert_array_equal(made.read(2)[0], opened(data).read(2)[0])
    for length in (0, 100):  # a computer that lost its power may leave this
        os.truncate(next(cache.glob("*.bin")), length)
        made = opened(data)
        assert made.fill_cache(folder=cache) == []
        np.testing.assert_array_equal(made.read(2)[0], opened(data).read(2)[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(UserError, match=r"data\.cache=off"):
        opened(data).fill_cache(folder=tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_pictures_are_decoded_a_few_ahead(tmp_path: Path, monkeypatch) -> None:
    """A slow disk must not let all of them pile up in memory."""
    made = opened(write_yolo(tmp_path / "d", {"train": 40}))
    read, begun = module.read_image, []
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(module, "read_image", lambda path: begun.append(path) or read(path))
    decoded = made._decode(None)
    first = [next(decoded) for _ in range(3)]
    time.sleep(0.3)
    assert len(begun) <= 3 + 8
    assert len(first + list(decoded)) == len(begun) == 40


def decided(made: Pictures, tmp_path: Path, free: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``data.cache=auto`` becomes where no RAM is left and a disk has ``free`` times the set."""
    monkeypatch.setattr(decide, "memory_size", lambda: 0)
    monkeypatch.setattr(decide, "free_bytes", lambda folder: int(free * made.cache_bytes))
    config = make_config({"data": {"cache_dir": str(tmp_path / "cache")}})
    return decide.decide_cache(made, "train", config, Console(quiet=True), ALONE)


def test_the_file_of_an_earlier_run_is_taken_where_it_fills_the_disk(data: Path, tmp_path: Path, monkeypatch) -> None:
    assert decided(opened(data), tmp_path, 1.5, monkeypatch) == "off"
    assert decided(opened(data), tmp_path, 2.5, monkeypatch) == "disk"
    assert decided(opened(data), tmp_path, 1.5, monkeypatch) == "disk"  # what it has written is its own


def test_all_processes_take_rank_0s_cache(data: Path, tmp_path: Path, monkeypatch) -> None:
    class Second(Processes):
        def from_main(self, value):
            return "off"

    config = make_config({"data": {"cache_dir": str(tmp_path / "cache")}})
    assert decide.decide_cache(opened(data), "train", config, Console(quiet=True), Second()) == "off"


def test_changed_labels_are_found_where_images_share_a_name(tmp_path: Path) -> None:
    """a/s000.png and b/s000.png: both have the id s000."""
    for folder in "ab":
        write_yolo(tmp_path / "d" / folder, {"train": 2})
    (tmp_path / "data.yaml").write_text("path: d\ntrain: [a/images/train, b/images/train]\nnames: [block, disc]\n")
    before = hash_labels(opened(tmp_path / "data.yaml"))
    assert list(before) == ["s000", "s001", "s000 (2)", "s001 (2)"]
    label = tmp_path / "d" / "a" / "labels" / "train" / "s000.txt"
    label.write_text(label.read_text().replace("0.", "0.0", 1))
    after = hash_labels(opened(tmp_path / "data.yaml"))
    assert [name for name in before if before[name] != after[name]] == ["s000"]


def test_memory_is_that_of_the_container(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "_MEMORY_LIMITS", (str(tmp_path / "memory.max"), "/nowhere"))
    whole = memory_size()
    for text, size in (("max\n", whole), ("1048576\n", 2**20), (f"{2 * whole}", whole)):
        (tmp_path / "memory.max").write_text(text)
        assert memory_size() == size


def test_a_square_picture_from_the_file_can_be_batched(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    data = write_yolo(tmp_path / "d", {"train": 3})
    for file in (tmp_path / "d" / "images" / "train").iterdir():
        cv2.imwrite(str(file), np.full((96, 96, 3), 50, np.uint8))
    made = opened(data)
    made.fill_cache(folder=tmp_path / "cache")
    ((batch, _),) = plain_batches(made, 3, lambda *_: None, step=0)
    batch.images.zero_()
    assert made.read(0)[0].min() == 50
    assert not [w for w in recwarn if "writable" in str(w.message)]


@pytest.mark.slow
def test_training_from_the_file_is_the_same_training(cli, shapes: Path, tmp_path: Path) -> None:
    from tests.test_training import SMALL, same_state, train

    words = ["--data", shapes, *SMALL, "--epochs", 2]
    train(cli, *words, "data.cache=ram", "--out", tmp_path / "ram")
    train(cli, *words, "data.cache=disk", f"data.cache_dir={tmp_path / 'cache'}", "--out", tmp_path / "disk")
    same_state(tmp_path / "ram", tmp_path / "disk")
    status, out, _ = cli(
        "train",
        *words,
        "data.cache=disk",
        f"data.cache_dir={tmp_path / 'cache'}",
        "--overfit",
        4,
        "--out",
        tmp_path / "o",
    )
    assert status == 0
    assert "MiB, in " in out
