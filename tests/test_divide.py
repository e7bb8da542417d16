"""`yolite convert --val-share`: pictures to train on and pictures to judge by, none in both, none like another's."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from tests.conftest import NAMES, write_yolo
from tests.test_bad_input import refused
from tests.test_readers import load
from yolite.data.dataset import Split
from yolite.data.divide import divide
from yolite.data.duplicates import find_duplicates
from yolite.data.look import Look, look_at
from yolite.errors import UserError
from yolite.structures import Sample

Cli = Callable[..., tuple[int, str, str]]


def looks(contents: list[int]) -> list[Look]:
    """Looks of made-up pictures: equal numbers are the same file."""
    out = []
    for content in contents:
        rng = np.random.default_rng(content)
        out.append(Look(f"{content:08x}", gradients=rng.bytes(8).hex(), grey=rng.bytes(64).hex()))
    return out


def split_of(labels: list[list[int]], classes: int) -> Split:
    """A split whose pictures show these classes."""
    samples = []
    for number, own in enumerate(labels):
        boxes, none = torch.tensor([[1.0, 1, 5, 5]]).expand(len(own), 4), torch.zeros(len(own), dtype=torch.bool)
        labels = torch.tensor(own, dtype=torch.int64)
        samples.append(Sample(Path(f"{number}.png"), (10, 10), boxes, labels, none, boxes[:, 2] * 0 + 16, none, number))
    return Split("train", samples, [str(c) for c in range(classes)], list(range(1, classes + 1)), [], "made up",
                 unread=Counter(mask=3))  # fmt: skip


@settings(max_examples=60)
@given(st.data(), st.sampled_from([0.1, 0.2, 0.25, 0.5]))
def test_nothing_is_lost_or_shared(data: st.DataObject, share: float) -> None:
    count = data.draw(st.integers(20, 80))
    classes = data.draw(st.integers(1, 4))
    own = data.draw(st.lists(st.lists(st.integers(0, classes - 1), max_size=3), min_size=count, max_size=count))
    contents = data.draw(st.lists(st.integers(0, 2 * count), min_size=count, max_size=count))
    split = split_of(own, classes)
    if len(set(contents)) < round(1 / share):
        with pytest.raises(UserError, match="too few"):
            divide(split, looks(contents), share)
        return
    train, val = divide(split, looks(contents), share)
    ids = [[sample.id for sample in part.samples] for part in (train, val)]
    assert sorted(ids[0] + ids[1]) == list(range(count))
    assert all(part == sorted(part) and part for part in ids)
    assert not {contents[i] for i in ids[0]} & {contents[i] for i in ids[1]}
    assert (train.role, val.role) == ("train", "val")
    assert train.unread + val.unread == split.unread


def test_the_share_is_kept_and_every_class_is_judged() -> None:
    rng = np.random.default_rng(0)
    own = [[0] * int(rng.integers(0, 3)) + ([1] if number % 10 == 0 else []) for number in range(200)]
    train, val = divide(split_of(own, 2), looks(list(range(200))), 0.2)
    assert len(val.samples) == pytest.approx(40, abs=2)
    rare = [sum(1 in sample.labels for sample in part.samples) for part in (train, val)]
    assert rare == [16, 4]
    empty = [sum(len(sample.labels) == 0 for sample in part.samples) for part in (train, val)]
    assert empty[1] == pytest.approx(sum(empty) / 5, abs=2)
    again = divide(split_of(own, 2), looks(list(range(200))), 0.2)
    assert [s.id for s in again[1].samples] == [s.id for s in val.samples]


@pytest.fixture
def undivided(tmp_path: Path) -> Path:
    """``images`` and ``labels`` alone: 20 scenes, each once more in another size."""
    write_yolo(tmp_path / "made", {"train": 20})
    for kind in ("images", "labels"):
        shutil.copytree(tmp_path / "made" / kind / "train", tmp_path / "photos" / kind)
    photos = tmp_path / "photos"
    (photos / "classes.txt").write_text("\n".join(NAMES) + "\n")
    for number in range(20):
        picture = PillowImage.open(photos / "images" / f"s{number:03d}.png")
        picture.resize((100, 75)).save(photos / "images" / f"copy{number:03d}.png")
        shutil.copy(photos / "labels" / f"s{number:03d}.txt", photos / "labels" / f"copy{number:03d}.txt")
    return photos


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_a_folder_of_photographs(cli: Cli, undivided: Path, tmp_path: Path, to: str) -> None:
    refused(cli("train", "--data", undivided), "or divide train (`yolite convert --val-share 0.2`)")
    out = tmp_path / "out"
    status, printed, err = cli("convert", "--data", undivided, "--to", to, "--out", out, "--val-share", "0.25")
    assert status == 0, err
    assert "train: 30 images" in printed
    assert "val: 10 images" in printed
    parts = [load(out, role) for role in ("train", "val")]
    assert [part.names for part in parts] == [NAMES, NAMES]
    paths = [[Path(str(sample.path)) for sample in part.samples] for part in parts]
    assert sorted(path.name for part in paths for path in part) == sorted(
        path.name for path in (undivided / "images").iterdir()
    )
    found = find_duplicates(
        ["train"] * 30 + ["val"] * 10, paths[0] + paths[1], [look_at(path) for path in paths[0] + paths[1]]
    )
    assert len(found) == 20
    assert {problem.kind for _, problem in found} == {"similar image"}
    whole = load(undivided)
    assert sum(part.boxes for part in parts) == whole.boxes


def test_one_json_is_divided(cli: Cli, three_formats: dict[str, Path], tmp_path: Path) -> None:
    """It plays train, val and test; divided, train and val only: a test that holds the others would judge nothing."""
    json = three_formats["coco"].parent / "coco.json"
    (json.parent / "images").symlink_to(three_formats["yolo"].parent / "images" / "train")
    out = tmp_path / "out"
    status, _, err = cli("convert", "--data", json, "--to", "coco", "--out", out, "--val-share", "0.5")
    assert status == 0, err
    assert {len(load(out, role).samples) for role in ("train", "val")} == {3}
    with pytest.raises(UserError, match="nothing for the role 'test'"):
        load(out, "test")


def test_training_says_where_both_are_the_same(cli: Cli, three_formats: dict[str, Path], tmp_path: Path) -> None:
    json = three_formats["coco"].parent / "coco.json"
    (json.parent / "images").symlink_to(three_formats["yolo"].parent / "images" / "train")
    # a later step refuses: what is said of the data comes before it
    _, _, err = cli("train", "--data", json, "--out", tmp_path / "run", "--batch", "99", "data.workers=0")
    assert "learned by heart" in err
    assert "train.batch is 99" in err


def test_what_cannot_be_divided(cli: Cli, undivided: Path, shapes: Path, tmp_path: Path) -> None:
    def convert(data: Path, share: str) -> tuple[int, str, str]:
        return cli("convert", "--data", data, "--to", "yolo", "--out", tmp_path / "out", "--val-share", share)

    for share in ("0", "-0.2", "0.6", "nan"):
        refused(convert(undivided, share), "is no share of the pictures")
    refused(convert(undivided, "0.02"), "has 20 different pictures, too few for --val-share 0.02")
    refused(convert(shapes, "0.2"), "has pictures for val already")
    (tmp_path / "test.yaml").write_text(f"path: {shapes.parent}\ntest: images/val\nnames: {NAMES}\n")
    refused(convert(tmp_path / "test.yaml", "0.2"), "has nothing for train")
    assert not (tmp_path / "out").exists()


def test_a_class_that_nothing_judges_is_named(cli: Cli, undivided: Path, tmp_path: Path) -> None:
    (undivided / "classes.txt").write_text("\n".join([*NAMES, "never"]) + "\n")
    _, _, err = cli("convert", "--data", undivided, "--to", "yolo", "--out", tmp_path / "out", "--val-share", "0.25")
    assert "val shows no object of never" in err
