"""``yolite summary``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolite.build import build_detector, placeholder_anchors
from yolite.checkpoint import find_weights, load_checkpoint, restore_detector
from yolite.commands.common import read_imgsz, settings_of_use
from yolite.console import Console
from yolite.errors import UserError
from yolite.models.summary import summarise
from yolite.settings import load_config


def print_summary(
    model: str | None, weights: str | None, options: Mapping[str, Any], words: Sequence[str], classes: int
) -> None:
    """Print one row a layer, and the totals.

    Raises:
        UserError: an unknown model, unreadable weights, or both given.
    """
    console = Console()
    if model and weights:
        raise UserError("summary takes --model or --weights, not both")
    if weights:
        settings = settings_of_use(words, ["imgsz"], "summary --weights", "the weights have their own network")
        content = load_checkpoint(find_weights(weights))
        detector = restore_detector(content)
        height, width = content["preprocess"]["size"]
        size = read_imgsz(settings.get("imgsz", options.get("imgsz"))) or (int(height), int(width))
        try:
            detector.check_size(size)
        except ValueError as error:
            raise UserError(f"{weights}: {error}") from None
        title = f"{weights} ({len(content['names'])} classes)"
    else:
        config = load_config(model, None, options, words)
        detector = build_detector(config, classes, placeholder_anchors(config.model))
        size, title = config.imgsz, f"{config.model.name} ({classes} classes)"
    layers = summarise(detector, size)
    rows = [
        [str(layer.index), layer.name, layer.block, " ".join(map(str, layer.inputs)),
         "x".join(map(str, layer.output)), f"{layer.parameters:,}", f"{layer.flops / 1e6:,.1f}", str(layer.receptive)]
        for layer in layers
    ]  # fmt: skip
    columns = ["layer", "name", "block", "reads", "output CxHxW", "parameters", "MFLOPs", "receptive field px"]
    console.table(f"{title}, input {size[0]}x{size[1]}", columns, rows)
    parameters, flops = sum(layer.parameters for layer in layers), sum(layer.flops for layer in layers)
    console.say(
        f"{parameters:,} parameters, {flops / 1e9:.2f} GFLOPs a picture (a multiply-add counts as 2; "
        "convolutions alone); layer -1 is the picture"
    )
