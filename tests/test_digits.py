import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from yolite.boxes import pairwise_overlap_share
from yolite.data import digits
from yolite.data.dataset import open_dataset
from yolite.data.images import read_image


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits.ensure_digits(tmp_path_factory.mktemp("digits"))


def load(file: Path, role: str):
    return open_dataset(file, {}, yaml.safe_load(file.read_text())).load(role)


def test_the_recipe(made: Path) -> None:
    for role, scenes in (("train", 800), ("val", 200)):
        split = load(made, role)
        assert {p.kind for p in split.problems} == {"empty label file"}
        assert not split.mirror_safe
        counts = [len(s.boxes) for s in split.samples]
        assert len(counts) == scenes
        assert counts.count(0) == len(split.problems) == round(0.05 * scenes)
        assert max(counts) == 12
        boxes = torch.cat([s.boxes for s in split.samples])
        side = (boxes[:, 2:] - boxes[:, :2]).amax(1).numpy()
        assert side.min() >= 16
        assert side.max() <= 160
        share = np.histogram(np.log(side), bins=np.linspace(np.log(16), np.log(160) + 1e-6, 6))[0] / len(side)
        assert (np.abs(share - 0.2) < 0.03).all(), "sides are even on a log scale"
        labels = torch.cat([s.labels for s in split.samples]).bincount(minlength=10) / len(boxes)
        assert ((labels - 0.1).abs() < 0.02).all()


def test_overlap(made: Path) -> None:
    """At least a fifth of the digits lie under a later one; none is covered by more than 40 %."""
    covered = total = 0
    for scene in digits.layout("train", 0):
        boxes = torch.tensor([g.box for g in scene], dtype=torch.float32).reshape(-1, 4)
        share = pairwise_overlap_share(boxes, boxes).triu(1) if len(boxes) else torch.zeros(0, 1)
        covered += int((share.amax(1) > 0).sum()) if len(boxes) else 0
        total += len(boxes)
        assert not share.numel() or float(share.max()) <= 0.41
    assert covered / total >= 0.2


def test_validation_digits_are_never_trained_on(monkeypatch) -> None:
    """Every bitmap that is drawn is caught: each split draws from its own contiguous block of the file's order."""
    from sklearn.datasets import load_digits

    place: dict[bytes, set[int]] = {}
    for index, image in enumerate(load_digits().images.astype(np.float32)):
        place.setdefault(image.tobytes(), set()).add(index)
    true_ink, drawn = digits._ink, []
    monkeypatch.setattr(digits, "_ink", lambda b, a, s: (drawn.append(b.tobytes()), true_ink(b, a, s))[1])
    for split, block in (("train", range(1437)), ("val", range(1437, 1797))):
        drawn.clear()
        digits.layout(split, 0)
        assert all(place[bitmap] & set(block) for bitmap in drawn)
        assert len({i for bitmap in drawn for i in place[bitmap]} & set(block)) > 0.9 * len(block)


def test_validation_grounds_are_never_trained_on() -> None:
    """Photographs painted 10 on the left 60 % and 200 on the right: no crop mixes them."""
    photograph = np.full((427, 640, 3), 200, np.uint8)
    photograph[:, :384] = 10
    for split, own, other in (("train", 10, 200), ("val", 200, 10)):
        grounds = [digits._ground(np.random.default_rng(i), split, [photograph]) for i in range(40)]
        flat = [g for g in grounds if float(g.std()) == 0]
        assert len(flat) > 10
        assert {float(g.mean()) for g in flat} == {own}
        assert not any((g == other).any() for g in flat)


def test_the_same_seed_gives_the_same_files(made: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(digits, "SCENES", {"train": 6, "val": 3})
    one, two = digits.ensure_digits(tmp_path / "a"), digits.ensure_digits(tmp_path / "b")
    other = digits.ensure_digits(tmp_path / "a", seed=1)
    files = sorted(p.relative_to(one.parent) for p in one.parent.rglob("*.*"))
    assert len(files) == 19
    assert all((one.parent / f).read_bytes() == (two.parent / f).read_bytes() for f in files)
    assert other.parent != one.parent
    picture = next(f for f in files if f.suffix == ".jpg")
    assert not np.array_equal(read_image(one.parent / picture), read_image(other.parent / picture))


def test_a_new_recipe_is_made_again_and_an_old_one_is_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(digits, "SCENES", {"train": 2, "val": 1})
    first = digits.ensure_digits(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert digits.ensure_digits(tmp_path).stat().st_mtime_ns == stamp
    monkeypatch.setattr(digits, "RECIPE", 99)
    assert digits.ensure_digits(tmp_path) != first
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_what_a_killed_making_left_is_cleared_away(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(digits, "SCENES", {"train": 2, "val": 1})
    dead = subprocess.Popen(["true"])
    dead.wait()
    gone, alive = (tmp_path / f".digits-r1-s3.{pid}" for pid in (dead.pid, os.getppid()))
    mine = [tmp_path / name for name in (".digits-notes", ".digits-notes.txt", f"digits-mine.{dead.pid}")]
    for folder in (gone, alive, *mine):
        (folder / "images").mkdir(parents=True)
    made = digits.ensure_digits(tmp_path).parent
    assert sorted(tmp_path.iterdir()) == sorted([made, alive, *mine])
