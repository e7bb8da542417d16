"""Before the first step: read the data, decide every ``auto`` once, build the network."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

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
    load_splits,
    placeholder_anchors,
)
from yolite.checkpoint import find_weights, load_checkpoint, transfer
from yolite.config import Config, replace_setting, to_plain
from yolite.console import Console
from yolite.data.dataset import Split
from yolite.data.loader import Pictures, choose_workers
from yolite.data.problems import Problem, summarise
from yolite.errors import UserError
from yolite.models.detector import Detector
from yolite.processes import ALONE, Processes
from yolite.structures import Preprocess
from yolite.training.batch import choose_batch
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
    train, *others = load_splits(dataset, ["train"] if config.overfit else ["train", "val"], console)
    if others:
        return train, others[0], config
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


def _cache(pictures: Pictures, role: str, setting: str, console: Console, processes: Processes) -> str:
    """Decide ``data.cache`` and fill the cache; unreadable images are reported and left out."""
    if setting == "auto":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        # every process of this host keeps its own
        setting = "ram" if pictures.cache_bytes <= memory / 4 / processes.local_world else "off"
    if setting == "off":
        console.say(f"{role}: images are read from their files every time (data.cache=off)")
        return setting
    with console.track(f"{role}: decoding images into RAM ({pictures.cache_bytes / 2**20:.0f} MiB)") as progress:
        bad = pictures.fill_cache(progress)
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


def _decide_batch(config: Config, detector: Detector, images: int, processes: Processes, console: Console) -> Config:
    """Decide ``train.batch: auto``, and check the batch against the data and the processes."""
    t = config.train
    if t.batch == "auto":
        batch, reason = choose_batch(detector, config.imgsz, t.multi_scale, t.precision, images // processes.world)
        batch = processes.from_main(batch) * processes.world
        console.say(f"train.batch: {batch} ({reason})")
        config = replace_setting(config, "train.batch", batch)
    batch, shares = int(config.train.batch), processes.world * t.accumulate
    if batch > images and not config.overfit:
        raise UserError(
            f"train.batch is {batch}, but there are only {images} training images: give --batch {images} or less"
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
    device = build_device(config.device)
    if config.train.sync_bn and (device.type == "cpu" or processes.world == 1):
        raise UserError("train.sync_bn needs several processes on GPUs (torch has none for the CPU): leave it out")
    with processes.one_first():
        train_split, val_split, config = _read(config, console)
    preprocess = build_preprocess(config)
    train, val = Pictures(train_split.samples, preprocess), Pictures(val_split.samples, preprocess)
    cache = [_cache(p, role, config.data.cache, console, processes) for p, role in ((train, "train"), (val, "val"))]
    if config.data.cache == "auto":
        config = replace_setting(config, "data.cache", cache[0])
    wh = box_shapes(train)
    if not len(wh):
        raise UserError(f"{train_split.where}: the {len(train)} training images have no usable box: check the labels")
    config = _decide(_decide_anchors(config, wh, console), len(train), train_split.mirror_safe, device, console)
    names, layers = train_split.names, build_layers(config.model)
    detector = build_detector(config, len(names), placeholder_anchors(config.model)).to(device)
    _start_layers(detector, config, layers, resuming, console)
    config = _decide_batch(config, detector, len(train), processes, console)
    config = replace_setting(config, "device", str(device) if processes.world == 1 else device.type)
    _check_agreement(config, processes)
    if config.train.sync_bn:
        detector = torch.nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    labels = torch.cat([s.labels[~s.ignore] for s in train.samples])
    objects = torch.bincount(labels, minlength=len(names)).tolist()
    data = {"train": hash_labels(train), "val": hash_labels(val)}
    return Prepared(config, detector, preprocess, train, val, names, layers, objects, data, fingerprint(data, names))


def _check_agreement(config: Config, processes: Processes) -> None:
    """Raise UserError if another process has decided some ``auto`` differently."""
    mine = to_plain(config)
    for rank, plain in enumerate(processes.gather(mine)):
        if found := differences(mine, plain):
            raise UserError(
                f"processes {processes.rank} and {rank} decided differently ({'; '.join(found)}): give a value"
            )
