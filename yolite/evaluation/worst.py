"""The pictures to look at first: what was missed, what was shown and is not there, and labels that may be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from yolite.evaluation.curves import shown
from yolite.evaluation.errors import CLS, KINDS, ErrorSplit
from yolite.evaluation.match import NEAR, Bools, Matching

DOUBT = 0.5
"""Score from which a wrong box makes one ask whether the label is wrong instead."""
DOUBTS = {
    "no label": f"a box of score >= {DOUBT:g} where no label is (IoU < {NEAR:g} with all): was an object left out?",
    "another class": f"a box of score >= {DOUBT:g} on an object of another class that its own class did not find: "
    "does the label name the right class?",
    "nobody finds it": f"a label that no box of any class and score comes near (IoU < {NEAR:g}): is it there?",
}
"""The kinds of labels that are likely wrong, the likeliest first."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a picture.

    Attributes:
        image: Place in the split.
        kind: ``missed`` (an object without a shown box) or ``false alarm`` (a shown box that is wrong).
        label: The class of the object or box.
        box: xyxy, image px.
        score: Of a false alarm: its score; of a missed object: that of the box below the threshold that finds it; None:
            there is none.
        error: Of a false alarm: its place in `KINDS`, by name; of a missed object ``Miss`` where no box is to blame,
            else empty.
        other: Of a false alarm: the class of the object that it is about (Cls, Loc, Both, Dupe); None: none.
        doubt: A key of `DOUBTS`, or empty.
    """

    image: int
    kind: Literal["missed", "false alarm"]
    label: int
    box: tuple[float, float, float, float]
    score: float | None
    error: str
    other: int | None
    doubt: str

    @property
    def weight(self) -> float:
        """How bad it is: 1 for a missed object, its score for a false alarm."""
        return 1.0 if self.kind == "missed" or self.score is None else self.score


@dataclass(frozen=True)
class Picture:
    """What is wrong in one picture, the worst first; ``badness`` is the sum of the weights."""

    image: int
    badness: float
    findings: list[Finding]

    def count(self, kind: str) -> int:
        """Return the number of findings of a kind."""
        return sum(finding.kind == kind for finding in self.findings)


def worst_pictures(matching: Matching, split: ErrorSplit, confidence: float) -> list[Picture]:
    """Rank the pictures in which something is missed or wrong above a confidence, the worst first.

    Args:
        matching: Who found whom.
        split: The reasons, of the same matching.
        confidence: The threshold that is deployed.
    """
    by_image: dict[int, list[Finding]] = {}
    for finding in [*_missed(matching, split, confidence), *_false_alarms(matching, split, confidence)]:
        by_image.setdefault(finding.image, []).append(finding)
    pictures = [
        Picture(image, sum(f.weight for f in own), sorted(own, key=lambda f: -f.weight))
        for image, own in by_image.items()
    ]
    return sorted(pictures, key=lambda picture: (-picture.badness, picture.image))


def doubts(pictures: list[Picture]) -> list[Finding]:
    """Return the labels that are likely wrong: by kind in the order of `DOUBTS`, then by score."""
    order = list(DOUBTS)
    found = [finding for picture in pictures for finding in picture.findings if finding.doubt]
    return sorted(found, key=lambda f: (order.index(f.doubt), -(f.score or 0.0), f.image))


def _missed(matching: Matching, split: ErrorSplit, confidence: float) -> list[Finding]:
    """Return the objects without a shown box."""
    finder = matching.found_by[0]
    seen = np.append(shown(matching, confidence), False)[finder]
    near = np.zeros(len(finder), bool)
    near[matching.near.object] = True
    out = []
    for thing in np.flatnonzero(~matching.truth_ignored & ~seen).tolist():
        found = finder[thing] >= 0
        out.append(Finding(
            int(matching.truth_image[thing]), "missed", int(matching.truth_label[thing]),
            _box(matching.truth_boxes[thing]), float(matching.score[finder[thing]]) if found else None,
            "Miss" if split.missed[thing] else "", None, "" if near[thing] else "nobody finds it",
        ))  # fmt: skip
    return out


def _box(row: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = row.tolist()
    return x1, y1, x2, y2


def _false_alarms(matching: Matching, split: ErrorSplit, confidence: float) -> list[Finding]:
    """Return the shown boxes that are wrong."""
    names, out = list(KINDS), []
    near_any = _touches(matching)
    for row in np.flatnonzero(matching.wrong() & shown(matching, confidence)).tolist():
        thing, score = int(split.object[row]), float(matching.score[row])
        doubt = ""
        if score >= DOUBT and not near_any[row]:
            doubt = "no label"
        elif score >= DOUBT and split.kind[row] == CLS:
            finder = matching.found_by[0][thing]
            doubt = "another class" if finder < 0 or matching.score[finder] < score else ""
        other = int(matching.truth_label[thing]) if thing >= 0 else None
        out.append(Finding(int(matching.image[row]), "false alarm", int(matching.label[row]), _box(matching.boxes[row]),
                           score, names[split.kind[row]], other, doubt))  # fmt: skip
    return out


def _touches(matching: Matching) -> Bools:
    """Return [D]: near some object."""
    near = np.zeros(len(matching.score), bool)
    near[matching.near.detection] = True
    return near
