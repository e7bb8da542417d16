"""One prediction, step by step: from its raw numbers to a box on the picture, each step as a formula with the numbers.

The values are those of `yolite.codec`; the formulas say in words what it does for this `HeadSpec`, and a test works
each of them out by its own arithmetic and compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from yolite.codec import MAX_EXPONENT, decode_at, probability, scores, split
from yolite.explain.trace import Place, Trace
from yolite.structures import HeadSpec

CLASSES = 5
"""So many of a cell's classes are shown."""


@dataclass(frozen=True)
class Step:
    """One number and where it comes from.

    Attributes:
        what: Its name.
        formula: How it is made, in words.
        numbers: The same with the numbers in it.
        value: What comes out.
    """

    what: str
    formula: str
    numbers: str
    value: float


@dataclass(frozen=True)
class Cell:
    """One prediction, read.

    Attributes:
        place: Which one.
        spec: How it is read.
        raw: [5 + classes] tx, ty, tw, th, objectness, classes.
        input_box: [4] xyxy, input px.
        box: [4] xyxy, image px, clipped to it.
        probabilities: [classes] P(class | object).
        scores: [classes].
        steps: From the raw numbers to the box.
        score_steps: And to the score of its best class.
    """

    place: Place
    spec: HeadSpec
    raw: Tensor
    input_box: Tensor
    box: Tensor
    probabilities: Tensor
    scores: Tensor
    steps: list[Step]
    score_steps: list[Step]

    @property
    def best(self) -> list[int]:
        """The likeliest classes, best first."""
        return self.scores.argsort(descending=True, stable=True)[:CLASSES].tolist()


def number(value: float) -> str:
    """Return a number as formulas show it: four places, or of a small one four digits."""
    places = 4 if not 0 < abs(value) < 0.1 else min(12, 3 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{places}f}".rstrip("0").rstrip(".")
    return shown.replace("-", "−") if float(shown) else "0"


def operand(value: float) -> str:
    """Return a number as it stands beside a sign: a negative one in brackets."""
    shown = number(value)
    return f"({shown})" if shown.startswith("−") else shown


def read_cell(trace: Trace, place: Place) -> Cell:
    """Read one prediction of a trace."""
    spec = trace.specs[place.level]
    raw = split(trace.maps[place.level], spec)[0, place.anchor, place.row, place.column].float()
    at = [torch.tensor([index]) for index in (place.anchor, place.row, place.column)]
    box = decode_at(raw[None, :4], spec, at[0], at[1], at[2])
    inside = trace.letterbox.invert(box)[0]
    value = scores(raw[4], raw[5:], spec)
    steps = [*_centre(raw, place, spec, box[0]), *_size(raw, place, spec, box[0]), *_corners(box[0])]
    steps += _on_the_picture(trace, box[0], inside)
    return Cell(place, spec, raw, box[0], inside, probability(raw[5:], spec.class_code), value, steps,
                _score(raw, value, spec))  # fmt: skip


def _centre(raw: Tensor, place: Place, spec: HeadSpec, box: Tensor) -> list[Step]:
    """Return the steps to the centre, input px."""
    out = []
    for axis, (name, cell, cell_name, side) in enumerate(
        (("x", place.column, "column", "w"), ("y", place.row, "row", "h"))
    ):
        t, anchor = float(raw[axis]), number(spec.anchors[place.anchor][axis])
        value = float(box[axis] + box[axis + 2]) / 2
        if spec.xy == "free":
            words = f"({cell_name} + 0.5) · stride + t{name} · anchor {side}"
            figures = f"({cell} + 0.5) · {spec.stride} + {operand(t)} · {anchor}"
        else:
            reach = spec.grid_scale
            code = f"σ({{}}) · {number(reach)} − {number((reach - 1) / 2)}" if reach != 1 else "σ({})"
            code = "{}" if spec.xy == "linear" else code
            words = f"({cell_name} + {code.format('t' + name)}) · stride"
            shown = operand(t) if spec.xy == "linear" else number(t)
            figures = f"({cell} + {code.format(shown)}) · {spec.stride}"
        out.append(Step(f"centre {name}", words, figures, value))
    return out


def _size(raw: Tensor, place: Place, spec: HeadSpec, box: Tensor) -> list[Step]:
    """Return the steps to width and height, input px."""
    forms = {"exp": "e^({})", "square": "({})²", "sigmoid_square": "(2 · σ({}))²"}
    out = []
    for axis, (name, what) in enumerate((("w", "width"), ("h", "height"))):
        t = float(raw[2 + axis])
        inner, shown = f"t{name}", number(t)
        if spec.wh == "exp" and t > MAX_EXPONENT:
            inner, shown = f"min(t{name}, {number(MAX_EXPONENT)})", f"min({shown}, {number(MAX_EXPONENT)})"
        form = forms[spec.wh]
        figures = f"{number(spec.anchors[place.anchor][axis])} · {form.format(shown)}"
        value = float(box[axis + 2] - box[axis])
        out.append(Step(what, f"anchor {name} · {form.format(inner)}", figures, value))
    return out


def _corners(box: Tensor) -> list[Step]:
    """Return the steps to the corners, input px."""
    x1, y1, x2, y2 = box.tolist()
    x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    rows = (("x1", "centre x − width / 2", x, "−", w, x1), ("y1", "centre y − height / 2", y, "−", h, y1),
            ("x2", "centre x + width / 2", x, "+", w, x2), ("y2", "centre y + height / 2", y, "+", h, y2))  # fmt: skip
    return [Step(f"{name}, input px", words, f"{number(a)} {sign} {operand(b)} / 2", value)
            for name, words, a, sign, b, value in rows]  # fmt: skip


def _on_the_picture(trace: Trace, box: Tensor, inside: Tensor) -> list[Step]:
    """Return the steps back through the letterbox, image px."""
    letterbox, out = trace.letterbox, []
    pads, scales = (letterbox.pad_x, letterbox.pad_y), (letterbox.scale_x, letterbox.scale_y)
    for place, name in enumerate(("x1", "y1", "x2", "y2")):
        axis = place % 2
        side, length = ("width", letterbox.image[1]) if axis == 0 else ("height", letterbox.image[0])
        figures = f"({number(float(box[place]))} − {pads[axis]}) / {scales[axis]:.6g}"
        words = f"({name} − pad {'xy'[axis]}) / scale {'xy'[axis]}, from 0 to {side}"
        figures = f"min(max({figures}, 0), {length})"
        out.append(Step(f"{name}, image px", words, figures, float(inside[place])))
    return out


def _score(raw: Tensor, value: Tensor, spec: HeadSpec) -> list[Step]:
    """Return the steps to the score of the best class."""
    best = int(value.argmax())
    form = {"sigmoid": "σ({})", "linear": "min(max({}, 0), 1)"}
    present = _clipped(float(probability(raw[4], spec.objectness)), spec.objectness)
    given = _clipped(float(probability(raw[5:], spec.class_code)[best]), spec.class_code)
    shown = [number(float(raw[4])), number(float(raw[5 + best]))]
    steps = [Step("objectness", form[spec.objectness].format("to"), form[spec.objectness].format(shown[0]), present)]
    if spec.class_code == "softmax":
        total = number(float((raw[5:] - raw[5 + best]).exp().sum()))
        steps.append(Step("class", "e^c / Σ e^(each class)", f"1 / {total} (both divided by e^c)", given))
    else:
        form_c = form[spec.class_code]
        steps.append(Step("class", form_c.format("c"), form_c.format(shown[1]), given))
    figures = f"{number(present)} · {number(given)}"
    return [*steps, Step("score", "objectness · class", figures, float(value[best]))]


def _clipped(value: float, kind: str) -> float:
    """Return a probability as scores take it: a linear one may leave 0 to 1."""
    return min(max(value, 0.0), 1.0) if kind == "linear" else value
