"""``yolite import``: a Darknet model as a checkpoint."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from torch import nn

from yolite.build import build_detector, build_preprocess, placeholder_anchors
from yolite.checkpoint import describe, save_checkpoint
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.darknet.cfg import read_cfg
from yolite.darknet.network import Network, read_network
from yolite.darknet.weights import read_weights
from yolite.errors import UserError
from yolite.files import check_writable, read_lines
from yolite.models.detector import Detector
from yolite.settings import make_config

LETTERBOX_PAD = 127
"""Darknet pads with 0.5."""


def configure(network: Network, name: str) -> Config:
    """Return the configuration that builds a Darknet network, and feeds it as Darknet does."""
    model = {"name": name, "backbone": network.backbone, "neck": network.neck, "head": network.head,
             "code": network.code}  # fmt: skip
    preprocess = {"mode": "letterbox", "pad": LETTERBOX_PAD} if network.letterbox else {"mode": "stretch"}
    return make_config({"imgsz": list(network.size), "model": model, "preprocess": preprocess})


def learned_layers(detector: Detector, network: Network) -> list[tuple[str, nn.Module]]:
    """Return name and module of the layers that have numbers in a .weights file, in its order."""
    layers = {r.name: layer for r, layer in zip(detector.graph.records, detector.graph.layers, strict=True)}
    return [(name, layers[name]) for name in network.learned]


def read_names(path: Path | None, classes: int) -> list[str]:
    """Return the class names, or numbers where there is no file.

    Raises:
        UserError: it has another number of names, or one twice.
    """
    if path is None:
        return [str(number) for number in range(classes)]
    names = read_lines(path)
    if len(names) != classes:
        raise UserError(f"--names {path}: {classes} names expected, one a line, {len(names)} found")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--names {path}: two classes have the name {twice[0]!r}: give each its own")
    return names


def load_network(cfg: Path) -> tuple[Network, Config, Detector]:
    """Build the network of a .cfg, its weights drawn at random.

    Raises:
        UserError: the file cannot be read, or is no network.
    """
    network = read_network(read_cfg(cfg))
    config = configure(network, cfg.stem)
    return network, config, build_detector(config, network.classes, placeholder_anchors(config.model))


def import_model(cfg: Path, weights: Path, names_file: Path | None, out: Path) -> None:
    """Read a network with its weights and write it as a checkpoint.

    Raises:
        UserError: a file that cannot be read, or that does not belong to the others; nothing is written then.
    """
    check_writable(out, "--out")
    if os.path.lexists(out):
        raise UserError(f"--out {out} is there already: choose another name")
    console = Console()
    network, config, detector = load_network(cfg)
    names = read_names(names_file, network.classes)
    layers = learned_layers(detector, network)
    header = read_weights(weights, layers)
    content = describe(detector, build_preprocess(config), names, to_plain(config))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, {**content, "weights": detector.state_dict(), "ema": None})
    parameters = sum(p.numel() for p in detector.parameters())
    console.say(
        f"{cfg.stem}: {network.sections} layers, {len(layers)} of them with {parameters:,} parameters, trained on "
        f"{header.seen:,} pictures (version {header.major}.{header.minor}.{header.revision})"
    )
    (height, width), strides = config.imgsz, ", ".join(str(spec.stride) for spec in detector.specs)
    some = f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
    console.say(f"input {height}x{width} ({config.preprocess.mode}), {len(names)} classes ({some}), strides {strides}")
    if names_file is None:
        console.say("no --names: the classes are called by their numbers")
    console.say(f"{out}: yolite detect --weights {out} PICTURE; yolite train --weights {out} --data DATA")
