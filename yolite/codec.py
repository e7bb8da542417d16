"""From grid to box and back: the only box arithmetic with cells, strides, sigmoid and exp in the project.

Training (positives one by one), inference (whole maps), evaluation and export all go through `_to_boxes`, so the
formula cannot drift apart. `encode` is its inverse; a test asserts the identity for every `HeadSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolite.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from yolite.structures import ClassCode, HeadSpec

MAX_EXPONENT = 10.0
"""e^t is cut here (a box 22,026 anchors wide), so that an untrained net cannot give an infinite box."""


@dataclass(frozen=True)
class Decoded:
    """One level in readable form.

    Attributes:
        boxes: [B, A, H, W, 4] xyxy, input px.
        objectness: [B, A, H, W] raw numbers (see `probability`).
        classes: [B, A, H, W, classes] raw numbers.
    """

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


def split(raw: Tensor, spec: HeadSpec) -> Tensor:
    """View a raw map [B, channels, H, W] as [B, A, H, W, 5 + classes]: tx, ty, tw, th, objectness, classes.

    Class scores that the boxes of a cell share are repeated for each of them.

    Raises:
        ValueError: if the channels are not those of ``spec``.
    """
    batch, channels, height, width = raw.shape
    anchors = len(spec.anchors)
    if channels != spec.channels:
        each = f"5 + {spec.classes} classes" if spec.classes_per == "cell" else f"(5 + {spec.classes} classes)"
        raise ValueError(f"raw map has {channels} channels, but {anchors} anchors × {each} need {spec.channels}")
    if spec.classes_per == "box":
        return raw.view(batch, anchors, 5 + spec.classes, height, width).permute(0, 1, 3, 4, 2)
    boxes = raw[:, : anchors * 5].view(batch, anchors, 5, height, width)
    classes = raw[:, None, anchors * 5 :].expand(-1, anchors, -1, -1, -1)
    return torch.cat((boxes, classes), 2).permute(0, 1, 3, 4, 2)


def grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return [H, W, 2]: the column and row number of every cell, in the dtype and on the device of ``like``."""
    y = torch.arange(height, device=like.device, dtype=like.dtype)
    x = torch.arange(width, device=like.device, dtype=like.dtype)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows), dim=-1)


def anchors_of(spec: HeadSpec, like: Tensor) -> Tensor:
    """Return the anchors [A, 2] (w, h) in input px, in the dtype and on the device of ``like``."""
    return torch.tensor(spec.anchors, device=like.device, dtype=like.dtype)


def code(t: Tensor, spec: HeadSpec) -> Tensor:
    """Return the four numbers [..., 4] that place a box, from the raw ones: σ(t) where the code has a sigmoid, else t.

    They are what YOLOv1 to v3 take squared errors of (`yolite.training.loss`).
    """
    xy, wh = t[..., 0:2], t[..., 2:4]
    return torch.cat((xy.sigmoid() if spec.xy == "sigmoid" else xy,
                      wh.sigmoid() if spec.wh == "sigmoid_square" else wh), dim=-1)  # fmt: skip


def _to_boxes(t: Tensor, cells: Tensor, anchors: Tensor, spec: HeadSpec) -> Tensor:
    """Turn raw numbers into boxes.

    Args:
        t: [..., 4] raw tx, ty, tw, th.
        cells: [..., 2] column and row, grid cells.
        anchors: [..., 2] width and height, input px.
        spec: How to read them.

    Returns:
        [..., 4] xyxy, input px.
    """
    s = spec.grid_scale
    xy, wh = code(t, spec).chunk(2, -1)
    if spec.xy == "free":
        centre = (cells + 0.5) * spec.stride + xy * anchors
    else:
        centre = (cells + s * xy - (s - 1) / 2) * spec.stride
    if spec.wh == "exp":
        size = anchors * wh.clamp(max=MAX_EXPONENT).exp()
    elif spec.wh == "square":
        size = anchors * wh.square()
    else:
        size = anchors * (2 * wh).square()
    return cxcywh_to_xyxy(torch.cat((centre, size), dim=-1))


def decode(raw: Tensor, spec: HeadSpec) -> Decoded:
    """Read a whole raw map [B, channels, H, W] (any float dtype; computed in float32 or wider)."""
    t = split(raw, spec)
    t = t if t.dtype == torch.float64 else t.float()
    cells = grid(t.shape[2], t.shape[3], t)
    anchors = anchors_of(spec, t)[None, :, None, None, :]
    return Decoded(_to_boxes(t[..., :4], cells, anchors, spec), t[..., 4], t[..., 5:])


def decode_at(t: Tensor, spec: HeadSpec, anchor: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Decode single predictions: raw numbers ``t`` [P, 4] at (anchor, row, column) [P] → boxes [P, 4], input px."""
    cells = torch.stack((column, row), dim=-1).to(t.dtype)
    return _to_boxes(t, cells, anchors_of(spec, t)[anchor], spec)


def encode_code(boxes: Tensor, spec: HeadSpec, anchor: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return what `code` should give [P, 4] for ``boxes`` [P, 4] (xyxy, input px) at (anchor, row, column) [P].

    A box that the code cannot express (a centre out of the cell's reach, a size past the code's bound) is answered
    by the nearest one it can, a hair (1e-6) inside the open interval.
    """
    cxcywh = xyxy_to_cxcywh(boxes)
    cells = torch.stack((column, row), dim=-1).to(boxes.dtype)
    sides, s = anchors_of(spec, boxes)[anchor], spec.grid_scale
    if spec.xy == "free":
        xy = (cxcywh[..., 0:2] - (cells + 0.5) * spec.stride) / sides
    else:
        xy = (cxcywh[..., 0:2] / spec.stride - cells + (s - 1) / 2) / s
    ratio = (cxcywh[..., 2:4] / sides).clamp(min=1e-6)
    if spec.wh == "exp":
        wh = ratio.log()
    else:
        wh = ratio.sqrt() if spec.wh == "square" else (ratio.sqrt() / 2).clamp(1e-6, 1 - 1e-6)
    return torch.cat((xy.clamp(1e-6, 1 - 1e-6) if spec.xy == "sigmoid" else xy, wh), dim=-1)


def encode(boxes: Tensor, spec: HeadSpec, anchor: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return the raw numbers [P, 4] that `decode_at` turns into ``boxes`` [P, 4]; see `encode_code`."""
    xy, wh = encode_code(boxes, spec, anchor, row, column).chunk(2, -1)
    return torch.cat((xy.logit() if spec.xy == "sigmoid" else xy,
                      wh.logit() if spec.wh == "sigmoid_square" else wh), dim=-1)  # fmt: skip


def prior_code(spec: HeadSpec, like: Tensor) -> Tensor:
    """Return what `code` should give [4] for an anchor's own box in the middle of its cell: the same for all."""
    first = torch.zeros(1, dtype=torch.int64, device=like.device)
    centre = like.new_full((1, 2), spec.stride / 2)
    box = cxcywh_to_xyxy(torch.cat((centre, anchors_of(spec, like)[:1]), dim=-1))
    return encode_code(box, spec, first, first, first)[0]


def probability(raw: Tensor, kind: ClassCode) -> Tensor:
    """Turn raw objectness [...] or class numbers [..., classes] into what stands for probabilities, the same shape.

    ``linear`` numbers (YOLOv1) may leave [0, 1]; `scores` clips them.
    """
    if kind == "softmax":
        return raw.softmax(-1)
    return raw.sigmoid() if kind == "sigmoid" else raw


def scores(objectness: Tensor, classes: Tensor, spec: HeadSpec) -> Tensor:
    """Return P(object) · P(class | object) [..., classes], each in [0, 1], from raw numbers [...] and [..., classes].

    Source: YOLOv1 (arXiv 1506.02640), eq. 1.
    """
    given_object = probability(classes, spec.class_code)
    present = probability(objectness, spec.objectness)
    if spec.class_code == "linear":
        given_object = given_object.clamp(0, 1)
    if spec.objectness == "linear":
        present = present.clamp(0, 1)
    return present[..., None] * given_object


def likely(raw: Tensor, spec: HeadSpec, conf: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return anchor, row and column [N] of the predictions of one image whose objectness is above ``conf``.

    A score is objectness times a probability, so no other prediction can score above it.

    Args:
        raw: [channels, H, W], any float dtype.
        spec: How to read it.
        conf: Least score, 0 to 1.
    """
    anchor, row, column = (probability(split(raw[None], spec)[0, ..., 4], spec.objectness) > conf).nonzero(
        as_tuple=True
    )
    return anchor, row, column


def decode_likely(raw: Tensor, spec: HeadSpec, conf: float) -> tuple[Tensor, Tensor]:
    """Decode those predictions of one image that may score above ``conf``, in the order of `likely`.

    Skipping the others is exact and saves most of the work.

    Args:
        raw: [channels, H, W], any float dtype; computed in float32 or wider.
        spec: How to read it.
        conf: Least score, 0 to 1.

    Returns:
        Boxes [N, 4] xyxy in input px, and scores [N, classes].
    """
    anchor, row, column = likely(raw, spec, conf)
    found = split(raw[None], spec)[0][anchor, row, column]
    found = found if found.dtype == torch.float64 else found.float()
    return decode_at(found[:, :4], spec, anchor, row, column), scores(found[:, 4], found[:, 5:], spec)
