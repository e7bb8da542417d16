"""One role divided into two: pictures to train on, and pictures to judge by that look like none of those."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from yolite.data.dataset import Split
from yolite.data.duplicates import groups_alike
from yolite.data.look import Look
from yolite.errors import UserError

LARGEST = 0.5
"""More than this share would leave fewer pictures to learn from than to judge by."""


def rarest_classes(split: Split) -> list[int]:
    """Return for each picture the class of its boxes that the fewest pictures show; -1 for background."""
    shown = [set(sample.labels[~sample.ignore].tolist()) for sample in split.samples]
    counts = Counter(label for labels in shown for label in labels)
    return [min(labels, key=lambda label: (counts[label], label), default=-1) for labels in shown]


def check_share(share: float) -> None:
    """Refuse a share of the pictures that cannot become val.

    Raises:
        UserError: it is not above 0, or above `LARGEST`.
    """
    if not 0 < share <= LARGEST:
        raise UserError(f"--val-share {share:g} is no share of the pictures: give a number above 0, up to {LARGEST:g}")


def divide(split: Split, looks: Sequence[Look], share: float) -> tuple[Split, Split]:
    """Divide a role's pictures in two, so that both show every class as far as they can.

    Pictures that are the same or nearly the same (`yolite.data.duplicates`) stay on one side: a picture that was
    learned judges nothing.

    Args:
        split: What was read.
        looks: The look of each of its pictures.
        share: Of the pictures that become val: a half, a third, a fourth ..., whichever is nearest.

    Returns:
        The roles train and val, each in the order of ``split``.

    Raises:
        UserError: a share that cannot be, or too few different pictures.
    """
    check_share(share)
    from sklearn.model_selection import StratifiedGroupKFold

    parts = round(1 / share)
    groups = groups_alike(looks)
    if len(set(groups)) < parts:
        raise UserError(
            f"{split.where} has {len(set(groups))} different pictures, too few for --val-share {share:g}: "
            "give a larger share"
        )
    rarest = rarest_classes(split)
    counts = Counter(rarest)
    kinds = [kind if counts[kind] >= parts else -2 for kind in rarest]  # those too few for a part each, together
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that some kinds are few, which is known
        rows = list(folds.split(np.zeros(len(kinds)), kinds, groups))
    train, val = min(rows, key=lambda row: (abs(len(row[1]) - share * len(kinds)), len(row[1])))
    kept, judged = ([split.samples[i] for i in sorted(places)] for places in (train, val))
    # what was left unread is told once
    return replace(split, samples=kept), replace(split, role="val", samples=judged, unread=Counter())
