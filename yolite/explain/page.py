"""The page of one picture: what the trace, its true boxes and the network have to say, put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolite.explain import pictures as draw
from yolite.explain.formula import Cell
from yolite.explain.pictures import Shelf, Shown
from yolite.explain.sight import SHARES, look, stages
from yolite.explain.trace import Trace
from yolite.explain.truth import Truth
from yolite.inference import Inference
from yolite.report.page import write_page
from yolite.training.loss import DetectionLoss

ROWS = 60
"""So many candidates and objects are in the tables."""


@dataclass(frozen=True)
class Explained:
    """What the page of a picture is made of.

    Attributes:
        name: Of the picture.
        model: Of the network, for people.
        trace: The picture's way through the network.
        cell: The chosen prediction.
        truth: What training asks there; None: no labels are known.
        loss: That of the training.
        why_no_truth: Why not.
    """

    name: str
    model: str
    trace: Trace
    cell: Cell
    truth: Truth | None
    loss: DetectionLoss
    why_no_truth: str


def write_picture_page(
    path: Path, told: Explained, inference: Inference, names: Sequence[str]
) -> int:  # fmt: skip
    """Write the page PATH and, beside it, a folder of its pictures; return the page's size in bytes.

    Raises:
        UserError: it cannot be written.
    """
    shelf = Shelf(path.with_suffix(""))
    trace, cell = told.trace, told.cell
    sight = look(inference, trace, cell.place, cell.best[0])
    scales = stages(inference, trace)
    objects = _objects(told, names)
    content: dict[str, Any] = {
        "told": told, "trace": trace, "box": trace.letterbox, "cell": cell, "names": names, "sight": sight,
        "shares": SHARES, "stages": scales, "objects": objects, "levels": _levels(trace),
        "detections": detections(trace, names), "candidates": _candidates(trace, names), "rows": ROWS,
        "truth": told.truth, "loss": told.loss, "total": len(trace.candidates),
    }  # fmt: skip
    shown = _pictures(shelf, told, sight, scales, objects, names)
    return write_page(path, "explain.html", f"{told.name} through {told.model}", shown=shown, **content)


def _pictures(
    shelf: Shelf, told: Explained, sight: Any, scales: Sequence[Any], objects: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> dict[str, list[Shown]]:  # fmt: skip
    """Draw everything, in the order of the page."""
    trace, cell, specs = told.trace, told.cell, told.trace.specs
    levels = range(len(specs))
    out: dict[str, list[Shown]] = {}
    found = f"{len(trace.found)} boxes above {trace.limits.conf:g}, after NMS."
    out["found"] = [shelf.add("found", draw.draw_found(trace, names, True), found)]
    out["letterbox"] = [shelf.add("letterbox", draw.draw_letterbox(trace), "The network's input.")]
    strides = [stage.stride for stage in scales if stage.stride > 1]
    remains = "As it is, then one px a cell at strides " + ", ".join(map(str, strides)) + "."
    out["remains"] = [
        shelf.add(f"remains-{o['number']}", draw.draw_remains(trace, o["box"], strides), f"{o['what']}. {remains}")
        for o in ([objects[0], objects[-1]] if len(objects) > 1 else objects)
    ]
    activity = "Mean size of the channels after layers " + ", ".join(str(s.layer) for s in scales)
    activity += " (strides " + ", ".join(str(s.stride) for s in scales) + "); bright: much."
    out["stages"] = [shelf.add("stages", draw.draw_stages(trace, scales), activity)] if scales else []
    out["grid"] = [
        shelf.add(f"grid-{n}", draw.draw_grid(trace, n, cell.place), f"Level {n}, stride {specs[n].stride}.")
        for n in levels
    ]
    out["cell"] = [shelf.add(f"cell-{n}", draw.draw_cell(trace, cell, n), words) for n, words in _moves(cell)]
    out["cell"].append(shelf.add("cell-4", draw.draw_on_picture(trace, cell), "4. Back through the letterbox: the box "
                                 "on the picture."))  # fmt: skip
    out["objectness"] = [
        shelf.add(f"objectness-{n}", draw.draw_objectness(trace, n), f"Level {n}, stride {specs[n].stride}: highest "
                  f"{float(trace.objectness(n).max()):.3f}.")
        for n in levels
    ]  # fmt: skip
    before = f"Before: {len(trace.candidates)} candidates above {trace.limits.conf:g}."
    after = f"After: {len(trace.found)} boxes."
    out["nms"] = [shelf.add("before-nms", draw.draw_found(trace, names, False), before),
                  shelf.add("after-nms", draw.draw_found(trace, names, True), after)]  # fmt: skip
    truth = told.truth
    out["truth"] = [] if truth is None else [
        shelf.add(f"truth-{n}", draw.draw_truth(trace.pixels, truth, 0, n, specs[n].stride), _asked(truth, n, specs))
        for n in levels
    ]  # fmt: skip
    out["sight"] = [
        shelf.add("influence", draw.draw_influence(trace, sight, cell), _squares(sight)),
        shelf.add("grad-cam", draw.draw_cam(trace, sight, cell), f"Grad-CAM after layer {sight.layer}, for "
                  f"{names[cell.best[0]]!r}. Yellow: the box."),
    ]  # fmt: skip
    return out


def _moves(cell: Cell) -> list[tuple[int, str]]:
    """Return the steps of one cell that are drawn on the input, each with its numbers."""
    step = {one.what: f"{one.what} = {one.numbers} = {one.value:.1f}" for one in cell.steps}
    return [(1, "1. The cell (yellow) and the chosen anchor around its middle (white)."),
            (2, f"2. The anchor moves: {step['centre x']}, {step['centre y']}."),
            (3, f"3. It is stretched (green): {step['width']}, {step['height']}.")]  # fmt: skip


def _squares(sight: Any) -> str:
    """Say what the squares of the influence are."""
    words = [f"{colour}: {share:.0%} of it, {side:.0f} px"
             for colour, share, side in zip(("Green", "Blue"), SHARES, sight.sides, strict=True)]  # fmt: skip
    most = f"White: all the cell can see, {sight.receptive} px." if sight.receptive else "The cell sees everything."
    return f"Influence of each px on the objectness (its root is shown). {'. '.join(words)}. {most} Yellow: the box."


def _asked(truth: Truth, level: int, specs: Sequence[Any]) -> str:
    positive, ignored = int(truth.positive[level].sum()), int(truth.ignored[level].sum())
    rest = truth.positive[level].numel() - positive - ignored
    return (f"Level {level}, stride {specs[level].stride}: {positive} positives, {ignored} ignored, {rest} negatives. "
            "Green: a cell with a positive. Blue: with an ignored one. Red: an object nobody answers for.")  # fmt: skip


def _levels(trace: Trace) -> list[dict[str, Any]]:
    """Return the levels as rows."""
    out = []
    for number, (spec, one) in enumerate(zip(trace.specs, trace.decoded, strict=True)):
        anchors, rows, columns = one.objectness.shape[1:]
        out.append({"number": number, "stride": spec.stride, "rows": rows, "columns": columns, "anchors": anchors,
                    "predictions": anchors * rows * columns, "channels": spec.channels, "spec": spec,
                    "shapes": " ".join(f"{w:g}x{h:g}" for w, h in spec.anchors)})  # fmt: skip
    return out


def detections(trace: Trace, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what was found, rounded as detect's JSON rounds it."""
    found, kept = trace.found, trace.candidates.kept.tolist()
    return [
        {"name": names[label], "score": round(score, 6), "box": [round(v, 3) for v in box],
         "place": trace.candidates.places[row]}
        for label, score, box, row in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), kept,
                                          strict=True)
    ]  # fmt: skip


def _candidates(trace: Trace, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the candidates, best first, with what became of them; a kept one's number is that of what was found."""
    found = trace.candidates
    number = {row: n for n, row in enumerate(found.kept.tolist())}
    out = []
    for row in found.scores.argsort(descending=True, stable=True).tolist()[:ROWS]:
        by = int(found.by[row])
        fate = (f"kept: box {number[row]}" if row in number else
                f"dropped by box {number[by]}, IoU {float(found.overlap[row]):.3f}" if by >= 0 else
                f"cut off: more than {trace.limits.max_det}")  # fmt: skip
        out.append({
            "name": names[int(found.labels[row])], "score": float(found.scores[row]), "place": found.places[row],
            "box": [round(v, 1) for v in found.boxes[row].tolist()], "fate": fate, "kept": row in number,
        })  # fmt: skip
    return out


def _objects(told: Explained, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the true boxes, or where there are none what was found (else the chosen box): sizes and costs."""
    truth, trace = told.truth, told.trace
    if truth is not None and len(truth.targets.boxes):
        rows = list(zip(truth.targets.boxes.tolist(), truth.targets.labels.tolist(), strict=True))
        what = "object"
    else:
        found = trace.candidates
        rows = [(found.boxes[i].tolist(), int(found.labels[i])) for i in found.kept.tolist()]
        what = "box"
        if not rows:
            rows, what = [(told.cell.input_box.tolist(), told.cell.best[0])], "chosen box"
    out = []
    for number, (box, label) in enumerate(rows):
        w, h = box[2] - box[0], box[3] - box[1]
        entry = {"number": number, "name": names[label], "box": box, "w": w, "h": h,
                 "what": f"{what} {number}: {names[label]}, {w:.0f}x{h:.0f} px"}  # fmt: skip
        if truth is not None and len(truth.targets.boxes):
            own = sorted((p for p in truth.positives if p.target == number), key=lambda p: -p.iou)
            entry |= {"positives": own, "ignore": bool(truth.targets.ignore[number]),
                      "parts": truth.parts[number].tolist(), "orphan": number in truth.orphans}  # fmt: skip
        out.append(entry)
    return sorted(out, key=lambda o: o["w"] * o["h"])
