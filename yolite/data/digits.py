"""The built-in data set: real handwriting composed into scenes, written once as an ordinary YOLO data set.

Digits come from scikit-learn's ``load_digits`` (1,797 bitmaps of 8×8 with 16 levels, the test part of UCI's "Optical
Recognition of Handwritten Digits"). The set carries no writer ids, so a split by writer cannot be had: validation
takes a contiguous block of the file's order (the last fifth) that training never uses. Grounds are crops of
scikit-learn's two sample photographs (training from their left 60 %, validation from the rest), plain or noisy.

Everything follows from the seed. Layout is drawn first, scene by scene, sides from one shuffled deck that is even on
a log scale: what does not fit into a scene goes back on the deck, so crowded scenes do not make digits small.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from yolite.boxes import xyxy_to_cxcywh
from yolite.data.images import write_image
from yolite.errors import UserError
from yolite.files import clear_leftovers
from yolite.geometry import Image
from yolite.seeding import generator

RECIPE = 1
"""Raise this when the scenes change: they are then made again."""

SIZE = 320
SCENES = {"train": 800, "val": 200}
MOST_DIGITS = 12
EMPTY_SHARE = 0.05
SIDES = (16.0, 160.0)
OVERLAP_SHARE = 0.35  # of the digits are laid onto another one if there is room, so that a fifth succeed
OVERLAP = (0.08, 0.40)
ANGLE = 25.0
LEAST_CONTRAST = 28.0  # grey levels between ink and ground: just legible at 16 px
_SPLIT_STREAM = {"train": 1, "val": 2}

Grey = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Glyph:
    """One placed digit: where its ink's box lies, its label and its alpha mask at full size."""

    box: tuple[int, int, int, int]
    label: int
    mask: Grey


def _ink(bitmap: Grey, angle: float, side: float) -> Grey:
    """Draw an 8×8 bitmap as an alpha mask whose ink touches all four edges and whose longer side is ``side`` px."""
    big = cv2.resize(bitmap / 16.0, (96, 96), interpolation=cv2.INTER_CUBIC)
    canvas = np.zeros((160, 160), np.float32)
    canvas[32:128, 32:128] = big
    turn = cv2.getRotationMatrix2D((79.5, 79.5), angle, 1.0)
    turned = cv2.warpAffine(canvas, turn, (160, 160), flags=cv2.INTER_LINEAR)
    strokes = np.clip((turned - 0.25) / 0.35, 0, 1)
    rows, columns = np.where(strokes > 0.5)
    tight = strokes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    factor = side / max(tight.shape)
    height, width = (max(3, round(s * factor)) for s in tight.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(tight, (width, height), interpolation=method), np.float32)


def _covered(low: tuple[int, int, int, int], high: tuple[int, int, int, int]) -> float:
    """Return the share of the lower box that the upper one covers."""
    w = min(low[2], high[2]) - max(low[0], high[0])
    h = min(low[3], high[3]) - max(low[1], high[1])
    return max(w, 0) * max(h, 0) / ((low[2] - low[0]) * (low[3] - low[1]))


def _place(
    rng: np.random.Generator, shape: tuple[int, int], placed: list[Glyph], onto: bool
) -> tuple[int, int, int, int] | None:
    """Find a box of ``shape`` (h, w) in the scene: free of the others, or laid onto one of them; None if none fits."""
    height, width = shape
    for _ in range(60):
        if onto and placed:
            low = placed[int(rng.integers(len(placed)))].box
            x = int(rng.integers(low[0] - width + 1, low[2]))
            y = int(rng.integers(low[1] - height + 1, low[3]))
            if x < 0 or y < 0 or x + width > SIZE or y + height > SIZE:
                continue
        else:
            x, y = int(rng.integers(0, SIZE - width + 1)), int(rng.integers(0, SIZE - height + 1))
        box = (x, y, x + width, y + height)
        shares = [max(_covered(g.box, box), _covered(box, g.box)) for g in placed]
        worst = max(shares, default=0.0)
        if (onto and placed and OVERLAP[0] <= worst <= OVERLAP[1] and sum(s > 0 for s in shares) == 1) or (
            not (onto and placed) and worst == 0
        ):
            return box
    return None


def _deck(rng: np.random.Generator, length: int) -> list[float]:
    """Return sides from 16 to 160 px, even on a log scale, shuffled."""
    low, high = np.log(SIDES[0]), np.log(SIDES[1])
    sides = np.exp(low + (high - low) * (np.arange(length) + rng.random(length)) / length)
    return [float(s) for s in rng.permutation(sides)]


def layout(split: str, seed: int) -> list[list[Glyph]]:
    """Draw which digits stand where in every scene of a split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    first_val = len(bunch.images) * 4 // 5
    own = range(first_val) if split == "train" else range(first_val, len(bunch.images))
    rng = generator(seed, _SPLIT_STREAM[split])
    scenes = SCENES[split]
    empty = round(scenes * EMPTY_SHARE)
    counts = [*[0] * empty, *(1 + np.arange(scenes - empty) % MOST_DIGITS)]
    counts = [int(c) for c in rng.permutation(counts)]
    deck = _deck(rng, sum(counts))
    order: list[int] = []
    result = []
    for count in counts:
        placed: list[Glyph] = []
        back: list[float] = []
        for _ in range(count):
            side = deck.pop()
            if not order:
                order = [int(i) for i in rng.permutation(own)]
            index = order.pop()
            mask = _ink(bunch.images[index].astype(np.float32), float(rng.uniform(-ANGLE, ANGLE)), side)
            box = _place(rng, mask.shape, placed, bool(rng.random() < OVERLAP_SHARE))
            if box is None:
                back.append(side)
            else:
                placed.append(Glyph(box, int(bunch.target[index]), mask))
        deck += back[::-1]
        result.append(placed)
    return result


def _ground(rng: np.random.Generator, split: str, photographs: list[Image]) -> Grey:
    """Draw a background [SIZE, SIZE, 3]: a crop of a photograph, a plain ramp, or soft noise."""
    kind = rng.random()
    if kind < 0.5:
        photograph = photographs[int(rng.integers(len(photographs)))]
        border = int(photograph.shape[1] * 0.6)
        part = photograph[:, :border] if split == "train" else photograph[:, border:]
        side = int(rng.integers(120, min(part.shape[:2]) + 1))
        y, x = (int(rng.integers(0, s - side + 1)) for s in part.shape[:2])
        crop = part[y : y + side, x : x + side]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        crop = np.ascontiguousarray(crop)
        return np.asarray(cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.float32)
    base = rng.uniform(20, 235, 3).astype(np.float32)
    if kind < 0.75:
        ramp = np.linspace(-1, 1, SIZE, dtype=np.float32)
        slope = rng.uniform(-30, 30, 2)
        return base + (slope[0] * ramp[:, None] + slope[1] * ramp[None, :])[..., None].astype(np.float32)
    cells = int(rng.integers(4, 40))
    coarse = rng.normal(0, rng.uniform(8, 30), (cells, cells, 3)).astype(np.float32)
    return base + cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _draw_glyph(scene: Grey, glyph: Glyph, rng: np.random.Generator) -> None:
    """Blend one digit into the scene, in a colour that stands off the ground under it."""
    x1, y1, x2, y2 = glyph.box
    patch = scene[y1:y2, x1:x2]
    mean, texture = patch.mean(axis=(0, 1)), float(patch.mean(axis=2).std())
    contrast = float(np.exp(rng.uniform(np.log(LEAST_CONTRAST), np.log(190)))) + texture
    grey = float(mean.mean())
    sign = 1.0 if rng.random() < np.clip((255 - grey) / 255, 0.15, 0.85) else -1.0
    if not 0 <= grey + sign * contrast <= 255:
        sign = -sign
    tint = rng.normal(0, 12, 3)
    ink = np.clip(mean + sign * contrast + tint - tint.mean(), 0, 255).astype(np.float32)
    alpha = glyph.mask[..., None]
    scene[y1:y2, x1:x2] = patch * (1 - alpha) + ink * alpha


def render(split: str, seed: int, number: int, glyphs: list[Glyph], photographs: list[Image]) -> Image:
    """Draw one scene [SIZE, SIZE, 3] uint8."""
    rng = generator(seed, _SPLIT_STREAM[split], number)
    scene = _ground(rng, split, photographs)
    for glyph in glyphs:
        _draw_glyph(scene, glyph, rng)
    if rng.random() < 0.5:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.3, 1.1))), np.float32)
    if rng.random() < 0.5:
        scene = scene + rng.normal(0, rng.uniform(1, 10), scene.shape).astype(np.float32)
    return np.clip(scene, 0, 255).astype(np.uint8)


def _write_scene(folder: Path, split: str, name: str, image: Image, glyphs: list[Glyph]) -> None:
    """Write the picture and its YOLO label file (an empty one where there is no digit)."""
    write_image(folder / "images" / split / f"{name}.jpg", image)
    rows = []
    for glyph in glyphs:
        cx, cy, w, h = (xyxy_to_cxcywh(torch.tensor(glyph.box, dtype=torch.float64)) / SIZE).tolist()
        rows.append(f"{glyph.label} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n")
    (folder / "labels" / split / f"{name}.txt").write_text("".join(rows), encoding="utf-8")


def folder_name(seed: int) -> str:
    """Return the name of the folder that the set of this recipe and seed lies in."""
    return f"digits-r{RECIPE}-s{seed}"


def ensure_digits(parent: Path, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> Path:
    """Return the data set's YAML under ``parent``, making the set if this recipe and seed are not there yet.

    It is written beside its place and renamed when whole, so an interrupted run leaves no half data set; what a
    killed one left beside it is cleared away by the next making.

    Args:
        parent: Folder of generated data.
        seed: Seed of every draw.
        progress: Called with (scenes done, scenes in all).

    Raises:
        UserError: it cannot be written there.
    """
    folder = parent / folder_name(seed)
    if (folder / "data.yaml").is_file():
        return folder / "data.yaml"
    clear_leftovers(parent, ".digits-*")
    work = parent / f".{folder.name}.{os.getpid()}"
    try:
        _make(work, seed, progress)
        work.rename(folder)
    except OSError as error:
        if not (folder / "data.yaml").is_file():  # else another process was faster
            raise UserError(
                f"the digits data set cannot be made in {parent} ({error.strerror}): mend its permissions, or set "
                "XDG_CACHE_HOME to a folder that can be written"
            ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / "data.yaml"


def _make(work: Path, seed: int, progress: Callable[[int, int], None] | None) -> None:
    """Draw all scenes and write the data set into the folder ``work``."""
    from sklearn.datasets import load_sample_images

    photographs = [np.ascontiguousarray(p) for p in load_sample_images().images]
    total, done = sum(SCENES.values()), 0
    for split in SCENES:
        for kind in ("images", "labels"):
            (work / kind / split).mkdir(parents=True)
        scenes = layout(split, seed)

        def one(number: int, split: str = split, scenes: list[list[Glyph]] = scenes) -> None:
            image = render(split, seed, number, scenes[number], photographs)
            _write_scene(work, split, f"{split}-{number:04d}", image, scenes[number])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(one, range(len(scenes))):
                done += 1
                if progress:
                    progress(done, total)
    text = [
        f"# digits, recipe {RECIPE}, seed {seed}: made by yolite, see yolite/data/digits.py",
        "path: .",
        "train: images/train",
        "val: images/val",
        "mirror_safe: false  # a mirrored 2 is no digit",
        "names:",
        *[f"  {i}: '{i}'" for i in range(10)],
    ]
    (work / "data.yaml").write_text("\n".join(text) + "\n", encoding="utf-8")
