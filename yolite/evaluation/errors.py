"""Where the AP goes: each wrong box and each missed object gets one reason, and what mending it would give back.

After TIDE (Bolya et al., arXiv 2008.08115, section 2.2), with its foreground IoU t_f (the matching's, 0.5) and
background IoU t_b = 0.1. The AP is AP at t_f. Mending one kind leaves the others as they are, so the figures do not
add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolite.evaluation.ap import average_precision, mean_ap
from yolite.evaluation.match import NEAR, Bools, Floats, Ints, Matching

KINDS = {
    "Cls": "right place, wrong class: IoU >= {f} with an object of another class",
    "Loc": "right class, loose box: IoU {b} to {f} with an object of its class",
    "Both": "wrong class and loose box: IoU {b} to {f} with an object of another class",
    "Dupe": "right, but a better-scored box has that object already",
    "Bkg": "nothing there: IoU <= {b} with every object",
    "Miss": "object that no box found, not even a Cls or Loc one",
}
"""The six kinds in TIDE's order, and what each is."""
REMEDIES = {
    "Cls": "look at what is taken for what: do the labels tell these classes apart? More pictures of both",
    "Loc": "labels that fit tightly, a larger --imgsz, anchors that fit (yolite anchors), more epochs",
    "Both": "as for Cls and Loc",
    "Dupe": "a lower eval.iou, so that NMS takes more boxes for one object",
    "Bkg": "look at the labels to check first, often an object was left out; then pictures without objects in training",
    "Miss": "are they small, hidden or rare? Look at the worst pictures; a larger --imgsz, more pictures of them",
}
"""What to do about each."""
CLS, LOC, BOTH, DUPE, BKG = range(5)


@dataclass(frozen=True)
class ErrorSplit:
    """The reasons.

    Attributes:
        kind: [D] place in `KINDS` of each wrong box; −1: right or ignored.
        object: [D] the object that a Cls, Loc, Both or Dupe box is about; −1: none.
        missed: [G] the objects of the kind Miss.
        ap: The AP as it is, −1 without objects.
        counts: How many of each kind.
        gives_back: What AP would rise by if all errors of a kind were mended.
        all_wrong, all_missed: The same if no wrong box were there; if all objects not found were none.
    """

    kind: Ints
    object: Ints
    missed: Bools
    ap: float
    counts: dict[str, int]
    gives_back: dict[str, float]
    all_wrong: float
    all_missed: float


def _nearest(matching: Matching, same: bool) -> tuple[Floats, Ints]:
    """Return [D]: the highest IoU with an object of the same (or of another) class, and that object; 0 and −1: none."""
    near = matching.near
    keep = np.flatnonzero(
        ((matching.label[near.detection] == matching.truth_label[near.object]) == same)
        & ~matching.truth_ignored[near.object]
    )
    iou, thing = np.zeros(len(matching.score)), np.full(len(matching.score), -1)
    order = keep[np.lexsort((-near.object[keep], near.iou[keep]))]  # the best comes last, of equals the first object
    iou[near.detection[order]], thing[near.detection[order]] = near.iou[order], near.object[order]
    return iou, thing


def _kinds(matching: Matching) -> tuple[Ints, Ints]:
    """Return [D] the kind of each wrong box and the object it is about, in TIDE's order of questions."""
    foreground = matching.iou[0]
    (own, own_object), (other, other_object) = _nearest(matching, True), _nearest(matching, False)
    questions = [
        (LOC, (own >= NEAR) & (own <= foreground), own_object),
        (CLS, other >= foreground, other_object),
        (DUPE, own >= foreground, own_object),
        (BKG, np.maximum(own, other) <= NEAR, np.full(len(own), -1)),
        (BOTH, np.ones(len(own), bool), other_object),
    ]
    kind, thing = np.full(len(own), -1), np.full(len(own), -1)
    open_ = matching.wrong().copy()
    for number, answer, about in questions:
        here = open_ & answer
        kind[here], thing[here] = number, about[here]
        open_ &= ~here
    return kind, thing


def _ap(matching: Matching, label: Ints, right: Bools, counts: Bools, objects: Ints) -> float:
    """Return the AP when the boxes have these classes and verdicts, and those that do not count are away."""
    values = []
    for k in range(len(matching.names)):
        rows = np.flatnonzero(counts & (label == k))
        hit = right[rows[np.argsort(-matching.score[rows], kind="stable")]].astype(np.float64)[None]
        values.append(average_precision(hit, 1 - hit, int(objects[k]))[0])
    return mean_ap(np.array(values))


def _mend(matching: Matching, kind: Ints, thing: Ints, which: int) -> tuple[Ints, Bools, Bools]:
    """Give all Cls (or Loc) boxes their object; where several want one, or it has one, the highest score gets it.

    Returns:
        [D] the classes, the right ones, and those that count.
    """
    label, right, counts = matching.label.copy(), matching.right().copy(), ~matching.ignored[0]
    rows = np.flatnonzero(kind == which)
    owner = matching.found_by[0].copy()
    for row in rows[np.argsort(-matching.score[rows], kind="stable")].tolist():
        target = thing[row]
        before = owner[target]
        if before >= 0 and matching.score[before] >= matching.score[row]:
            counts[row] = False
            continue
        if before >= 0:
            counts[before] = False
        owner[target], label[row], right[row] = row, matching.truth_label[target], True
    return label, right, counts


def error_split(matching: Matching) -> ErrorSplit:
    """Find the reason of every mistake at the matching's first IoU threshold, and what mending each kind gives back.

    Cls: the class becomes that of the object, Loc: the box becomes the object's; of two boxes that then have one object
    the lower-scored goes. Both, Dupe, Bkg: the boxes go. Miss: the objects go. (The authors' program, tidecv 1.0.1, has
    the same kinds, and the same gains of Both, Dupe, Bkg and Miss. Against the paper's words its Cls and Loc boxes
    never take an object from a lower-scored right one, nor one that a higher-scored box of the other kind wants: it
    gives back less for them.)
    """
    kind, thing = _kinds(matching)
    right, counts, objects = matching.right(), ~matching.ignored[0], matching.objects()
    lost = ~matching.truth_ignored & (matching.found_by[0] < 0)
    blamed = np.zeros(len(lost), bool)
    blamed[thing[(kind == CLS) | (kind == LOC)]] = True
    missed = lost & ~blamed

    def fewer(gone: Bools) -> Ints:
        return objects - np.bincount(matching.truth_label[gone], minlength=len(objects))

    ap = _ap(matching, matching.label, right, counts, objects)
    aps = [
        _ap(matching, *_mend(matching, kind, thing, CLS), objects),
        _ap(matching, *_mend(matching, kind, thing, LOC), objects),
        *(_ap(matching, matching.label, right, counts & (kind != k), objects) for k in (BOTH, DUPE, BKG)),
        _ap(matching, matching.label, right, counts, fewer(missed)),
    ]
    numbers = [*np.bincount(kind[kind >= 0], minlength=len(KINDS) - 1).tolist(), int(missed.sum())]
    return ErrorSplit(
        kind, thing, missed, ap, dict(zip(KINDS, numbers, strict=True)),
        {name: _gain(value, ap) for name, value in zip(KINDS, aps, strict=True)},
        _gain(_ap(matching, matching.label, right, counts & right, objects), ap),
        _gain(_ap(matching, matching.label, right, counts, fewer(lost)), ap),
    )  # fmt: skip


def _gain(mended: float, ap: float) -> float:
    """Return the rise; where no object is left to be found, all that was not there."""
    if ap < 0:
        return 0.0
    return (1.0 if mended < 0 else mended) - ap
