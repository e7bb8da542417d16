"""The one place where a config becomes objects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from yolite.config import Config, LossConfig, ModelConfig
from yolite.data.transforms import Augment
from yolite.errors import UserError, nearest
from yolite.models.conv import Conv
from yolite.models.detector import Detector, initialise
from yolite.models.graph import BLOCKS, LayerRecord
from yolite.paths import descriptor
from yolite.processes import memory_size
from yolite.settings import read_config_file
from yolite.structures import HeadSpec, Preprocess
from yolite.training.loss import DetectionLoss
from yolite.training.optim import Layers

MOST = 100_000
"""Channels or repeats of a layer past this are taken for a slip."""

Anchors = Sequence[Sequence[tuple[float, float]]]


def build_preprocess(config: Config) -> Preprocess:
    """Return the record that loader, predictor and export share."""
    p = config.preprocess
    return Preprocess(config.imgsz, p.mode, p.pad, p.mean, p.std)


def build_specs(model: ModelConfig, classes: int, anchors: Anchors) -> tuple[HeadSpec, ...]:
    """Return one `HeadSpec` a level.

    Raises:
        UserError: the anchors do not fit the levels, or the codes not each other.
    """
    code = model.code
    if len(anchors) != len(code.strides):
        raise UserError(f"model.code.anchors has {len(anchors)} levels, model.code.strides {len(code.strides)}")
    scales = code.grid_scale if isinstance(code.grid_scale, tuple) else (code.grid_scale,) * len(code.strides)
    if len(scales) != len(code.strides):
        raise UserError(f"model.code.grid_scale has {len(scales)} levels, model.code.strides {len(code.strides)}")
    try:
        return tuple(
            HeadSpec(stride, tuple((float(w), float(h)) for w, h in level), classes, code.xy, scale, code.wh,
                     code.class_code, code.objectness, code.classes_per)
            for stride, level, scale in zip(code.strides, anchors, scales, strict=True)
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"model.code: {error}") from None


def fitting_loss(specs: Sequence[HeadSpec]) -> dict[str, Any]:
    """Return the ``loss`` settings that fit a head, for fine-tuning from a checkpoint or a Darknet import.

    YOLOv1's and v2's numbers need the loss of their generation (configs/). All others take yolite's, YOLOv3's too: an
    imported yolo-fastest learns BCCD to a higher AP by it than by the loss that it was made with
    (docs/research-log.md).
    """
    spec = specs[0]
    if "linear" in (spec.objectness, spec.class_code):
        name = "yolov1"
    elif spec.class_code == "softmax":
        name = "yolov2"
    else:
        name = "yolite"
    found: dict[str, Any] = read_config_file(descriptor(name, "configs", "model")).get("loss", {})
    return found


def build_loss(c: LossConfig, specs: Sequence[HeadSpec]) -> DetectionLoss:
    """Return the loss for maps of these specs.

    Raises:
        UserError: a part of it needs another code.
    """
    weights = () if isinstance(c.class_weights, str) else tuple(c.class_weights)
    loss = DetectionLoss(
        c.box, c.objectness, c.classes, c.iou, c.assign.ratio, c.assign.neighbours, c.assign.ignore_iou,
        c.label_smoothing, weights, c.assign.rule, c.box_by, c.favour_small, c.objectness_by, c.classes_by,
        c.objectness_target, c.object, c.no_object, c.prior, c.prior_images, c.divide_by,
    )  # fmt: skip
    try:
        loss.check(specs[0])
    except ValueError as error:
        raise UserError(str(error)) from None
    return loss


def _number(key: str, value: Any) -> float:
    """Return a number from a row of the model, or say that it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MOST:
        raise UserError(f"model: {key}: {value!r} is no number from 1 to {MOST}")
    return value


def _scaled(row: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
    """Apply width to ``out`` and ``hidden`` (in steps of 8; a width of 1 leaves them alone) and depth to ``n``."""
    out = dict(row)
    for key in ("out", "hidden"):
        if key in out:
            asked = _number(key, out[key])
            out[key] = asked if model.width == 1 else max(8, round(asked * model.width / 8) * 8)
    if "n" in out:
        out["n"] = max(1, round(_number("n", out["n"]) * model.depth))
    return out


def _choose(records: Sequence[LayerRecord], model: ModelConfig) -> list[LayerRecord]:
    """Add the model's act, norm, eps and down where a row leaves them at the default that `Conv` has, too.

    Raises:
        UserError: a choice that no row takes.
    """
    choices = {key: choice for key in ("act", "norm", "eps", "down") if (choice := getattr(model, key)) is not None}
    usual, out, taken = inspect.signature(Conv).parameters, list(records), set()
    for index, record in enumerate(records):
        own = inspect.signature(BLOCKS[record.block]).parameters if record.block in BLOCKS else {}
        new = {key: choice for key, choice in choices.items()
               if key in own and key not in record.arguments and own[key].default == usual[key].default
               and (key != "down" or record.arguments.get("stride", 1) != 1)}  # fmt: skip
        taken |= set(new)
        out[index] = replace(record, arguments={**record.arguments, **new})
    for key in choices.keys() - taken:
        raise UserError(f"model.{key}={choices[key]} changes nothing: the rows of {model.name!r} name their own, or "
                        "have no use for it: leave it out")  # fmt: skip
    return out


def _input_index(name: Any, here: int, names: Mapping[str, int]) -> int:
    """Turn one entry of ``from`` (a name, or −1 for the layer above, −2 ...) into a layer index."""
    if name == "above":
        return here - 1
    if isinstance(name, int) and not isinstance(name, bool) and -here <= name < 0:
        return here + name
    if name == "image":
        return -1
    if isinstance(name, str) and name in names:
        return names[name]
    raise UserError(f"model: layer {here} reads {name!r}, which no layer above is named{nearest(str(name), names)}")


def build_records(model: ModelConfig, specs: Sequence[HeadSpec]) -> tuple[list[LayerRecord], list[int]]:
    """Turn the rows of a model config into layer records.

    Returns:
        The records, and the indices of the head's layers (the outputs).

    Raises:
        UserError: a row that names no earlier layer, head rows that do not fit the levels, a choice without effect.
    """
    if not model.backbone or not model.head:
        raise UserError(f"model {model.name!r} has no layers: give backbone and head, or a name from configs/")
    if len(model.head) != len(specs):
        raise UserError(f"model {model.name!r}: {len(model.head)} head rows for {len(specs)} strides")
    records: list[LayerRecord] = []
    names: dict[str, int] = {}
    rows = [*model.backbone, *model.neck, *model.head]
    outputs = list(range(len(rows) - len(model.head), len(rows)))
    for here, row in enumerate(rows):
        if "block" not in row:
            raise UserError(f"model: layer {here} names no block: {dict(row)}")
        arguments = _scaled(row, model)
        block, name = str(arguments.pop("block")), str(arguments.pop("name", ""))
        source = arguments.pop("from", "above")
        sources = source if isinstance(source, list) else [source]
        if here in outputs:
            spec = specs[here - outputs[0]]
            arguments |= {"anchors": len(spec.anchors), "classes": spec.classes}
        inputs = tuple(_input_index(s, here, names) for s in sources)
        records.append(LayerRecord(block, inputs, arguments, name))
        if name:
            names[name] = here
    return _choose(records, model), outputs


def build_detector(config: Config, classes: int, anchors: Anchors) -> Detector:
    """Build the network of ``config`` for this number of classes, weights drawn from the seed.

    Raises:
        UserError: the model section is not a network.
    """
    specs = build_specs(config.model, classes, anchors)
    records, outputs = build_records(config.model, specs)
    try:
        with torch.device("meta"):  # without memory: what is too large is found out before it is asked for
            needed = sum(4 * p.numel() for p in Detector(records, specs, outputs).parameters())
        if needed > (there := memory_size()):
            raise ValueError(f"its weights take {needed / 2**30:,.0f} GiB, this machine has {there / 2**30:,.0f}")
        detector = Detector(records, specs, outputs)
        _check_strides(detector)
        detector.check_size(config.imgsz)
    except ValueError as error:
        raise UserError(f"model {config.model.name!r} cannot be built: {error}") from None
    initialise(detector, config.seed, config.model.init)
    return detector


def build_layers(model: ModelConfig) -> Layers:
    """Return how the layers of the network may be spoken of: sections and names."""
    sections = {"backbone": model.backbone, "neck": model.neck, "head": model.head}
    return Layers(
        [section for section, rows in sections.items() for _ in rows],
        [str(row.get("name", "")) for rows in sections.values() for row in rows],
    )


def build_augment(config: Config) -> Augment:
    """Return what training does to the pictures."""
    a = config.augment
    return Augment(
        a.mosaic, a.scale, a.translate, float(a.hflip), a.vflip, a.hue, a.saturation, a.brightness, a.min_visible,
        a.crop, a.rotate, a.shear, a.blur, a.noise, a.cutout, a.mixup, a.copy_paste,
    )  # fmt: skip


def _check_strides(detector: Detector) -> None:
    """Run a small picture (or one of its only size) through the network; compare its maps with the HeadSpecs.

    Raises:
        ValueError: the layers do not fit together, or a map has another stride than its HeadSpec.
    """
    side, graph = max(64, 2 * detector.max_stride), detector.graph
    height, width = detector.fixed_size or (side, side)
    maps = {-1: torch.zeros(1, 3, height, width)}
    detector.eval()  # batch norm would count the picture
    for index, (record, layer) in enumerate(zip(graph.records, graph.layers, strict=True)):
        try:
            with torch.no_grad():
                maps[index] = layer(*[maps[i] for i in record.inputs])
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"layer {index} ({record.block}): {str(error).splitlines()[0][:200]}") from None
    detector.train()
    real = [height / max(1, maps[i].shape[-2]) for i in graph.outputs]
    if real != [spec.stride for spec in detector.specs]:
        stated = ", ".join(str(spec.stride) for spec in detector.specs)
        raise ValueError(f"model.code.strides says [{stated}], but its maps have [{', '.join(f'{s:g}' for s in real)}]")


def placeholder_anchors(model: ModelConfig) -> Anchors:
    """Return the config's anchors, or where they are ``auto`` some of the right number (for a summary)."""
    if model.code.anchors != "auto":
        return model.code.anchors
    return [[(4.0 * s, 4.0 * s)] * model.code.anchors_per_level for s in model.code.strides]
