"""What an epoch shows when classes or backgrounds are balanced: hand-worked numbers, fixed steps, nothing lost."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.test_loader import AUGMENT, pictures, same
from yolite.data.balance import boxes_seen, draw_epoch, epoch_size, image_weights
from yolite.data.loader import EpochSampler, TrainLoader
from yolite.processes import Processes
from yolite.seeding import generator
from yolite.structures import Sample
from yolite.training.imbalance import counts_line, inverse_frequency


def sample(*labels: int, ignored: int = 0) -> Sample:
    n = len(labels)
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]]).repeat(n, 1)
    crowd = torch.arange(n) < ignored
    return Sample(None, (10, 10), boxes, torch.tensor(labels, dtype=torch.int64), crowd, torch.ones(n),
                  torch.zeros(n, dtype=torch.bool), 0)  # fmt: skip


# class 0 on eight of ten pictures, class 1 on two (one of them with class 0), two without boxes
TEN = [*[sample(0)] * 6, sample(0, 0), sample(0, 1, 1), sample(1), sample()]


def test_repeat_factors_by_hand() -> None:
    weights = image_weights(TEN, 2, 0.8, 1.0)  # class 1: sqrt(0.8 / 0.2) = 2; class 0: f = t, once
    assert weights is not None
    assert weights.tolist() == pytest.approx([1] * 7 + [2, 2, 1])
    assert epoch_size(weights) == 12
    assert boxes_seen(TEN, 2, None) == [9, 3]
    assert boxes_seen(TEN, 2, weights) == pytest.approx([10, 6])


def test_every_class_equally_often_by_hand() -> None:
    weights = image_weights(TEN, 2, "classes", 1.0)
    # nine draws, 4.5 a class: 4.5 / 8 for a picture of class 0, 4.5 / 2 for one of class 1
    assert weights is not None
    assert weights.tolist() == pytest.approx([0.5625] * 7 + [0.5625 + 2.25, 2.25, 1])
    assert epoch_size(weights) == 10


def test_what_changes_nothing_has_no_weights() -> None:
    assert image_weights(TEN, 2, "off", 1.0) is None
    assert image_weights(TEN, 2, 0.001, 1.0) is None
    assert image_weights(TEN[:9], 2, "off", 0.1) is None


def test_background_share_and_ignored_boxes() -> None:
    data = [*[sample()] * 8, sample(0), sample(0, ignored=1)]  # boxes that are ignored are no background
    weights = image_weights(data, 1, "off", 0.25)
    assert weights is not None
    assert weights.tolist() == [0.25] * 8 + [1, 1]
    seen = [sorted(draw_epoch(weights, generator(0, epoch))) for epoch in range(40)]
    assert {len(s) for s in seen} == {4}
    assert all({8, 9} <= set(s) for s in seen)
    assert len({tuple(s) for s in seen}) > 10  # drawn anew every epoch
    none = image_weights(data, 1, "off", 0.0)
    assert none is not None
    assert sorted(draw_epoch(none, generator(0))) == [8, 9]


@pytest.mark.parametrize("seed", range(5))
def test_each_picture_gets_its_weight_rounded_down_or_up(seed: int) -> None:
    weights = np.random.default_rng(seed).uniform(0, 4, 37)
    weights[::7] = 0
    scaled = weights * epoch_size(weights) / weights.sum()
    total = np.zeros(37)
    for epoch in range(300):
        shown = draw_epoch(weights, generator(seed, epoch))
        assert len(shown) == epoch_size(weights)
        assert len(set(shown.tolist())) == len(shown)  # every showing has a number of its own
        times = np.bincount(shown % 37, minlength=37)
        assert (np.abs(times - scaled) < 1 + 1e-9).all()
        assert set(shown.tolist()) == {i + 37 * k for i, n in enumerate(times) for k in range(n)}
        total += times
    np.testing.assert_allclose(total / 300, scaled, atol=0.12)


def test_the_sampler_is_fixed_by_seed_and_epoch_and_shared_without_loss() -> None:
    weights = np.array([0.5, 0.5, 1, 1, 2.5, 3.5, 1.0])
    whole, again = (EpochSampler(7, 4, 3, 1, weights=weights) for _ in range(2))
    assert whole.steps == 3  # ten pictures an epoch
    batches = []
    for epoch in (0, 1, 2):
        whole.epoch = again.epoch = epoch
        batches.append(list(whole))
        assert batches[-1] == list(again)
        assert [len(b) for b in batches[-1]] == [4, 4, 4]
        again.start = 1
        assert list(again) == batches[-1][1:]
        again.start = 0
        shares = [EpochSampler(7, 4, 3, 1, processes=Processes(r, 2, r, 2), weights=weights) for r in (0, 1)]
        for share in shares:
            share.epoch = epoch
        for one, two, both in zip(*shares, batches[-1], strict=True):
            assert Counter([*one, *two]) == Counter(both)
    assert batches[0] != [[(0, i, on) for _, i, on in b] for b in batches[1]]


def test_without_weights_the_order_is_what_it_always_was() -> None:
    sampler = EpochSampler(11, 4, seed=5, mosaic_epochs=1)
    wanted = generator(5, 10, 0).permutation(11)
    assert [i for batch in sampler for _, i, _ in batch] == [*wanted, wanted[0]]


def test_batches_of_repeated_pictures(shapes: Path) -> None:
    """Workers and the place of a resume change nothing; a picture shown again looks different; files are known."""
    made = pictures(shapes)
    weights = np.linspace(0.2, 3, len(made))

    def run(workers: int, start: int = 0):
        loader = TrainLoader(made, AUGMENT, 5, 7, 3, workers, weights=weights)
        return loader, list(loader.epoch(1, start))

    loader, alone = run(0)
    assert all(same(a, b) for a, b in zip(alone, run(2)[1], strict=True))
    assert all(same(a, b) for a, b in zip(alone[2:], run(1, 2)[1], strict=True))
    looks: dict[int, dict[int, torch.Tensor]] = {}
    for batch in alone:
        for image, index in zip(batch.images, batch.indices, strict=True):
            looks.setdefault(index % len(made), {})[index] = image
        assert len(loader.files(1, batch.indices)) >= len(batch.indices)
    again = [list(images.values()) for images in looks.values() if len(images) > 1]
    assert again
    assert all(not torch.equal(images[0], images[1]) for images in again)


def test_inverse_frequency_by_hand() -> None:
    # 1/10, 1/40: the mean is 1/16
    assert inverse_frequency([10, 40]) == pytest.approx([1.6, 0.4])
    assert inverse_frequency([10, 40, 0]) == pytest.approx([1.6, 0.4, 1.0])


def test_many_classes_are_said_in_short() -> None:
    line = counts_line("x", [f"c{n}" for n in range(30)], (9, 8), [n // 3 for n in range(30)], [n for n in range(30)])
    assert line.startswith(
        "x: an epoch shows 8 pictures instead of 9; boxes of a class an epoch (mosaic aside): c3 1 -> 3, "
    )
    assert "c7 2 -> 7, (17 classes between), c25 8 -> 25, " in line
    assert line.endswith("c29 9 -> 29, (3 classes have none)")


SMALL = ["--imgsz", "64", "--batch", "4", "--epochs", "1", "data.workers=0", "model.width=0.25", "train.precision=fp32"]


def test_training_says_what_it_does_to_the_counts(cli, shapes: Path, tmp_path: Path) -> None:
    words = ["data.balance=classes", "data.background=0.5", "loss.class_weights=auto"]
    status, out, err = cli("train", "--data", shapes, *SMALL, "--out", tmp_path / "run", *words)
    assert status == 0, err
    text = out + err
    assert "data.balance=classes, data.background=0.5: an epoch shows 16 pictures instead of 16; boxes of" in text
    assert "loss.class_weights (auto: one over the boxes): boxes of a class an epoch x weight: " in text
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert sum(stored["loss"]["class_weights"]) == pytest.approx(2, abs=1e-5)
    status, _, err = cli("train", "--resume", tmp_path / "run", "data.balance=0.5")
    assert status == 2
    assert "cannot change within a run: data.balance: classes -> 0.5" in err


def test_settings_without_effect_and_wrong_ones(cli, shapes: Path, tmp_path: Path) -> None:
    run = ("train", "--data", shapes, *SMALL, "--out", tmp_path / "run")
    status, _, err = cli(*run, "loss.class_weights=[1, 2, 3]")
    assert status == 2
    assert "loss.class_weights has 3 numbers for 2 classes (block, disc)" in err
    status, _, err = cli(*run, "data.balance=2")
    assert status == 2
    assert "data.balance" in err
    status, _, err = cli(*run, "data.balance=true")
    assert status == 2
    status, out, err = cli(*run, "data.balance=0.001", "loss.class_weights=off")
    assert status == 0, err
    assert "data.balance=0.001, data.background=1: nothing changes" in out + err
