"""Before the first step: read the data, have every ``auto`` decided, build the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from yolite.build import (
    build_augment,
    build_detector,
    build_layers,
    build_loss,
    build_preprocess,
    build_specs,
    placeholder_anchors,
)
from yolite.checkpoint import find_weights, load_checkpoint, transfer
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.data.balance import boxes_seen, epoch_size
from yolite.data.dataset import Split
from yolite.data.loader import TrainLoader
from yolite.data.pictures import Pictures
from yolite.devices import build_device
from yolite.errors import UserError
from yolite.models.detector import Detector
from yolite.processes import ALONE, Processes
from yolite.reading import build_dataset, load_splits
from yolite.settings import absolute_source, replace_setting
from yolite.structures import Preprocess, Targets
from yolite.training.batch import USUAL
from yolite.training.decide import (
    decide_anchors,
    decide_batch,
    decide_cache,
    decide_class_weights,
    decide_hflip,
    decide_image_weights,
    decide_rest,
)
from yolite.training.optim import Layers, freeze
from yolite.training.pretrained import find_pretrained, load_pretrained
from yolite.training.resume import DataHashes, differences, fingerprint, hash_labels


@dataclass(frozen=True)
class Prepared:
    """All that a `Trainer` needs; ``config`` has no ``auto`` left.

    Attributes:
        layers: How the network's layers may be spoken of.
        objects: Number of training boxes of each class.
        weights: How often an epoch shows each training picture; None: once.
        splits: What was read for the roles train and val.
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
    splits: tuple[Split, Split]
    data: DataHashes
    fingerprint: str


def all_targets(pictures: Pictures) -> Targets:
    """Return the boxes of all pictures, input px; ``image`` is the picture's place."""
    pairs = list(zip(pictures.samples, pictures.letterboxes, strict=True))
    return Targets(
        torch.cat([letterbox.apply(sample.boxes) for sample, letterbox in pairs]),
        torch.cat([sample.labels for sample, _ in pairs]),
        torch.cat([torch.full((len(sample.boxes),), place) for place, (sample, _) in enumerate(pairs)]),
        torch.cat([sample.ignore for sample, _ in pairs]),
    )


def box_shapes(pictures: Pictures) -> Tensor:
    """Return the widths and heights [N, 2] of all boxes to be learned, input px."""
    targets = all_targets(pictures)
    boxes = targets[~targets.ignore].boxes
    return boxes[:, 2:] - boxes[:, :2]


def _read(config: Config, console: Console) -> tuple[Split, Split, Config]:
    """Read the roles train and val; in overfit mode both are the first N labelled training images."""
    dataset = build_dataset(config, console)
    train, *others = load_splits(dataset, ["train"] if config.overfit else ["train", "val"], console)
    if others:
        if dataset.entries["train"] == dataset.entries["val"]:
            console.warn(
                "train and val are the same pictures, so the AP says how well they were learned by heart, nothing "
                "about others: divide them (`yolite convert --val-share 0.2`)"
            )
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


def _start_layers(detector: Detector, config: Config, layers: Layers, resuming: bool, console: Console) -> None:
    """Take over weights and freeze what is not to learn."""
    t = config.train
    pretrained = config.model.pretrained
    if config.weights and not resuming:
        _start_weights(detector, config.weights, console)
        if pretrained:
            console.say(f"model.pretrained={pretrained} is not read: --weights gives the weights of the backbone, too")
    elif pretrained and not resuming:
        files = find_pretrained(config.model.backbone, pretrained)
        load_pretrained(detector, files, build_preprocess(config), console)
    layers.check(list(t.lr_factors), [name for name, _ in detector.named_parameters()], "train.lr_factors")
    frozen = freeze(detector, layers, t.transfer, t.freeze)
    if frozen:
        console.say(f"frozen (train.transfer={t.transfer}, train.freeze): {frozen} tensors do not learn")
        if not config.weights and not pretrained:
            console.warn("layers are frozen but there is no --weights: they stay as they were drawn at random")


def _start_weights(detector: Detector, weights: str, console: Console) -> None:
    """Copy the tensors of a checkpoint that fit, and list what is kept and what is newly drawn."""
    kept, new = transfer(detector, load_checkpoint(find_weights(weights)))
    state = detector.state_dict()
    if not any(state[name].ndim for name in kept):  # BN's counts of batches fit everything
        raise UserError(f"no tensor of {weights} fits this model: leave --model out to take the checkpoint's own")
    parts = dict.fromkeys(name.rpartition(".")[0].removeprefix("graph.") for name in new)
    names = [record.name for record in detector.graph.records]
    called = [f"{part} ({name})" if (name := names[int(part.split(".")[1])]) else part for part in parts]
    remade = f"; newly drawn: {', '.join(called)}" if called else ""
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
    if config.model.pretrained and not config.weights and not resuming:
        find_pretrained(config.model.backbone, config.model.pretrained)  # said before the data is read
    build_loss(config.loss, build_specs(config.model, 1, placeholder_anchors(config.model)))  # refused before any work
    if config.train.sync_bn and (device.type == "cpu" or processes.world == 1):
        raise UserError("train.sync_bn needs several processes on GPUs (torch has none for the CPU): leave it out")
    with processes.one_first():
        train_split, val_split, config = _read(config, console)
    config = replace_setting(config, "data.source", absolute_source(config.data.source))
    preprocess = build_preprocess(config)
    train, val = Pictures(train_split.samples, preprocess), Pictures(val_split.samples, preprocess)
    cache = [decide_cache(p, role, config, console, processes) for p, role in ((train, "train"), (val, "val"))]
    if config.data.cache == "auto":
        config = replace_setting(config, "data.cache", cache[0])
    targets = all_targets(train)
    if not (~targets.ignore).any():
        raise UserError(f"{train_split.where}: the {len(train)} training images have no usable box: check the labels")
    if not any(len(s.boxes[~s.ignore]) for s in val.samples):
        console.warn(f"{val_split.where}: the validation images have no box: no AP can be measured (-1)")
    names, layers = train_split.names, build_layers(config.model)
    weights = decide_image_weights(config, train, names, console)
    shown = len(train) if weights is None else epoch_size(weights)
    config = decide_rest(
        decide_anchors(config, targets, console), shown, train_split.mirror_safe, device, processes, console
    )
    config = decide_class_weights(config, names, boxes_seen(train.samples, len(names), weights), console)
    detector = build_detector(config, len(names), placeholder_anchors(config.model)).to(device)
    _start_layers(detector, config, layers, resuming, console)
    config = decide_batch(config, detector, shown, processes, console)
    config = replace_setting(config, "device", str(device) if processes.world == 1 else device.type)
    _check_agreement(config, processes)
    if config.train.sync_bn:
        detector = torch.nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    labels = torch.cat([s.labels[~s.ignore] for s in train.samples])
    objects = torch.bincount(labels, minlength=len(names)).tolist()
    data = {"train": hash_labels(train), "val": hash_labels(val)}
    splits = replace(train_split, samples=train.samples), replace(val_split, samples=val.samples)
    return Prepared(config, detector, preprocess, train, val, names, layers, objects, weights, splits, data,
                    fingerprint(data, names))  # fmt: skip


def first_batches(split: Split, config: Config, mosaic_epochs: int, console: Console) -> tuple[TrainLoader, Config]:
    """Return the batches that training would see, made in this process, and the config with what they need decided.

    Args:
        split: The training pictures.
        config: As typed, or as a run left it.
        mosaic_epochs: Epochs before mosaic is closed.
        console: Is told what training would say of the counts.

    Raises:
        UserError: there is no picture, or the settings of `yolite.data.balance` do not fit.
    """
    split.require_images()
    pictures = Pictures(split.samples, build_preprocess(config))
    weights = decide_image_weights(config, pictures, split.names, console)
    config = decide_hflip(config, split.mirror_safe, console)
    if any(boxes := boxes_seen(split.samples, len(split.names), weights)):
        decide_class_weights(config, split.names, boxes, console)
    shown = len(pictures) if weights is None else epoch_size(weights)
    batch = min(shown, USUAL if config.train.batch == "auto" else config.train.batch)
    augment = build_augment(config)
    return TrainLoader(pictures, augment, batch, config.seed, mosaic_epochs, workers=0, weights=weights), config


def _check_agreement(config: Config, processes: Processes) -> None:
    """Raise UserError if another process has decided some ``auto`` differently."""
    mine = to_plain(config)
    for rank, plain in enumerate(processes.gather(mine)):
        if found := differences(mine, plain):
            raise UserError(
                f"processes {processes.rank} and {rank} decided differently ({'; '.join(found)}): give a value"
            )
