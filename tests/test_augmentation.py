"""Boxes stay on their objects through everything training does to a picture.

Each box is filled with a colour of its own, and that colour is looked for again afterwards.
"""

from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yolite.boxes import clip
from yolite.data.loader import TrainSet
from yolite.data.mix import copy_paste
from yolite.data.mosaic import Labelled, compose, mosaic_patches, single_patch
from yolite.data.pictures import Pictures
from yolite.data.transforms import Augment, Damage, FlipAndColour, Warp
from yolite.geometry import Image, resize
from yolite.seeding import derived, generator
from yolite.structures import Preprocess, Sample

OFF = Augment(0, 0, 0, 0, 0, 0, 0, 0, 0.25)
CANVASES = [(96, 128), (128, 96), (97, 131), (64, 64)]
sizes = st.tuples(st.integers(40, 131), st.integers(40, 131))
seeds = st.integers(0, 9999)


def boxes_apart(height: int, width: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Up to three boxes of at least 12 px that do not touch."""
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(30):
        w, h = int(rng.integers(12, width // 2)), int(rng.integers(12, height // 2))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        if len(boxes) < 3 and all(x > b[2] or x + w < b[0] or y > b[3] or y + h < b[1] for b in boxes):
            boxes.append((x, y, x + w, y + h))
    return boxes


def marked(height: int, width: int, seed: int) -> Labelled:
    """A black picture whose n-th box is filled with 255 in channel n, which is its label too; the last is ignored."""
    boxes = boxes_apart(height, width, np.random.default_rng(seed))
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2, channel] = 255
    ignore = torch.arange(len(boxes)) == len(boxes) - 1
    return Labelled(image, torch.tensor(boxes).float(), torch.arange(len(boxes)), ignore)


def mark(image: Image, channel: int, level: int = 127) -> torch.Tensor | None:
    """The bounds of what is bright in a channel, or None."""
    rows, columns = np.where(image[..., channel] > level)
    if not len(rows):
        return None
    return torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


def inside(found: torch.Tensor, box: torch.Tensor, slack: float) -> bool:
    return bool((found[:2] >= box[:2] - slack).all() and (found[2:] <= box[2:] + slack).all())


@settings(max_examples=80)
@given(sizes, seeds)
def test_a_crop_keeps_every_box(size: tuple[int, int], seed: int) -> None:
    own = marked(*size, seed)
    image, boxes, rows = Warp(replace(OFF, crop=1), size, 0)(own.image, own.boxes, seed)
    assert image.shape == own.image.shape
    assert rows.tolist() == list(range(len(own.boxes)))
    for channel, box in zip(rows.tolist(), boxes, strict=True):
        found = mark(image, channel)
        assert found is not None
        torch.testing.assert_close(found, box, rtol=0, atol=1.3)
    before, after = (b[:, 2:] - b[:, :2] for b in (own.boxes, boxes))
    factors = after / before
    # nothing is squashed (a side may lose a fraction of a px to the whole-px crop, which is then enlarged)
    assert (factors.amax(1) / factors.amin(1)).max() < 1.35


@settings(max_examples=80)
@given(sizes, seeds, st.sampled_from([(30.0, 0.0), (0.0, 20.0), (180.0, 0.0), (15.0, 10.0)]))
def test_rotation_and_shear(size: tuple[int, int], seed: int, angles: tuple[float, float]) -> None:
    own = marked(*size, seed)
    warp = Warp(replace(OFF, rotate=angles[0], shear=angles[1]), size, 0)
    image, boxes, rows = warp(own.image, own.boxes, seed)
    assert image.shape == own.image.shape
    for channel, box in zip(rows.tolist(), boxes, strict=True):
        found = mark(image, channel)
        if found is None:  # of a box whose bound is cut, the corner that is left may show nothing of the mark
            assert (box[:2] <= 0).any() or (box[2:] >= torch.tensor(size[::-1])).any()
            continue
        assert inside(found, box, 1.0)
        if (box[:2] > 0).all() and (box[2:] < torch.tensor(size[::-1])).all():  # not cut: then the bound is tight
            assert inside(box, found, 2.5)  # the tip of a sheared corner is less than half a px wide


@settings(max_examples=60)
@given(sizes, seeds, st.sampled_from(["blur", "noise"]))
def test_blur_and_noise_move_nothing(size: tuple[int, int], seed: int, name: str) -> None:
    own = marked(*size, seed)
    image, boxes, rows = Damage(replace(OFF, **{name: 1.0}), 0)(own.image, own.boxes, seed)
    assert not np.array_equal(image, own.image)
    assert torch.equal(boxes, own.boxes)
    assert rows.tolist() == list(range(len(boxes)))
    for channel, box in enumerate(boxes):
        found = mark(cv2.medianBlur(image, 3) if name == "noise" else image, channel)
        assert found is not None
        # a blur takes what is beyond the picture's edge for the mirror image of what is inside
        free = (box > 4) & (box < torch.tensor(size[::-1] * 2) - 4)
        torch.testing.assert_close(found[free], box[free], rtol=0, atol=1.0)


def test_a_moving_camera_smears_to_both_sides() -> None:
    image = np.zeros((41, 61, 3), np.uint8)
    image[15:25, 20:35] = 255
    for seed in range(60):
        out = Damage(replace(OFF, blur=1.0), 0)(image, torch.zeros(0, 4), seed)[0][..., 0].astype(float)
        rows, columns = np.mgrid[:41, :61] + 0.5
        assert (out * rows).sum() / out.sum() == pytest.approx(20, abs=0.1)
        assert (out * columns).sum() / out.sum() == pytest.approx(27.5, abs=0.1)


@settings(max_examples=80)
@given(sizes, seeds, st.sampled_from([0.25, 0.8]))
def test_holes_drop_the_boxes_they_cover(size: tuple[int, int], seed: int, least: float) -> None:
    own = marked(*size, seed)
    image, boxes, rows = Damage(replace(OFF, cutout=1, min_visible=least), 0)(own.image, own.boxes, seed)
    shown = [(image[..., n] == 255).sum() / (own.image[..., n] == 255).sum() for n in range(len(own.boxes))]
    assert rows.tolist() == [n for n, share in enumerate(shown) if share >= least]
    assert torch.equal(boxes, own.boxes[rows])  # what is left is not trimmed


def test_a_box_under_a_hole_goes() -> None:
    own = Labelled(np.full((50, 50, 3), 255, np.uint8), torch.tensor([[4.5, 4.5, 7.0, 7.0], [0, 0, 50, 50.0]]),
                   torch.tensor([0, 1]), torch.tensor([False, True]))  # fmt: skip
    kept = {tuple(Damage(replace(OFF, cutout=1), 0)(own.image, own.boxes, seed)[2].tolist()) for seed in range(200)}
    assert kept == {(0, 1), (1,)}


def test_the_two_flips_are_drawn_apart() -> None:
    own = marked(40, 60, 5)
    flip = FlipAndColour(replace(OFF, hflip=0.5, vflip=0.5))
    seen = {flip(own.image, own.boxes, seed)[0].tobytes() for seed in range(40)}
    assert len(seen) == 4


@settings(max_examples=60)
@given(sizes, seeds)
def test_pasted_boxes_are_where_they_are_and_cover_what_they_cover(size: tuple[int, int], seed: int) -> None:
    scene, donor = marked(*size, seed), marked(size[1], size[0], seed + 1)
    scene.image[..., 1:] = 0  # the scene's one box is red, the donor's are green and blue (ignored: never chosen)
    scene, area = scene[torch.tensor([0])], (scene.image[..., 0] == 255).sum()
    donor.image[..., 0] = 0
    donor = donor[donor.labels == 1]
    donor = replace(donor, ignore=torch.zeros_like(donor.ignore))
    out = copy_paste(np.random.default_rng(seed), scene, donor, 0.5, 0.25)
    green = out.boxes[out.labels == 1]
    assert len(green) == len(donor.boxes)
    for box in green:
        found = mark(out.image, 1)
        assert found is not None
        torch.testing.assert_close(found, box, rtol=0, atol=1.0)
    share = (out.image[..., 0] == 255).sum() / area
    if abs(share - 0.25) > 0.05:
        assert (out.labels == 0).any() == (share > 0.25)


def test_ignored_boxes_are_not_pasted_but_travel() -> None:
    scene, donor = marked(60, 60, 1), marked(60, 60, 2)
    same = copy_paste(np.random.default_rng(0), scene, donor[donor.ignore], 0.5, 0.25)
    assert torch.equal(same.boxes, scene.boxes)
    whole = Labelled(donor.image, torch.tensor([[0, 0, 60, 60.0], [5, 5, 30, 30]]), torch.tensor([0, 1]),
                     torch.tensor([False, True]))  # fmt: skip
    out = copy_paste(np.random.default_rng(0), scene[scene.ignore & False], whole, 0.0, 0.25)
    assert out.labels.tolist() == [0, 1]
    assert out.ignore.tolist() == [False, True]


class Memory(Pictures):
    """Pictures without files, resized as those from files are."""

    def __init__(self, pictures: list[Labelled], canvas: tuple[int, int]) -> None:
        self.images = [p.image for p in pictures]
        super().__init__([
            Sample(None, p.image.shape[:2], p.boxes, p.labels, p.ignore, torch.zeros(len(p.boxes)),
                   torch.zeros(len(p.boxes), dtype=torch.bool), n)
            for n, p in enumerate(pictures)
        ], Preprocess(canvas, pad=0))  # fmt: skip

    def read(self, index: int) -> tuple[Image, dict[str, float]]:
        return resize(self.images[index], self.letterboxes[index].content), {}


def one_each(size: tuple[int, int], seed: int) -> list[Labelled]:
    """Three pictures with one box each: red, green, blue."""
    out = []
    for n in range(3):
        own = marked(*(size if n % 2 == 0 else size[::-1]), 3 * seed + n)[torch.tensor([0])]
        image = np.zeros_like(own.image)
        image[..., n] = own.image[..., 0]
        out.append(replace(own, image=image, labels=torch.tensor([n]), ignore=torch.tensor([seed % 2 == 0])))
    return out


TIGHT = {
    "nothing": {}, "zoom": {"scale": 0.5, "translate": 0.1}, "hflip": {"hflip": 1.0}, "vflip": {"vflip": 1.0},
    "crop": {"crop": 1.0}, "mixup": {"mixup": 1.0}, "mosaic": {"mosaic": 1.0, "scale": 0.3},
}  # fmt: skip
LOOSE = {
    "blur": {"blur": 1.0}, "rotate": {"rotate": 25.0}, "shear": {"shear": 15.0}, "cutout": {"cutout": 1.0},
    "copy_paste": {"copy_paste": 1.0, "scale": 0.3},
    "all": {"mosaic": 0.5, "scale": 0.4, "translate": 0.1, "hflip": 0.5, "vflip": 0.3, "crop": 0.5, "rotate": 15.0,
            "shear": 8.0, "blur": 0.5, "noise": 0.5, "cutout": 0.5, "mixup": 0.5, "copy_paste": 0.5, "hue": 0.005,
            "saturation": 0.1, "brightness": 0.1},  # a pale, turned green is not to pass for red
}  # fmt: skip


@pytest.mark.parametrize("name", [*TIGHT, *LOOSE])
@settings(max_examples=40)
@given(sizes, seeds, st.sampled_from(CANVASES))
@example((41, 87), 7, (96, 128))
@example((40, 40), 377, (96, 128))
def test_from_the_loader(name: str, size: tuple[int, int], seed: int, canvas: tuple[int, int]) -> None:
    pictures = Memory(one_each(size, seed), canvas)
    data, key = TrainSet(pictures, replace(OFF, **(TIGHT | LOOSE)[name]), seed), (0, seed % 3, True)
    batch, drawn = data[key], [*data._draw(key)[1], *data._draw_mix(key)[1:]]
    image = batch.images[0].permute(1, 2, 0).numpy()
    targets = batch.targets
    assert image.shape == (*canvas, 3)
    assert (targets.boxes >= 0).all()
    assert (targets.boxes[:, 2:] <= torch.tensor(canvas[::-1])).all()
    assert targets.ignore.tolist() == [seed % 2 == 0] * len(targets.ignore)
    noisy = cv2.medianBlur(image, 5) if name == "all" else image
    for label, box in zip(targets.labels.tolist(), targets.boxes, strict=True):
        if drawn.count(label) > 1:
            continue  # two of one colour: which is which is not known
        found = mark(noisy, label, 55 if name in ("all", "mixup") else 127)
        if found is not None:
            slack = 3.5 if name in ("all", "blur") else 1.5  # a blur mirrors at the edge of the picture
            assert inside(found, box, slack), (name, found, box)
            assert name not in TIGHT or inside(box, found, 1.5), (name, found, box)
        assert found is not None or name in ("rotate", "shear", "all")


@pytest.mark.parametrize("name", [*TIGHT, "rotate", "shear"])
def test_no_systematic_shift(name: str) -> None:
    """The centre of gravity of a mark is the centre of its box: on average to a tenth of a px."""
    offsets = []
    for seed in range(120):
        canvas = CANVASES[seed % 4]
        pictures = Memory(one_each((45 + seed % 60, 50 + seed % 47), seed), canvas)
        data, key = TrainSet(pictures, replace(OFF, **(TIGHT | LOOSE)[name]), seed), (0, 0, True)
        image, targets = data[key].images[0].double(), data[key].targets
        drawn = [*data._draw(key)[1], *data._draw_mix(key)[1:]]
        for label, box in zip(targets.labels.tolist(), targets.boxes, strict=True):
            cut = (box[:2] < 1).any() or (box[2:] > torch.tensor(canvas[::-1]) - 1).any()
            if drawn.count(label) == 1 and not cut:
                rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in canvas), indexing="ij")
                weight = image[label] / image[label].sum()
                centre = torch.stack(((weight * columns).sum(), (weight * rows).sum()))
                offsets.append(centre - (box[:2] + box[2:]) / 2)
    assert len(offsets) > 30
    assert torch.stack(offsets).mean(0).abs().max() < 0.1
    assert torch.stack(offsets).abs().max() < 0.75


def test_closing_ends_mosaic_mixup_and_copy_paste() -> None:
    pictures = Memory(one_each((60, 80), 1), (96, 128))
    mixing = TrainSet(pictures, replace(OFF, mosaic=1, mixup=1, copy_paste=1), 0)
    plain = TrainSet(pictures, OFF, 0)
    for index in range(3):
        assert torch.equal(mixing[(0, index, False)].images, plain[(0, index, False)].images)
        assert not torch.equal(mixing[(0, index, True)].images, plain[(0, index, True)].images)


def test_one_switched_on_leaves_the_draws_of_the_others_alone() -> None:
    """A new augmentation draws from streams of its own: the mosaic and the flips stay what they were."""
    pictures = Memory(one_each((60, 80), 1), (96, 128))
    base = replace(OFF, mosaic=0.5, scale=0.3, translate=0.1, hflip=0.5)
    plain = [TrainSet(pictures, base, 0)[(0, i, True)].targets.boxes for i in range(3)]
    with_noise = [TrainSet(pictures, replace(base, noise=1.0, blur=1.0), 0)[(0, i, True)] for i in range(3)]
    for a, b in zip(plain, with_noise, strict=True):
        assert torch.equal(a, b.targets.boxes)


def test_with_the_new_ones_off_the_draws_are_what_they_always_were() -> None:
    """Mosaic, zoom, flip and colour as the first version drew them: streams 10 and 11 of (seed, epoch, index)."""
    pictures = Memory(one_each((60, 80), 1), (96, 128))
    old = Augment(0.5, 0.5, 0.1, 0.5, 0, 0.015, 0.5, 0.3, 0.25)
    for index in range(3):
        rng = generator(4, 11, 2, index)
        four = rng.random() < 0.5
        chosen = [pictures.labelled(i) for i in ([index, *rng.integers(3, size=3)] if four else [index])]
        shapes = [p.image.shape[:2] for p in chosen]
        patches = mosaic_patches(rng, shapes, (96, 128), old) if four else [
            single_patch(rng, shapes[0], (96, 128), old)]  # fmt: skip
        scene = compose(chosen, patches, (96, 128), 0, 0.25)
        image, boxes, rows = FlipAndColour(old)(scene.image, scene.boxes, derived(4, 11, 2, index))
        batch = TrainSet(pictures, old, 4)[(2, index, True)]
        assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), image)
        assert torch.equal(batch.targets.boxes, clip(boxes, (96, 128)))
        assert torch.equal(batch.targets.labels, scene.labels[rows])


def test_every_setting_reaches_the_pictures() -> None:
    from yolite.build import build_augment
    from yolite.config import AugmentConfig
    from yolite.settings import make_config

    names = set(asdict(OFF))
    assert names | {"close_mosaic"} == set(AugmentConfig.model_fields)
    given = {name: round(0.01 * n, 2) for n, name in enumerate(sorted(names), 1)}
    assert asdict(build_augment(make_config({"augment": given}))) == given
