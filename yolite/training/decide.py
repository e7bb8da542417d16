"""Every ``auto`` is decided here, once, when a run starts; what was taken, and why, is said."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolite.anchors import AnchorReport, fit_report, kmeans_anchors, split_by_level
from yolite.build import build_loss, build_specs, placeholder_anchors
from yolite.config import Config
from yolite.console import Console
from yolite.data.balance import boxes_seen, epoch_size, image_weights
from yolite.data.loader import choose_workers
from yolite.data.pictures import Pictures
from yolite.data.problems import Problem, summarise
from yolite.devices import choose_precision
from yolite.errors import UserError
from yolite.models.detector import Detector
from yolite.paths import cache_folder, free_bytes
from yolite.processes import Processes, memory_size
from yolite.settings import replace_setting
from yolite.structures import Targets
from yolite.training.assign import reachable
from yolite.training.batch import choose_batch
from yolite.training.imbalance import counts_line, inverse_frequency, weights_line

PICTURES_SHOWN = 12_800
"""``train.epochs: auto`` aims at this many training pictures: some minutes on two processors."""


def decide_cache(pictures: Pictures, role: str, config: Config, console: Console, processes: Processes) -> str:
    """Decide ``data.cache`` and fill the cache; unreadable images are reported and left out."""
    folder = Path(config.data.cache_dir) if config.data.cache_dir else cache_folder() / "pixels"
    setting, size = config.data.cache, pictures.cache_bytes
    if setting == "auto":
        # every process of this host keeps its own in RAM, but all share a file
        if size <= memory_size() / 4 / processes.local_world:
            setting = "ram"
        else:
            file = pictures.cache_file(folder)
            own = min(file.stat().st_size, size) if file.is_file() else 0  # of an earlier run
            setting = "disk" if size <= (free_bytes(folder) + own) / 2 else "off"
        setting = processes.from_main(setting)  # all take turns, or none does
    if setting == "off":
        console.say(f"{role}: images are read from their files every time (data.cache=off)")
        return setting
    place = "RAM" if setting == "ram" else str(pictures.cache_file(folder))
    console.say(f"{role}: decoded images, {size / 2**20:.0f} MiB, in {place} (data.cache={setting})")
    with processes.one_first() if setting == "disk" else nullcontext(), console.track(f"{role}: decoding") as progress:
        bad = pictures.fill_cache(progress, None if setting == "ram" else folder)
    problems = [Problem(s.path, 0, "unreadable image", why, "image left out") for s, why in bad if s.path]
    if problems:
        console.warn(f"{role}: {summarise(problems)}; first: {problems[0]}")
    if not len(pictures):
        raise UserError(f"no image of the role {role} can be read (first: {problems[0]})")
    return setting


def _find_anchors(config: Config, wh: Tensor, console: Console) -> tuple[AnchorReport, str]:
    """Return the anchors for box shapes ``wh`` [N, 2] (input px) with their fit, and where they come from."""
    code, ratio = config.model.code, config.loss.assign.ratio
    if code.anchors != "auto":
        return fit_report(wh, torch.tensor([anchor for level in code.anchors for anchor in level]), ratio), "given"
    k = len(code.strides) * code.anchors_per_level
    if code.wh == "square":
        height, width = config.imgsz
        own = torch.tensor([[float(width), float(height)]] * k)
        return fit_report(wh, own, ratio), "the input itself: sizes are shares of it"
    if len(wh) < k:
        console.say(f"anchors: {len(wh)} training boxes for {k} anchors: some anchors will be equal")
        wh = wh.repeat(-(-k // len(wh)), 1)
    return kmeans_anchors(wh, k, seed=config.seed, ratio=ratio), "k-means on the training boxes"


def decide_anchors(config: Config, targets: Targets, console: Console) -> Config:
    """Decide ``model.code.anchors`` by the training boxes (input px), and say how well the anchors fit."""
    boxes = targets[~targets.ignore].boxes
    report, how = _find_anchors(config, boxes[:, 2:] - boxes[:, :2], console)
    if config.model.code.anchors == "auto":
        levels = split_by_level(report.anchors, len(config.model.code.strides))
        config = replace_setting(config, "model.code.anchors", [[list(a) for a in level] for level in levels])
    specs = build_specs(config.model, 1, placeholder_anchors(config.model))
    found = reachable(targets, specs, config.imgsz, config.loss.assign.rule, config.loss.assign.ratio)
    console.say(
        f"anchors ({how}): {_shown(report)}; average IoU {report.avg_iou:.3f}, best possible recall "
        f"{found / len(boxes):.4f} of {len(boxes)} boxes"
    )
    if missed := len(boxes) - found:
        console.warn(f"{missed} of {len(boxes)} training boxes {_why_missed(config)}")
    return config


def _why_missed(config: Config) -> str:
    """Say why the rule gives some objects to no prediction, and what would help."""
    assign = config.loss.assign
    if assign.rule == "ratio":
        return (
            f"suit no anchor (a side differs by a factor of {assign.ratio:g} or more) and cannot be learned: try a "
            "larger imgsz, more model.code.anchors_per_level, or a larger loss.assign.ratio"
        )
    what = "cell" if assign.rule == "best_iou" else "anchor of a cell"
    return (
        f"share their {what} with another object, and only the first of them is learned (loss.assign.rule="
        f"{assign.rule}): a larger imgsz makes the grid finer, where the network allows one"
    )


def _shown(report: AnchorReport) -> str:
    return " ".join(f"{w:.0f}x{h:.0f}" for w, h in report.anchors.tolist())


def decide_hflip(config: Config, mirror_safe: bool, console: Console) -> Config:
    """Decide ``augment.hflip``."""
    if config.augment.hflip != "auto":
        return config
    chance = 0.5 if mirror_safe else 0.0
    reason = "the default" if mirror_safe else "the data set says that its classes do not survive mirroring"
    console.say(f"augment.hflip: {chance} ({reason})")
    return replace_setting(config, "augment.hflip", chance)


def decide_rest(
    config: Config, images: int, mirror_safe: bool, device: torch.device, processes: Processes, console: Console
) -> Config:
    """Decide every other ``auto`` but the batch, and say so."""
    if config.train.epochs == "auto":
        epochs = min(200, max(12, round(PICTURES_SHOWN / images)))
        console.say(f"train.epochs: {epochs} ({epochs * images} pictures shown)")
        config = replace_setting(config, "train.epochs", epochs)
    config = decide_hflip(config, mirror_safe, console)
    if config.train.precision == "auto":
        precision, reason = choose_precision(device)
        console.say(f"train.precision: {precision} ({reason})")
        config = replace_setting(config, "train.precision", precision)
    if config.data.workers == "auto":
        workers = processes.from_main(choose_workers(processes.local_world))
        console.say(f"data.workers: {workers} ({os.cpu_count()} processors)")
        config = replace_setting(config, "data.workers", workers)
    return config


def decide_image_weights(config: Config, train: Pictures, names: list[str], console: Console) -> np.ndarray | None:
    """Return how often an epoch shows each picture, and say what that does to the counts."""
    balance, background = config.data.balance, config.data.background
    if balance == "off" and background == 1:
        return None
    weights = image_weights(train.samples, len(names), balance, background)
    settings = f"data.balance={balance}, data.background={background:g}"
    if weights is None:
        console.say(f"{settings}: nothing changes, every picture is shown once an epoch")
        return None
    before, after = (boxes_seen(train.samples, len(names), w) for w in (None, weights))
    console.say(counts_line(settings, names, (len(train), epoch_size(weights)), before, after))
    return weights


def decide_class_weights(config: Config, names: list[str], boxes: list[float], console: Console) -> Config:
    """Decide ``loss.class_weights: auto`` by the boxes of an epoch, and say what weights do to the counts."""
    weights = config.loss.class_weights
    if weights == "off":
        return config
    how = "given" if isinstance(weights, list) else "auto: one over the boxes"
    chosen = weights if isinstance(weights, list) else inverse_frequency(boxes)
    if len(chosen) != len(names):
        raise UserError(f"loss.class_weights has {len(chosen)} numbers for {len(names)} classes ({', '.join(names)})")
    console.say(weights_line(names, boxes, chosen, how))
    return replace_setting(config, "loss.class_weights", chosen)


def decide_batch(config: Config, detector: Detector, images: int, processes: Processes, console: Console) -> Config:
    """Decide ``train.batch: auto``, and check the batch against the data and the processes."""
    t = config.train
    if t.batch == "auto":
        loss = build_loss(config.loss, detector.specs)
        own = images // processes.world
        batch, reason = choose_batch(detector, loss, config.imgsz, t.multi_scale, t.precision, own)
        batch = processes.from_main(batch) * processes.world
        console.say(f"train.batch: {batch} ({reason})")
        config = replace_setting(config, "train.batch", batch)
    batch, shares = int(config.train.batch), processes.world * t.accumulate
    if t.multi_scale and detector.fixed_size:
        raise UserError(
            f"train.multi_scale={t.multi_scale:g}, but the head of {config.model.name} is fully connected, so its "
            "input size is fixed: leave it out"
        )
    least, stride = batch // processes.world // t.accumulate, detector.max_stride
    cells = [max(1, round(side * (1 - t.multi_scale) / stride)) for side in config.imgsz]
    if least == 1 and cells == [1, 1] and not t.freeze_bn:
        raise UserError(
            f"one image with a coarsest map of 1x1 gives batch norm nothing to average (imgsz {config.imgsz[0]}x"
            f"{config.imgsz[1]}, batch {batch} in {shares} parts): give a larger imgsz or batch"
        )
    if batch > images and not config.overfit:
        raise UserError(
            f"train.batch is {batch}, but an epoch has only {images} training images: give --batch {images} or less"
        )
    if batch < shares:
        raise UserError(
            f"train.batch is {batch}, but {processes.world} processes x train.accumulate={t.accumulate} need an image "
            f"each: give --batch {shares} or more"
        )
    return config
