"""The page of an evaluation: what was judged, how good it is, what is wrong and where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolite.anchors import AnchorReport
from yolite.data.dataset import Split
from yolite.data.health import SIZES, BoxTable, health
from yolite.evaluation.advice import advice, advice_of_training
from yolite.evaluation.analysis import Analysis
from yolite.evaluation.coco import NUMBERS
from yolite.evaluation.curves import BINS, CALIBRATED_FROM, CONFIDENCES
from yolite.evaluation.errors import KINDS, REMEDIES
from yolite.evaluation.match import NEAR
from yolite.evaluation.worst import DOUBTS, Finding, Picture, doubts
from yolite.report.page import write_page
from yolite.report.pictures import Album
from yolite.report.svg import COLOURS, Chart
from yolite.structures import Sample

PICTURES, CROPS = 24, 48
"""So many of the worst pictures, and of the labels to check, are shown."""
SIDE, CROP_SIDE = 480, 200
"""Their largest side, px."""
BOXES_FROM, BOXES = 0.05, 100
"""Boxes of a picture go into the page from this score on, and no more than so many."""
FINE = 100
"""Up to so many classes the slider moves in steps of 0.001, above in steps of 0.01."""
MATRIX = 30
"""So many classes are in the confusion matrix, those confused most."""
POINTS = 1500
"""So many boxes are in the scatter of sizes."""


@dataclass(frozen=True)
class Story:
    """Where an evaluation comes from.

    Attributes:
        title: What was judged.
        facts: What was trained on what, and how it was judged: (name, value).
        settings: Settings that differ from the defaults: (key, value).
        history: One row of metrics an epoch; empty where nothing was trained, or no epoch is finished.
        trained: Whether the weights hold their training (not: a results file, an imported network).
        seconds: An image, by stage; None where nothing was run.
        anchors: The anchors against the boxes of the first split; None where there are none.
        levels: So many levels share them.
        boxes: The boxes of the splits in input px; None where sizes are not known.
        input: (H, W) of the network's input.
        splits: The data.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]
    history: Sequence[Mapping[str, Any]]
    trained: bool
    seconds: Mapping[str, float] | None
    anchors: AnchorReport | None
    levels: int
    boxes: BoxTable | None
    input: tuple[int, int]
    splits: Sequence[Split]


def write_report(path: Path, story: Story, found: Analysis, samples: Sequence[Sample]) -> int:
    """Write the page; return its size in bytes.

    Args:
        path: The .html.
        story: Where the evaluation comes from.
        found: What there is to say.
        samples: The judged images, as ``found`` counts them.

    Raises:
        UserError: it cannot be written.
    """
    album = Album()
    gallery = [shown for p in found.worst[:PICTURES] if (shown := _gallery_entry(p, found, samples, album))]
    crops = _crops(found, samples, album)
    step = 1 if len(found.matching.names) <= FINE else 10
    data = {
        "names": found.matching.names,
        "start": found.confidence,
        "step": step / len(CONFIDENCES),
        "beta": found.beta,
        "f": f"F{found.beta:g}",
        "objects": found.curves.objects.tolist(),
        "right": found.curves.right[:, ::step].tolist(),
        "wrong": found.curves.wrong[:, ::step].tolist(),
        "precision": np.round(found.result.precision, 3).tolist(),
        "confidence": np.round(found.result.confidence, 3).tolist(),
        "gallery": [{k: v for k, v in entry.items() if k in ("boxes", "objects")} for entry in gallery],
    }
    return write_page(
        path, "evaluation.html", story.title, story=story, found=found, data=data, numbers=_numbers(found),
        gallery=gallery, crops=crops, refused=album.refused, errors=_errors(found), matrix=_matrix(found),
        kinds=DOUBTS, charts=_charts(story, found), health=_health(story), least=BOXES_FROM, calibrated=CALIBRATED_FROM,
        label_doubts=len(doubts(found.worst)), pictures=len(samples),
        advice=[*advice(found), *advice_of_training(story.history)],
    )  # fmt: skip


def _numbers(found: Analysis) -> list[tuple[str, str]]:
    """Return the 12 numbers as text."""
    return [(name, f"{found.result.numbers[name]:.3f}") for name in NUMBERS]


def _gallery_entry(picture: Picture, found: Analysis, samples: Sequence[Sample], album: Album) -> dict[str, Any] | None:
    """Return one of the worst pictures with its objects and boxes; None if it cannot be shown."""
    sample, m = samples[picture.image], found.matching
    shown = album.whole(sample, SIDE)
    if shown is None:
        return None
    things = range(*np.searchsorted(m.truth_image, [picture.image, picture.image + 1]).tolist())
    rows = [r for r in range(*np.searchsorted(m.image, [picture.image, picture.image + 1]).tolist())
            if m.score[r] > BOXES_FROM][:BOXES]  # fmt: skip
    right, wrong = m.right(), m.wrong()
    return {
        "shown": shown, "name": _name(sample), "where": str(sample.path or sample.id),
        "objects": [
            {"b": shown.share(_box(m.truth_boxes[t])), "k": int(m.truth_label[t]), "x": bool(m.truth_ignored[t])}
            for t in things
        ],
        "boxes": [
            {"b": shown.share(_box(m.boxes[r])), "k": int(m.label[r]), "s": round(float(m.score[r]), 4),
             "r": 1 if right[r] else 0 if wrong[r] else 2, "o": int(m.match[0][r]) - things.start if right[r] else -1}
            for r in rows
        ],
    }  # fmt: skip


def _box(row: Any) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = row.tolist()
    return x1, y1, x2, y2


def _name(sample: Sample) -> str:
    """Return a short name of an image."""
    return sample.path.name if sample.path else str(sample.id)


def _crops(found: Analysis, samples: Sequence[Sample], album: Album) -> list[dict[str, Any]]:
    """Return the labels to check, each with what is around it; of every kind some."""
    every = doubts(found.worst)
    each = sorted(([f for f in every if f.doubt == kind] for kind in DOUBTS), key=len)
    room, chosen = CROPS, list[Finding]()
    for place, some in enumerate(each):  # what the shorter lists leave goes to the longer ones
        share = room // (len(each) - place)
        chosen += some[:share]
        room -= min(share, len(some))
    chosen.sort(key=lambda f: f.image)  # the album reads each picture once
    crops = [(f, album.crop(samples[f.image], f.box, CROP_SIDE)) for f in chosen]
    names = found.matching.names
    return [
        {"finding": f, "shown": shown, "box": shown.share(f.box) if shown else None, "label": names[f.label],
         "other": names[f.other] if f.other is not None else "",
         "name": _name(samples[f.image]), "where": str(samples[f.image].path or samples[f.image].id)}
        for f, shown in sorted(crops, key=lambda pair: (list(DOUBTS).index(pair[0].doubt), -(pair[0].score or 0)))
    ]  # fmt: skip


def _errors(found: Analysis) -> list[dict[str, Any]]:
    """Return the rows of the error split; ``share`` is the length of the bar."""
    split, iou = found.errors, f"{found.matching.iou[0]:g}"
    most = max([*split.gives_back.values(), 1e-9])
    return [
        {"kind": kind, "meaning": meaning.format(f=iou, b=NEAR), "count": split.counts[kind],
         "remedy": REMEDIES[kind], "gain": split.gives_back[kind], "share": 100 * max(split.gives_back[kind], 0) / most}
        for kind, meaning in KINDS.items()
    ]  # fmt: skip


def _matrix(found: Analysis) -> dict[str, Any]:
    """Return the confusion matrix as rows of cells with a shade; of many classes those confused most."""
    table, names = found.confusion, found.matching.names
    off = table - np.diag(table.diagonal())
    busy = (off.sum(0) + off.sum(1))[:-1]
    chosen = np.sort(np.argsort(-busy, kind="stable")[:MATRIX]).tolist()
    places = [*chosen, len(names)]
    rows = []
    for place in places:
        most = max(1, int(table[place].max()))
        cells = [
            {"n": int(table[place, c]), "shade": round((float(table[place, c]) / most) ** 0.5, 2),
             "right": place == c < len(names), "of": names[c] if c < len(names) else "background"}
            for c in places
        ]  # fmt: skip
        rows.append({"name": names[place] if place < len(names) else "background", "cells": cells})
    return {"rows": rows, "names": [row["name"] for row in rows], "classes": len(chosen)}


def _charts(story: Story, found: Analysis) -> dict[str, Any]:
    """Draw the charts that do not move, and the empty ones that the page's script draws into."""
    beta = f"F{found.beta:g}"
    out: dict[str, Any] = {
        "threshold": Chart((0, 1), (0, 1), ("confidence", f"precision, recall, {beta}"), "precision, recall and F over "
                           "the confidence"),
        "pr": Chart((0, 1), (0, 1), ("recall", "precision"), "precision over recall at IoU 0.5"),
        "reliability": _reliability(found),
    }  # fmt: skip
    if story.history:
        out |= _history(story.history)
    if story.boxes is not None and len(story.boxes.wh):
        out["sizes"] = _sizes(story)
    return out


def _reliability(found: Analysis) -> Chart:
    """Draw the share of right boxes over their score."""
    chart = Chart((0, 1), (0, 1), ("confidence", "share of right boxes"), "reliability diagram")
    c = found.calibration
    for place in range(BINS):
        if c.boxes[place]:
            hint = f"{c.boxes[place]} boxes, mean score {c.score[place]:.2f}, {c.right[place]:.2f} right"
            chart.bar(place / BINS, (place + 1) / BINS, float(c.right[place]), hint=hint)
    chart.line([0, 1], [0, 1], "a score that says the truth", "s2 dashed")
    chart.points([float(s) for s, n in zip(c.score, c.boxes, strict=True) if n],
                 [float(r) for r, n in zip(c.right, c.boxes, strict=True) if n], "right boxes", "s1", 3)  # fmt: skip
    return chart


def _history(history: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """Draw losses, AP and learning rate over the epochs."""
    epochs = [float(row["epoch"]) for row in history]
    span = (min(epochs[0], 1.0), max(epochs[-1], 2.0))

    def drawn(title: str, series: Mapping[str, str], most: float | None = None) -> Chart:
        values = {name: [row.get(key) for row in history] for name, key in series.items()}
        finite = [v for column in values.values() for v in column if v is not None and np.isfinite(v)]
        chart = Chart(span, (0.0, most or 1.05 * max([*finite, 1e-9])), ("epoch", title), f"{title} over the epochs")
        for number, (name, column) in enumerate(values.items()):
            chart.line(epochs, column, name, f"s{number % COLOURS + 1}")
        return chart

    parts = [key for key in history[-1] if key.startswith("loss_")]
    losses = {key.removeprefix("loss_"): key for key in parts} | {"validation": "val_loss"}
    return {
        "loss": drawn("loss", losses),
        "ap": drawn("AP", {"AP": "AP", "AP50": "AP50", "AP75": "AP75"}, 1.0),
        "rate": drawn("learning rate", {"learning rate": "lr"}),
    }


def _sizes(story: Story) -> Chart:
    """Draw widths against heights, and the anchors among them."""
    assert story.boxes is not None
    wh = story.boxes.wh
    if len(wh) > POINTS:
        wh = wh[np.random.default_rng(0).choice(len(wh), POINTS, replace=False)]
    low, most = max(0.5, float(wh.min()) * 0.8), float(max(story.input))
    title = f"box sizes at {story.input[0]}x{story.input[1]} px"
    span = (low, max(most, float(wh.max())) * 1.1)
    chart = Chart(span, span, ("width, input px", "height, input px"), title, log=True)
    chart.points(wh[:, 0].tolist(), wh[:, 1].tolist(), "boxes", "faint")
    if story.anchors is not None:
        each = -(-len(story.anchors.anchors) // story.levels)
        for level in range(story.levels):
            part = story.anchors.anchors[level * each : (level + 1) * each].double()
            chart.points(part[:, 0].tolist(), part[:, 1].tolist(), f"anchors, level {level + 1}",
                         f"s{level % COLOURS + 1} ringed", 5)  # fmt: skip
    return chart


def _health(story: Story) -> dict[str, Any] | None:
    """Return what the data is made of, with the most boxes of a class for its bars."""
    if story.boxes is None:
        return None
    plain = health(story.splits, story.boxes)
    most = max([1, *(sum(row.values()) for row in plain["classes"].values())])
    peak = max([1e-9, *(share for row in plain["positions"] for share in row)])
    total = max(1, sum(plain["aspects"].values()))
    return {**plain, "most": most, "peak": peak, "total": total, "sizes": list(SIZES)}
