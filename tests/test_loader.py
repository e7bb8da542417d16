from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from yolite.console import Console
from yolite.data.images import ImageError
from yolite.data.loader import EpochSampler, PlainSet, TrainLoader, choose_workers, plain_batches
from yolite.data.pictures import Pictures
from yolite.data.transforms import Augment
from yolite.errors import UserError
from yolite.geometry import Letterbox
from yolite.processes import Processes
from yolite.reading import build_dataset
from yolite.settings import make_config
from yolite.structures import Batch, Preprocess

AUGMENT = Augment(0.5, 0.4, 0.1, 0.5, 0.1, 0.02, 0.4, 0.3, 0.25)


def pictures(shapes: Path, cache: bool = True) -> Pictures:
    config = make_config({"data": {"source": str(shapes)}})
    split = build_dataset(config, Console()).load("train")
    made = Pictures(split.samples, Preprocess((96, 96)))
    if cache:
        assert made.fill_cache() == []
    return made


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.targets.boxes, b.targets.boxes) and a.indices == b.indices


def batches(shapes: Path, workers: int, start: int = 0, epoch: int = 0, cache: bool = True) -> list[Batch]:
    return list(TrainLoader(pictures(shapes, cache), AUGMENT, 5, 7, 3, workers).epoch(epoch, start))


def test_workers_change_nothing(shapes: Path) -> None:
    alone = batches(shapes, 0)
    assert len(alone) == 4
    assert all(b.images.shape == (5, 3, 96, 96) for b in alone)
    for workers in (1, 2):
        assert all(same(a, b) for a, b in zip(alone, batches(shapes, workers), strict=True))


def test_buffers_hold_the_share_of_a_process(shapes: Path) -> None:
    """16 pictures, of which one of three processes computes 6 in two parts of 3."""
    loader = TrainLoader(pictures(shapes), AUGMENT, 16, 7, 3, 1, parts=2, processes=Processes(1, 3))
    assert loader._handover._pixels.shape[1] == 3
    assert [len(batch.indices) for batch in loader.epoch(0)] == [3, 2]
    loader.close()


def test_no_room_in_shared_memory_is_one_sentence(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(UserError, match=r"has no room for 0 MiB .*No space left.* --shm-size .*data.workers=0"):
        TrainLoader(pictures(shapes), AUGMENT, 4, 7, 3, 1)


def test_processes_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolite.data.loader.os.cpu_count", lambda: 32)
    assert [choose_workers(world) for world in (1, 2, 8, 32, 64)] == [8, 8, 3, 0, 0]


def test_the_cache_changes_nothing(shapes: Path) -> None:
    assert all(same(a, b) for a, b in zip(batches(shapes, 0), batches(shapes, 0, cache=False), strict=True))


def test_starting_inside_an_epoch_gives_the_same_batches(shapes: Path) -> None:
    whole, rest = batches(shapes, 0, epoch=2), batches(shapes, 1, start=2, epoch=2)
    assert len(rest) == 2
    assert all(same(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_epochs_differ_and_each_shows_every_picture() -> None:
    sampler = EpochSampler(11, 4, seed=0, mosaic_epochs=1)
    seen = []
    for epoch in (0, 1):
        sampler.epoch = epoch
        keys = [key for batch in sampler for key in batch]
        assert len(keys) == 12
        assert {index for _, index, _ in keys} == set(range(11))
        assert {mosaic for _, _, mosaic in keys} == {epoch < 1}
        seen.append([index for _, index, _ in keys])
    assert seen[0] != seen[1]


def test_boxes_lie_inside_and_know_their_picture(shapes: Path) -> None:
    for batch in batches(shapes, 0):
        assert (batch.targets.boxes >= 0).all()
        assert (batch.targets.boxes <= 96).all()
        assert set(batch.targets.image.tolist()) <= set(range(5))


def test_plain_pictures_are_letterboxed_in_order(shapes: Path) -> None:
    made = pictures(shapes, cache=False)
    items = list(plain_batches(made, 6, lambda sample, reason: None, step=0))
    assert [b.indices for b, _ in items] == [tuple(range(6)), tuple(range(6, 12)), tuple(range(12, 16))]
    first, spent = items[0]
    assert spent["decode"] > 0
    wanted = first.letterboxes[0].apply(made.samples[0].boxes)
    torch.testing.assert_close(first.targets.boxes[first.targets.image == 0], wanted)


def test_pictures_of_one_input_size_make_a_batch(shapes: Path) -> None:
    made = pictures(shapes, cache=False)
    sizes = {2: (60, 100), 7: (60, 100), 9: (100, 30)}  # (H, W) as the labels state them, on an input of 96x96
    made.samples = [replace(s, size=sizes.get(i, (96, 96))) for i, s in enumerate(made.samples)]
    made.read = lambda i: (np.zeros((*Letterbox.fit(made.samples[i].size, made.preprocess).content, 3), np.uint8),
                           {"decode": 0.0, "preprocess": 0.0})  # type: ignore[method-assign] # fmt: skip
    batches = [batch for batch, _ in plain_batches(made, 8, lambda *_: None, range(1, 11), step=32)]
    assert [(b.indices, tuple(b.images.shape)) for b in batches] == [
        ((2, 7), (2, 3, 64, 96)),
        ((9,), (1, 3, 96, 32)),
        ((1, 3, 4, 5, 6, 8, 10), (7, 3, 96, 96)),
    ]
    assert [box.input for b in batches for box in b.letterboxes] == [(64, 96)] * 2 + [(96, 32)] + [(96, 96)] * 7


def test_an_unreadable_picture_is_reported(shapes: Path, tmp_path: Path) -> None:
    made = pictures(shapes, cache=False)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    made.samples[1] = replace(made.samples[1], path=bad)
    with pytest.raises(ImageError):
        PlainSet(made)[1]
    told: list[str] = []
    items = list(plain_batches(made, 16, lambda sample, reason: told.append(str(sample.path)), step=0))
    assert told == [str(bad)]
    assert items[0][0].indices == (0, *range(2, 16))
    assert [str(s.path) for s, _ in made.fill_cache()] == [str(bad)]
    assert len(made) == 15
