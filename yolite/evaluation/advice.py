"""What to do next: what the numbers of an evaluation say in one sentence each, with the numbers that say it.

These are rules of thumb. A figure near one of the limits below says nothing either way, so the limits are wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolite.evaluation.analysis import Analysis
from yolite.evaluation.errors import REMEDIES
from yolite.evaluation.worst import doubts

BEGUN = 0.1
"""Below this AP50 a network says nothing of labels, sizes and classes."""
MANY = 0.5
"""Labels to check are spoken of up to this share of the objects."""
WORTH = 0.005
"""A kind of mistake that costs less AP50 than this is not spoken of."""
LOOSE = 0.6
"""AP75 below this share of AP50: the boxes are loose."""
SMALL = 0.5
"""APs below this share of the AP of larger objects: small ones are the problem."""
ENOUGH = 10
"""Of a class with fewer objects nothing is said: its numbers are chance."""
WEAK, RARE = 0.6, 0.1
"""A class whose AP is below this share of the mean is weak; with fewer objects than this share of the most, rare."""
APART = 0.2
"""A class whose own threshold differs by more than this from that of all needs its own."""
CALIBRATED = 0.1
"""A larger calibration error: scores are an order, no chances."""
LATE, RISING, WORSE = 0.1, 0.005, 1.05
"""AP that rose by more than ``RISING`` in the last tenth of the epochs; a validation loss so many times its least."""


def advice(found: Analysis) -> list[str]:
    """Return what the evaluation says to do, what is worth most first; empty where it says nothing."""
    if not found.curves.right.any():
        return ["No box is right: do weights and data belong together? If so, train longer; yolite check --data D "
                "looks into the labels."]  # fmt: skip
    ap50 = found.result.numbers["AP50"]
    if ap50 < BEGUN:
        return [f"Hardly anything is learnt yet (AP50 {ap50:.3f}): train longer before you look for anything else; "
                "yolite check --data D looks into the labels."]  # fmt: skip
    out = []
    labels, objects = len(doubts(found.worst)), int(found.curves.objects.sum())
    if 0 < labels <= MANY * objects:  # more of them speak of the network, not of the labels
        out.append(f"Look at the {labels} labels that may be wrong: training brings back no AP that labels cost.")
    gains = found.errors.gives_back
    kind = max(gains, key=lambda name: gains[name])
    if gains[kind] >= WORTH:
        out.append(f"{kind} mistakes cost most, {gains[kind]:.3f} AP50: {REMEDIES[kind]}.")
    sizes = _sizes(found.result.numbers, said=kind == "Loc" and gains[kind] >= WORTH)
    return [*out, *sizes, *_classes(found), *_scores(found)]


def _sizes(numbers: Mapping[str, float], said: bool) -> list[str]:
    """Return what AP75 (unless it was said already that boxes are loose) and the AP of small objects say."""
    out = []
    if not said and 0 <= numbers["AP75"] < LOOSE * numbers["AP50"]:
        out.append(f"The boxes are loose (AP75 {numbers['AP75']:.3f}, AP50 {numbers['AP50']:.3f}): {REMEDIES['Loc']}.")
    larger = max(numbers["APm"], numbers["APl"])
    if 0 <= numbers["APs"] < SMALL * larger:
        out.append(f"Small objects are found worse (APs {numbers['APs']:.3f}, larger ones {larger:.3f}): a larger "
                   "--imgsz; in use, detect --tile.")  # fmt: skip
    return out


def _classes(found: Analysis) -> list[str]:
    """Return what the weakest class, and classes with a threshold of their own, say."""
    classes = [(c, p) for c, p in zip(found.result.per_class, found.class_deploy, strict=True)
               if c.AP >= 0 and c.objects >= ENOUGH]  # fmt: skip
    out = []
    if len(classes) > 1:
        weak, mean = min((c for c, _ in classes), key=lambda c: c.AP), found.result.numbers["AP"]
        if weak.AP < WEAK * mean:
            rare = weak.objects < RARE * max(c.objects for c, _ in classes)
            what = (
                "it is rare: more pictures of it, or data.balance" if rare else "look for it among the worst pictures"
            )
            out.append(f"{weak.name} is the weakest class (AP {weak.AP:.3f}, {weak.objects} objects): {what}.")
    if found.deploy:
        apart = [c.name for c, p in classes if p and abs(p.confidence - found.deploy.confidence) > APART]
        if apart:
            more = f" and {len(apart) - 3} more" if len(apart) > 3 else ""
            out.append(f"{', '.join(apart[:3])}{more}: the best threshold of the class is far from that of all "
                       f"({found.deploy.confidence:.3f}); use its own.")  # fmt: skip
    return out


def _scores(found: Analysis) -> list[str]:
    """Return what the calibration says."""
    error = found.calibration.error
    if error is None or error <= CALIBRATED:
        return []
    return [f"Take scores as an order, not as chances: their calibration error is {error:.3f}."]


def advice_of_training(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the curves of a training say to do.

    Args:
        history: One row of metrics an epoch.
    """
    late = max(1, round(LATE * len(history)))
    if len(history) < 5:
        return []
    scores = [row.get("AP") or 0.0 for row in history]
    rose = max(scores[-late:]) - max(scores[:-late])
    out = []
    if rose > RISING:
        out.append(f"AP still rose by {rose:.3f} in the last {late} of {len(history)} epochs: train longer.")
    losses = [row["val_loss"] for row in history if row.get("val_loss") is not None]
    if losses and losses[-1] > WORSE * min(losses):
        out.append(f"The validation loss rose from {min(losses):.3f} to {losses[-1]:.3f}: the network learns the "
                   "pictures by heart (docs/how-yolo-works.md, section 13).")  # fmt: skip
    return out
