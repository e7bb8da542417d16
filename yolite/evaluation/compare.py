"""Two sets of detections of the same pictures: what became better or worse, and whether that is more than chance.

The question a bootstrap answers: if the split had been other pictures of the same kind, how much would the difference
vary? The pictures are drawn with replacement, for both sets alike, and both judged anew (Efron 1979; the interval is
the middle 95 % of the differences).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from yolite.evaluation.ap import Ranked, class_ap, mean_ap, ranks
from yolite.evaluation.curves import curves, deploy, shown
from yolite.evaluation.match import ANY_SIZE, Floats, Matching, match_sizes
from yolite.structures import Detections, Sample

IOUS = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds."""
SIZES = {"all": ANY_SIZE, "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""pycocotools' area ranges, px²."""
RESAMPLES = 1000
"""Draws of the pictures."""
FEWEST = 200
"""Where a split is so large that the draws would take minutes there are fewer, but not fewer than this."""
WORK, CALL = 5e9, 8000
"""So many detections (times IoU thresholds) are looked at in all draws; a class costs as much as so many more."""
MIDDLE = (2.5, 97.5)
"""Percentiles of the interval."""


@dataclass(frozen=True)
class Difference:
    """One number of two sets.

    Attributes:
        name: What it is of: AP, AP50, a size or a class.
        kind: ``all``, ``size`` or ``class``.
        objects: In the truth.
        a, b: The numbers, −1 without objects.
        low, high: The interval of b − a; both 0 without objects.
    """

    name: str
    kind: str
    objects: int
    a: float
    b: float
    low: float
    high: float

    @property
    def change(self) -> float:
        """The rise from a to b."""
        return self.b - self.a

    @property
    def real(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class PictureChange:
    """What changed in a picture at the confidence of each set: ``better`` is fewer mistakes in b.

    Attributes:
        image: Place in the split.
        missed, wrong: Objects missed and wrong boxes shown, (in a, in b).
    """

    image: int
    missed: tuple[int, int]
    wrong: tuple[int, int]

    @property
    def better(self) -> int:
        """Mistakes in a minus mistakes in b."""
        return self.missed[0] - self.missed[1] + self.wrong[0] - self.wrong[1]


@dataclass(frozen=True)
class Comparison:
    """The differences, the pictures that changed (most of all first), and how it was measured.

    Attributes:
        resamples: Draws of the pictures.
        confidence: The threshold of best F1 of each set, at which the pictures are compared; None: it has none.
    """

    differences: list[Difference]
    pictures: list[PictureChange]
    resamples: int
    confidence: tuple[float | None, float | None]


def compare(
    samples: Sequence[Sample], a: Sequence[Detections], b: Sequence[Detections], names: Sequence[str], seed: int = 0,
    progress: Callable[[int, int], None] | None = None, most: int = RESAMPLES,
) -> Comparison:  # fmt: skip
    """Compare two sets of detections of the same samples.

    Args:
        samples: The truth, image px.
        a: One `Detections` a sample, in the same order.
        b: The same of the other set.
        names: Class names.
        seed: Of the draws.
        progress: Called with (draws done, in all).
        most: Draws of the pictures; fewer where the split is very large.
    """
    both = [dict(zip(SIZES, match_sizes(samples, found, names, SIZES.values(), IOUS), strict=True)) for found in (a, b)]
    ranked = [{size: ranks(m) for size, m in one.items()} for one in both]
    drawn = _draws(ranked, len(samples), seed, most, progress)
    whole = np.ones(len(samples))
    numbers = [_numbers(one, whole) for one in ranked]
    count = {size: m.objects() for size, m in both[0].items()}
    every, sizes = int(count["all"].sum()), list(SIZES)[1:]
    titles = [("AP", "all", every), ("AP50", "all", every), *((s, "size", int(count[s].sum())) for s in sizes),
              *((n, "class", c) for n, c in zip(names, count["all"].tolist(), strict=True))]  # fmt: skip
    rows = []
    for (name, kind, objects), first, second, column in zip(titles, *numbers, drawn.T, strict=True):
        said = column[~np.isnan(column)]
        low, high = np.percentile(said, MIDDLE) if len(said) else (0.0, 0.0)
        rows.append(Difference(name, kind, objects, float(first), float(second), float(low), float(high)))
    pictures, confidence = _pictures(*(one["all"] for one in both))
    return Comparison(rows, pictures, len(drawn), confidence)


def _draws(
    ranked: Sequence[dict[str, list[Ranked]]],
    images: int,
    seed: int,
    most: int,
    progress: Callable[[int, int], None] | None,
) -> Floats:
    """Return b − a [draws, numbers] of pictures drawn anew; NaN where a draw has no object of that class or size."""
    work = sum(r.right.size + CALL for one in ranked for classes in one.values() for r in classes)
    draws = int(min(most, max(FEWEST, WORK / work)))
    rng, rows = np.random.default_rng(seed), []
    for number in range(draws):
        times = np.bincount(rng.integers(0, images, images), minlength=images).astype(np.float64)
        first, second = (_numbers(one, times) for one in ranked)
        rows.append(np.where((first > -1) & (second > -1), second - first, np.nan))
        if progress:
            progress(number + 1, draws)
    return np.array(rows)


def _numbers(ranked: dict[str, list[Ranked]], weights: Floats) -> Floats:
    """Return AP, AP50, the AP of each size, and of each class, of images with these weights; −1 without objects."""
    by_size = {size: np.array([class_ap(one, weights) for one in classes]) for size, classes in ranked.items()}
    every = by_size["all"].reshape(-1, len(IOUS))
    sizes = [mean_ap(by_size[size].mean(-1)) for size in list(SIZES)[1:]]
    return np.array([mean_ap(every.mean(1)), mean_ap(every[:, 0]), *sizes, *every.mean(1)])


def _pictures(
    a: Matching, b: Matching
) -> tuple[list[PictureChange], tuple[float | None, float | None]]:  # fmt: skip
    """Count each picture's mistakes at IoU 0.5 and the confidence of each set's best F1."""
    missed, wrong, used = [], [], []
    for one in (a, b):
        point = deploy(curves(one), None)
        used.append(point.confidence if point else None)
        seen = shown(one, point.confidence if point else 1.0)
        found = np.append(seen, False)[one.found_by[0]]
        lost = ~one.truth_ignored & ~found
        missed.append(np.bincount(one.truth_image[lost], minlength=one.images))
        wrong.append(np.bincount(one.image[one.wrong() & seen], minlength=one.images))
    changes = [
        PictureChange(i, (int(missed[0][i]), int(missed[1][i])), (int(wrong[0][i]), int(wrong[1][i])))
        for i in range(a.images)
    ]
    changed = [c for c in changes if c.missed[0] != c.missed[1] or c.wrong[0] != c.wrong[1]]
    return sorted(changed, key=lambda c: (-abs(c.better), c.image)), (used[0], used[1])
