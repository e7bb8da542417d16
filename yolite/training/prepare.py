"""Before the first step: read the data, decide every ``auto`` once, build the network."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolite.anchors import AnchorReport, fit_report, kmeans_anchors, split_by_level
from yolite.build import (
    build_dataset,
    build_detector,
    build_device,
    build_layers,
    build_preprocess,
    choose_precision,
    load_split,
    placeholder_anchors,
)
from yolite.checkpoint import find_weights, load_checkpoint, transfer
from yolite.config import Config, absolute_source, replace_setting, to_plain
from yolite.console import Console
from yolite.data.balance import boxes_seen, epoch_size, image_weights
from yolite.data.dataset import Split
from yolite.data.loader import choose_workers
from yolite.data.pictures import Pictures
from yolite.data.problems import Problem, summarise
from yolite.errors import UserError
from yolite.models.detector import Detector
from yolite.paths import free_bytes, user_cache
from yolite.processes import ALONE, Processes
from yolite.structures import Preprocess
from yolite.training.batch import choose_batch
from yolite.training.imbalance import counts_line, inverse_frequency, weights_line
from yolite.training.optim import Layers, freeze
from yolite.training.resume import DataHashes, differences, fingerprint, hash_labels

PICTURES_SHOWN = 12_800
"""``train.epochs: auto`` aims at this many training pictures: some minutes on two processors."""


@dataclass(frozen=True)
class Prepared:
    """All that a `Trainer` needs; ``config`` has no ``auto`` left.

    Attributes:
        layers: How the network's layers may be spoken of.
        objects: Number of training boxes of each class.
        weights: How often an epoch shows each training picture; None: once.
        data: A hash of each image's labels by role and id.
        fingerprint: A hash of all of them and the class names.
    """

    config: Config
    detector: Detector
    preprocess: Preprocess
    train: Pictures
    val: Pictures
    names: list[str]
    layers: Layers
    objects: list[int]
    weights: np.ndarray | None
    data: DataHashes
    fingerprint: str


def box_shapes(pictures: Pictures) -> Tensor:
    """Return the widths and heights [N, 2] of all boxes to be learned, input px."""
    boxes = [
        letterbox.apply(sample.boxes[~sample.ignore])
        for sample, letterbox in zip(pictures.samples, pictures.letterboxes, strict=True)
    ]
    joined = torch.cat(boxes)
    return joined[:, 2:] - joined[:, :2]


def _read(config: Config, console: Console) -> tuple[Split, Split, Config]:
    """Read the roles train and val; in overfit mode both are the first N labelled training images."""
    dataset = build_dataset(config, console)
    train = load_split(dataset, "train", console)
    if not config.overfit:
        return train, load_split(dataset, "val", console), config
    few = [s for s in train.samples if len(s.boxes)][: config.overfit]
    if not few:
        raise UserError(f"--overfit: {train.where} has no labelled image to learn: check the labels")
    console.say(
        f"overfit: training on {len(few)} images without augmentation and judging on the same images; "
        "the AP below says that the pieces work together, nothing about new pictures"
    )
    quiet = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "hflip": 0.0, "vflip": 0.0, "hue": 0.0,
             "saturation": 0.0, "brightness": 0.0}  # fmt: skip
    given = config.augment.model_fields_set  # what was asked for by name stays
    for name, value in quiet.items():
        if name in given:
            continue
        config = replace_setting(config, f"augment.{name}", value)
    return replace(train, samples=few), replace(train, role="val", samples=few), config


def _cache(pictures: Pictures, role: str, config: Config, console: Console, processes: Processes) -> str:
    """Decide ``data.cache`` and fill the cache; unreadable images are reported and left out."""
    folder = Path(config.data.cache_dir) if config.data.cache_dir else user_cache() / "pixels"
    setting, size = config.data.cache, pictures.cache_bytes
    if setting == "auto":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        # every process of this host keeps its own in RAM, but all share a file
        if size <= memory / 4 / processes.local_world:
            setting = "ram"
        else:
            setting = "disk" if size <= free_bytes(folder) / 2 else "off"
    if setting == "off":
        console.say(f"{role}: images are read from their files every time (data.cache=off)")
        return setting
    place = "RAM" if setting == "ram" else str(pictures.cache_file(folder))
    console.say(f"{role}: decoded images, {size / 2**20:.0f} MiB, in {place} (data.cache={setting})")
    with processes.one_first() if setting == "disk" else nullcontext(), console.track(f"{role}: decoding") as progress:
        bad = pictures.fill_cache(progress, None if setting == "ram" else folder)
    problems = [Problem(s.path, 0, "unreadable image", why, "image left out") for s, why in bad if s.path]
    for line in summarise(problems):
        console.warn(f"{role}: {line}")
    if not len(pictures):
        raise UserError(f"no image of the role {role} can be read (first: {problems[0]})")
    return setting


def _decide_anchors(config: Config, wh: Tensor, console: Console) -> Config:
    """Decide ``model.code.anchors`` by k-means on the training boxes, and say how well the anchors fit."""
    code, boxes = config.model.code, len(wh)
    if code.anchors == "auto":
        levels = len(code.strides)
        k = levels * code.anchors_per_level
        if len(wh) < k:
            console.say(f"anchors: {len(wh)} training boxes for {k} anchors: some anchors will be equal")
            wh = wh.repeat(-(-k // len(wh)), 1)
        report = kmeans_anchors(wh, k, seed=config.seed, ratio=config.loss.assign.ratio)
        config = replace_setting(
            config, "model.code.anchors", [[list(a) for a in level] for level in split_by_level(report.anchors, levels)]
        )
        how = "k-means on the training boxes"
    else:
        flat = torch.tensor([anchor for level in code.anchors for anchor in level])
        report = fit_report(wh, flat, config.loss.assign.ratio)
        how = "given"
    console.say(
        f"anchors ({how}): {_shown(report)}; average IoU {report.avg_iou:.3f}, best possible recall "
        f"{report.best_possible_recall:.4f} of {boxes} boxes"
    )
    out_of_reach = round((1 - report.best_possible_recall) * boxes)
    if out_of_reach:
        console.warn(
            f"{out_of_reach} of {boxes} training boxes suit no anchor (a side differs by a factor of "
            f"{config.loss.assign.ratio:g} or more) and cannot be learned: try a larger imgsz, more "
            "model.code.anchors_per_level, or a larger loss.assign.ratio"
        )
    return config


def _shown(report: AnchorReport) -> str:
    return " ".join(f"{w:.0f}x{h:.0f}" for w, h in report.anchors.tolist())


def _decide(config: Config, images: int, mirror_safe: bool, device: torch.device, console: Console) -> Config:
    """Decide every other ``auto`` but the batch, and say so."""
    if config.train.epochs == "auto":
        epochs = min(200, max(12, round(PICTURES_SHOWN / images)))
        console.say(f"train.epochs: {epochs} ({epochs * images} pictures shown)")
        config = replace_setting(config, "train.epochs", epochs)
    if config.augment.hflip == "auto":
        chance = 0.5 if mirror_safe else 0.0
        reason = "the default" if mirror_safe else "the data set says that its classes do not survive mirroring"
        console.say(f"augment.hflip: {chance} ({reason})")
        config = replace_setting(config, "augment.hflip", chance)
    if config.train.precision == "auto":
        precision, reason = choose_precision(device)
        console.say(f"train.precision: {precision} ({reason})")
        config = replace_setting(config, "train.precision", precision)
    if config.data.workers == "auto":
        workers = choose_workers("auto")
        console.say(f"data.workers: {workers} ({os.cpu_count()} processors)")
        config = replace_setting(config, "data.workers", workers)
    return config


def _image_weights(config: Config, train: Pictures, names: list[str], console: Console) -> np.ndarray | None:
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


def _decide_class_weights(config: Config, names: list[str], boxes: list[float], console: Console) -> Config:
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


def _decide_batch(config: Config, detector: Detector, images: int, processes: Processes, console: Console) -> Config:
    """Decide ``train.batch: auto``, and check the batch against the data and the processes."""
    t = config.train
    if t.batch == "auto":
        batch, reason = choose_batch(detector, config.imgsz, t.multi_scale, t.precision, images // processes.world)
        batch = processes.from_main(batch) * processes.world
        console.say(f"train.batch: {batch} ({reason})")
        config = replace_setting(config, "train.batch", batch)
    batch, shares = int(config.train.batch), processes.world * t.accumulate
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


def _start_layers(detector: Detector, config: Config, layers: Layers, resuming: bool, console: Console) -> None:
    """Take over weights and freeze what is not to learn."""
    t = config.train
    if config.weights and not resuming:
        _start_weights(detector, config.weights, console)
    layers.check(list(t.lr_factors), [name for name, _ in detector.named_parameters()], "train.lr_factors")
    frozen = freeze(detector, layers, t.transfer, t.freeze)
    if frozen:
        console.say(f"frozen (train.transfer={t.transfer}, train.freeze): {frozen} tensors do not learn")
        if not config.weights:
            console.warn("layers are frozen but there is no --weights: they stay as they were drawn at random")


def _start_weights(detector: Detector, weights: str, console: Console) -> None:
    """Copy the tensors of a checkpoint that fit, and list what is kept and what is newly drawn."""
    kept, new = transfer(detector, load_checkpoint(find_weights(weights)))
    if not kept:
        raise UserError(f"no tensor of {weights} fits this model: leave --model out to take the checkpoint's own")
    layers = sorted({name.rpartition(".")[0] for name in new})
    remade = f"; newly drawn: {', '.join(layers)}" if layers else ""
    console.say(f"weights from {weights}: {len(kept)} of {len(kept) + len(new)} tensors kept{remade}")


def prepare(config: Config, console: Console, processes: Processes = ALONE, resuming: bool = False) -> Prepared:
    """Read the data, decide what is ``auto``, build the network.

    Args:
        config: As asked for, or, when resuming, as stored in the run.
        console: Where decisions are said.
        processes: Which process of how many this is.
        resuming: Weights will be restored: leave ``config.weights`` alone.

    Raises:
        UserError: no data, no labels, a batch larger than the data, a device that is not there.
    """
    device = build_device(config.device, processes)
    if config.train.sync_bn and (device.type == "cpu" or processes.world == 1):
        raise UserError("train.sync_bn needs several processes on GPUs (torch has none for the CPU): leave it out")
    with processes.one_first():
        train_split, val_split, config = _read(config, console)
    config = replace_setting(config, "data.source", absolute_source(config.data.source))
    preprocess = build_preprocess(config)
    train, val = Pictures(train_split.samples, preprocess), Pictures(val_split.samples, preprocess)
    cache = [_cache(p, role, config, console, processes) for p, role in ((train, "train"), (val, "val"))]
    if config.data.cache == "auto":
        config = replace_setting(config, "data.cache", cache[0])
    wh = box_shapes(train)
    if not len(wh):
        raise UserError(f"{train_split.where}: the {len(train)} training images have no usable box: check the labels")
    if not any(len(s.boxes[~s.ignore]) for s in val.samples):
        console.warn(f"{val_split.where}: the validation images have no box: no AP can be measured (-1)")
    names, layers = train_split.names, build_layers(config.model)
    weights = _image_weights(config, train, names, console)
    shown = len(train) if weights is None else epoch_size(weights)
    config = _decide(_decide_anchors(config, wh, console), shown, train_split.mirror_safe, device, console)
    config = _decide_class_weights(config, names, boxes_seen(train.samples, len(names), weights), console)
    detector = build_detector(config, len(names), placeholder_anchors(config.model)).to(device)
    _start_layers(detector, config, layers, resuming, console)
    config = _decide_batch(config, detector, shown, processes, console)
    config = replace_setting(config, "device", str(device) if processes.world == 1 else device.type)
    _check_agreement(config, processes)
    if config.train.sync_bn:
        detector = torch.nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    labels = torch.cat([s.labels[~s.ignore] for s in train.samples])
    objects = torch.bincount(labels, minlength=len(names)).tolist()
    data = {"train": hash_labels(train), "val": hash_labels(val)}
    return Prepared(config, detector, preprocess, train, val, names, layers, objects, weights, data,
                    fingerprint(data, names))  # fmt: skip


def _check_agreement(config: Config, processes: Processes) -> None:
    """Raise UserError if another process has decided some ``auto`` differently."""
    mine = to_plain(config)
    for rank, plain in enumerate(processes.gather(mine)):
        if found := differences(mine, plain):
            raise UserError(
                f"processes {processes.rank} and {rank} decided differently ({'; '.join(found)}): give a value"
            )
