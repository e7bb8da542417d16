"""The health of a data set: how many boxes of which class, how large, of which shape, and where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from yolite.data.dataset import Split
from yolite.geometry import Letterbox
from yolite.structures import Preprocess

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's classes of size by area, here in px² of the network's input."""
ASPECTS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
"""Edges of the classes of width / height."""
GRID = 5


@dataclass(frozen=True)
class BoxTable:
    """Every box of a data set.

    Attributes:
        wh: [N, 2] width and height, input px.
        centres: [N, 2] x and y, as shares of the image.
        labels: [N].
        roles: [N] place of the split.
        targets: [N] whether it is to be learned (no crowd, not difficult).
    """

    wh: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    roles: npt.NDArray[np.int64]
    targets: npt.NDArray[np.bool_]


def box_table(splits: Sequence[Split], preprocess: Preprocess) -> BoxTable:
    """Collect the boxes of these splits."""
    rows = [(n, sample) for n, split in enumerate(splits) for sample in split.samples]
    wh, centres = [torch.zeros(0, 2, dtype=torch.float64)], [torch.zeros(0, 2)]
    for _, sample in rows:
        # not `apply`: in float32 the padding would swallow the size of a tiny box, and 0 / 0 is no shape
        boxes = Letterbox.fit(sample.size, preprocess).resized(sample.boxes.double())
        wh.append(boxes[:, 2:] - boxes[:, :2])
        centres.append((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2 / torch.tensor(sample.size[::-1]))
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *(sample.labels for _, sample in rows)])
    ignore = torch.cat([torch.zeros(0, dtype=torch.bool), *(sample.ignore for _, sample in rows)])
    roles = np.repeat([n for n, _ in rows], [len(sample.boxes) for _, sample in rows]).astype(np.int64)
    joined = [torch.cat(parts).double().numpy() for parts in (wh, centres)]
    return BoxTable(joined[0], joined[1], labels.numpy(), roles, ~ignore.numpy())


def _sizes(wh: npt.NDArray[np.float64]) -> dict[str, int]:
    """Count the boxes of each class of size."""
    areas = wh.prod(1)
    return {name: int(((areas >= low) & (areas < high)).sum()) for name, (low, high) in SIZES.items()}


def _aspects(wh: npt.NDArray[np.float64]) -> dict[str, int]:
    """Count the boxes of each class of width / height."""
    place = np.searchsorted(ASPECTS, wh[:, 0] / wh[:, 1], side="right")
    names = [f"below {ASPECTS[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(ASPECTS)),
             f"from {ASPECTS[-1]:g}"]  # fmt: skip
    return dict(zip(names, np.bincount(place, minlength=len(names)).tolist(), strict=True))


def positions(centres: npt.NDArray[np.float64], cells: int) -> npt.NDArray[np.float64]:
    """Return [cells, cells]: the share of centres in each cell of the image, rows from the top."""
    edges = np.linspace(0, 1, cells + 1)
    counts, _, _ = np.histogram2d(centres[:, 1].clip(0, 1), centres[:, 0].clip(0, 1), bins=[edges, edges])
    return np.asarray(counts / max(1, len(centres)), np.float64)


def _told_apart(names: Sequence[str]) -> list[str]:
    """Return the class names, with their number where several have one name."""
    counts = Counter(names)
    return [f"{name} (class {label})" if counts[name] > 1 else name for label, name in enumerate(names)]


def health(splits: Sequence[Split], table: BoxTable) -> dict[str, Any]:
    """Sum a data set up as plain numbers, for JSON and for people."""
    names = _told_apart(splits[0].names)
    counts = [np.bincount(table.labels[table.roles == n], minlength=len(names)).tolist() for n in range(len(splits))]
    return {
        "splits": {
            split.role: {
                "images": len(split.samples),
                "background": sum(len(sample.boxes) == 0 for sample in split.samples),
                "boxes": split.boxes,
                **_sizes(table.wh[table.roles == n]),
            }
            for n, split in enumerate(splits)
        },
        "classes": {
            name: {split.role: counts[n][label] for n, split in enumerate(splits)} for label, name in enumerate(names)
        },
        "aspects": _aspects(table.wh),
        "positions": positions(table.centres, GRID).round(4).tolist(),
    }
