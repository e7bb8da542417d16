"""From grid to box and back: the only box arithmetic with cells, strides, sigmoid and exp in the project.

Training (positives one by one), inference (whole maps), evaluation and export all go through `_to_boxes`, so the
formula cannot drift apart. `encode` is its inverse; a test asserts the identity for every `HeadSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolite.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from yolite.structures import HeadSpec

MAX_EXPONENT = 10.0
"""e^t is cut here (a box 22,026 anchors wide), so that an untrained net cannot give an infinite box."""


@dataclass(frozen=True)
class Decoded:
    """One level in readable form.

    Attributes:
        boxes: [B, A, H, W, 4] xyxy, input px.
        objectness: [B, A, H, W] logits.
        classes: [B, A, H, W, classes] logits.
    """

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


def split(raw: Tensor, spec: HeadSpec) -> Tensor:
    """View a raw map [B, A·F, H, W] as [B, A, H, W, F] with F = 5 + classes: tx, ty, tw, th, objectness, classes.

    Raises:
        ValueError: if the channels are not those of ``spec``.
    """
    batch, channels, height, width = raw.shape
    if channels != spec.channels:
        raise ValueError(
            f"raw map has {channels} channels, but {len(spec.anchors)} anchors × (5 + {spec.classes} classes) "
            f"need {spec.channels}"
        )
    return raw.view(batch, len(spec.anchors), spec.fields, height, width).permute(0, 1, 3, 4, 2)


def grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return [H, W, 2]: the column and row number of every cell, in the dtype and on the device of ``like``."""
    y = torch.arange(height, device=like.device, dtype=like.dtype)
    x = torch.arange(width, device=like.device, dtype=like.dtype)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows), dim=-1)


def anchors_of(spec: HeadSpec, like: Tensor) -> Tensor:
    """Return the anchors [A, 2] (w, h) in input px, in the dtype and on the device of ``like``."""
    return torch.tensor(spec.anchors, device=like.device, dtype=like.dtype)


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
    centre = (cells + s * t[..., 0:2].sigmoid() - (s - 1) / 2) * spec.stride
    if spec.wh == "exp":
        size = anchors * t[..., 2:4].clamp(max=MAX_EXPONENT).exp()
    else:
        size = anchors * (2 * t[..., 2:4].sigmoid()).square()
    return cxcywh_to_xyxy(torch.cat((centre, size), dim=-1))


def decode(raw: Tensor, spec: HeadSpec) -> Decoded:
    """Read a whole raw map [B, A·(5 + classes), H, W] (any float dtype; computed in float32 or wider)."""
    t = split(raw, spec)
    t = t if t.dtype == torch.float64 else t.float()
    cells = grid(t.shape[2], t.shape[3], t)
    anchors = anchors_of(spec, t)[None, :, None, None, :]
    return Decoded(_to_boxes(t[..., :4], cells, anchors, spec), t[..., 4], t[..., 5:])


def decode_at(t: Tensor, spec: HeadSpec, anchor: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Decode single predictions: raw numbers ``t`` [P, 4] at (anchor, row, column) [P] → boxes [P, 4], input px."""
    cells = torch.stack((column, row), dim=-1).to(t.dtype)
    return _to_boxes(t, cells, anchors_of(spec, t)[anchor], spec)


def encode(boxes: Tensor, spec: HeadSpec, anchor: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return the raw numbers [P, 4] that `decode_at` turns into ``boxes`` [P, 4] (xyxy, input px).

    A box that the code cannot express (a centre out of the cell's reach, a size past the code's bound) is answered
    by the nearest one it can, a hair (1e-6) inside the open interval.
    """
    cxcywh = xyxy_to_cxcywh(boxes)
    cells = torch.stack((column, row), dim=-1).to(boxes.dtype)
    s = spec.grid_scale
    inside = ((cxcywh[..., 0:2] / spec.stride - cells + (s - 1) / 2) / s).clamp(1e-6, 1 - 1e-6)
    ratio = (cxcywh[..., 2:4] / anchors_of(spec, boxes)[anchor]).clamp(min=1e-6)
    t_wh = ratio.log() if spec.wh == "exp" else (ratio.sqrt() / 2).clamp(1e-6, 1 - 1e-6).logit()
    return torch.cat((inside.logit(), t_wh), dim=-1)


def scores(objectness: Tensor, classes: Tensor, spec: HeadSpec) -> Tensor:
    """Return P(object) · P(class | object) [..., classes] from logits [...] and [..., classes] (YOLOv1, eq. 1)."""
    given_object = classes.sigmoid() if spec.class_code == "sigmoid" else classes.softmax(-1)
    return objectness.sigmoid()[..., None] * given_object


def decode_likely(raw: Tensor, spec: HeadSpec, conf: float) -> tuple[Tensor, Tensor]:
    """Decode those predictions of one image that may score above ``conf``: with objectness above it.

    A score is objectness times a probability, so no other prediction can; skipping them is exact and saves most of
    the work.

    Args:
        raw: [A·(5 + classes), H, W], any float dtype; computed in float32 or wider.
        spec: How to read it.
        conf: Least score, 0 to 1.

    Returns:
        Boxes [N, 4] xyxy in input px, and scores [N, classes].
    """
    t = split(raw[None], spec)[0]
    anchor, row, column = (t[..., 4].sigmoid() > conf).nonzero(as_tuple=True)
    found = t[anchor, row, column]
    found = found if found.dtype == torch.float64 else found.float()
    return decode_at(found[:, :4], spec, anchor, row, column), scores(found[:, 4], found[:, 5:], spec)
