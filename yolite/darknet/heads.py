"""What the sections yolo, region and detection say of a head: anchors, stride, codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yolite.darknet.cfg import Section
from yolite.structures import Size


@dataclass(frozen=True)
class Head:
    """How one level is read; see `yolite.structures.HeadSpec`.

    Attributes:
        stride: Input px a cell.
        anchors: [w, h] in input px.
        classes: Number of classes.
        grid_scale: Darknet's scale_x_y.
        codes: xy, wh, class_code, objectness and classes_per.
    """

    stride: int
    anchors: list[list[float]]
    classes: int
    grid_scale: float
    codes: dict[str, str]

    @staticmethod
    def code(heads: Sequence[Head], net: Section) -> dict[str, Any]:
        """Return the ``code`` section of a model config for these levels.

        Raises:
            UserError: the levels do not belong to one detector.
        """
        first, scales = heads[0], [head.grid_scale for head in heads]
        if any(head.classes != first.classes or head.codes != first.codes for head in heads):
            net.fail("the decoders of this file differ in their classes or codes: only one set for all is read")
        return {
            "strides": [head.stride for head in heads],
            "anchors_per_level": len(first.anchors),
            "anchors": [head.anchors for head in heads],
            "grid_scale": scales[0] if len(set(scales)) == 1 else scales,
            **first.codes,
        }


def _anchor_count(decoder: Section) -> int:
    """Return the number of anchors a cell."""
    if decoder.name == "yolo" and "mask" in decoder.options:
        return len(decoder.integers("mask"))
    return decoder.integer("num", 1, 1)


def check_channels(section: Section, key: str, channels: int, decoder: Section) -> None:
    """Raise UserError unless a layer gives as many numbers as the decoder after it reads."""
    anchors, classes = _anchor_count(decoder), decoder.integer("classes", 1 if decoder.name == "detection" else 20, 1)
    if decoder.name == "detection":
        side = decoder.integer("side", 7, 1)
        wanted = side**2 * (5 * anchors + classes)
        how = f"{side} x {side} cells x ({anchors} boxes x 5 + {classes} classes)"
    else:
        wanted, how = anchors * (5 + classes), f"{anchors} anchors x (5 + {classes} classes)"
    if channels != wanted:
        section.fail(f"{key}={channels}, but [{decoder.name}] (line {decoder.line}) reads {how} = {wanted}")


def read_head(section: Section, shape: tuple[int, int, int], size: Size) -> Head:
    """Read a decoder.

    Args:
        section: yolo, region or detection.
        shape: (channels, H, W) of the map it reads.
        size: (H, W) of the input.

    Raises:
        UserError: an option that cannot be read, or cells that are not square.
    """
    strides = {side / cells for side, cells in zip(size, shape[1:], strict=True)}
    stride = strides.pop()
    if strides or stride != int(stride):
        section.fail(f"a grid of {shape[1]}x{shape[2]} does not divide an input of {size[0]}x{size[1]} into squares")
    if section.name == "yolo":
        return _yolo(section, int(stride))
    if section.name == "region":
        return _region(section, int(stride))
    return _detection(section, int(stride), size)


def _pairs(section: Section, count: int, unit: float) -> list[list[float]]:
    """Return ``count`` anchors [w, h] in input px, of a file that counts in ``unit`` px."""
    numbers = section.numbers("anchors")
    if len(numbers) < 2 * count:
        section.fail(f"anchors has {len(numbers)} numbers, num={count} needs {2 * count}")
    if not all(0 < number < 1e5 for number in numbers):
        section.fail("anchors must be sizes above 0")
    return [[numbers[2 * i] * unit, numbers[2 * i + 1] * unit] for i in range(count)]


def _yolo(section: Section, stride: int) -> Head:
    total = section.integer("num", 1, 1)
    mask = section.integers("mask") if "mask" in section.options else list(range(total))
    if not mask or not all(0 <= i < total for i in mask):
        section.fail(f"mask={section.text('mask', '')} names an anchor that is not there: num={total}")
    anchors, scale = _pairs(section, total, 1.0), section.number("scale_x_y", 1.0)
    if not 1 <= scale < 100:
        section.fail(f"scale_x_y={scale:g} must be at least 1")
    _refuse(section, ("map",))
    # new_coords: the numbers come through a sigmoid already, so that (2t)² is (2σ)² of what the convolution gives
    wh = "sigmoid_square" if section.integer("new_coords", 0) else "exp"
    codes = {"xy": "sigmoid", "wh": wh, "class_code": "sigmoid", "objectness": "sigmoid", "classes_per": "box"}
    return Head(stride, [anchors[i] for i in mask], section.integer("classes", 20, 1), scale, codes)


def _region(section: Section, stride: int) -> Head:
    _refuse(section, ("tree", "map", "classfix"))
    if section.integer("coords", 4) != 4:
        section.fail("coords must be 4")
    class_code = "softmax" if section.integer("softmax", 0) else "sigmoid"
    codes = {"xy": "sigmoid", "wh": "exp", "class_code": class_code, "objectness": "sigmoid", "classes_per": "box"}
    anchors = _pairs(section, section.integer("num", 1, 1), float(stride))
    return Head(stride, anchors, section.integer("classes", 20, 1), 1.0, codes)


def _detection(section: Section, stride: int, size: Size) -> Head:
    _refuse(section, ("reorg",))
    if section.integer("coords", 1) != 4 or section.integer("sqrt", 0) != 1:
        section.fail("only coords=4 and sqrt=1 are read")
    class_code = "softmax" if section.integer("softmax", 0) else "linear"
    codes = {"xy": "linear", "wh": "square", "class_code": class_code, "objectness": "linear", "classes_per": "cell"}
    anchors = [[float(size[1]), float(size[0])]] * section.integer("num", 1, 1)
    return Head(stride, anchors, section.integer("classes", 1, 1), 1.0, codes)


def _refuse(section: Section, keys: Sequence[str]) -> None:
    """Raise UserError for options that change what is decoded and are not read."""
    for key in keys:
        if section.text(key, "0") != "0":
            section.fail(f"{key}={section.options[key]} is not supported")
