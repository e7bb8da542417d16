"""``yolite explain``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from yolite.build import build_loss, fitting_loss
from yolite.checkpoint import find_weights, load_checkpoint, restore_detector, restore_preprocess
from yolite.commands.common import check_classes, config_of_weights, read_imgsz, settings_of_use
from yolite.config import Config, LossConfig
from yolite.console import Console
from yolite.data.images import ImageError, read_image
from yolite.defaults import CONF, IOU, MAX_DET
from yolite.errors import UserError
from yolite.explain.batch import write_batch_page
from yolite.explain.formula import read_cell
from yolite.explain.page import Explained, write_picture_page
from yolite.explain.trace import Trace, follow
from yolite.explain.truth import read_truth
from yolite.files import check_folder
from yolite.inference import Inference, TorchNetwork
from yolite.paths import free_run_folder
from yolite.postprocess import Thresholds
from yolite.reading import build_dataset, load_split
from yolite.settings import make_config, replace_setting
from yolite.sources import Moving, require_items
from yolite.structures import Sample, Targets
from yolite.training.loss import DetectionLoss
from yolite.training.prepare import first_batches

LIMITS = Thresholds(CONF, IOU, MAX_DET, best_class=True)
"""Those of `detect`, so that both find the same."""


def explain(
    images: Sequence[str], weights: str, options: Mapping[str, Any], out: Path | None, cell: str | None, batch: bool
) -> None:
    """Write the page of each picture, or of the first training batch.

    Args:
        images: As typed, ``key=value`` words among them.
        weights: A checkpoint or run folder.
        options: --data, nested.
        out: Where pages and pictures go; None: a new folder in runs/.
        cell: --cell.
        batch: --batch.

    Raises:
        UserError: anything wrong with what was asked for.
    """
    words = [word for word in images if re.fullmatch(r"[a-z_.]+=.*", word) and not Path(word).exists()]
    sources = [word for word in images if word not in words]
    useful = ["imgsz", "data", *(["augment", "train.batch", "seed"] if batch else [])]
    settings = settings_of_use(words, useful, "explain", "everything else comes from the weights")
    numbers = _cell_numbers(cell)
    if batch and (sources or cell):
        raise UserError("explain --batch shows a batch of the training pictures: leave IMAGE and --cell out")
    if not batch and not sources:
        raise UserError("explain needs IMAGE, or --batch for a batch of the training pictures")
    paths = _pictures_among(sources) if sources else []
    folder = out or free_run_folder(Path("runs"), "explain")
    check_folder(folder, "--out")
    content = load_checkpoint(find_weights(weights))
    config = replace_setting(config_of_weights(content["config"], options, settings), "device", "cpu")
    preprocess = restore_preprocess(content)
    if size := read_imgsz(settings.get("imgsz")):
        preprocess = replace(preprocess, size=size)
    inference = Inference(TorchNetwork(restore_detector(content), torch.device("cpu"), alone=True), preprocess)
    loss = build_loss(_loss_settings(content, config, inference), inference.detector.specs)
    console = Console()
    if batch:
        _explain_batch(folder, weights, content["names"], config, inference, loss, console)
        return
    labels = _labels(config, weights, content["names"], console) if "data" in options or "data" in settings else None
    _explain_pictures(folder, paths, weights, content["names"], inference, loss, labels, numbers, console)


def _pictures_among(sources: Sequence[str]) -> list[Path]:
    """Return the image files that the sources name.

    Raises:
        UserError: a source does not exist, or is no picture.
    """
    paths = []
    for item in require_items(sources):
        if isinstance(item, Moving) or not isinstance(item.content, Path):
            raise UserError(f"explain shows single pictures, and {item.source} is none: give image files")
        paths.append(item.content)
    return paths


def _cell_numbers(text: str | None) -> list[int] | None:
    """Read --cell.

    Raises:
        UserError: not three or four whole numbers.
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+){2,3}", text):
        raise UserError(f"--cell {text!r}: give LEVEL,ROW,COLUMN or LEVEL,ROW,COLUMN,ANCHOR, whole numbers from 0")
    return [int(part) for part in text.split(",")]


def _loss_settings(content: Mapping[str, Any], config: Config, inference: Inference) -> LossConfig:
    """Return the loss that the weights were trained with; of an import the one that it would be fine-tuned with."""
    if "training" in content:
        return config.loss
    return make_config({"loss": fitting_loss(inference.detector.specs)}).loss


def _labels(config: Config, weights: str, names: list[str], console: Console) -> dict[Path, Sample]:
    """Return the labelled pictures of a data set, all its roles, by file."""
    dataset = build_dataset(config, console)
    found: dict[Path, Sample] = {}
    for role in dataset.roles:
        split = dataset.read(role)
        if not found:
            check_classes(names, split.names, weights, dataset.where, console)
        found |= {sample.path.resolve(): sample for sample in split.samples if sample.path}
    return found


def _explain_pictures(
    folder: Path, paths: Sequence[Path], weights: str, names: list[str], inference: Inference, loss: DetectionLoss,
    labels: Mapping[Path, Sample] | None, numbers: Sequence[int] | None, console: Console,
) -> None:  # fmt: skip
    """Write one page a picture; one that cannot be read is said and left out.

    Raises:
        UserError: not one of them can be read, or there is no such cell.
    """
    bad: list[str] = []
    pages: set[Path] = set()
    for path in paths:
        try:
            image = read_image(path)
        except ImageError as error:
            bad.append(f"{path}: {error}")
            continue
        trace = follow(inference, image, LIMITS)
        place = trace.place(numbers) if numbers else trace.likeliest()
        sample = labels.get(path.resolve()) if labels is not None else None
        why = "No labels were given: --data D brings the true boxes of its pictures."
        if labels is not None and sample is None:
            why = "This picture is not in the data set given by --data: its true boxes are not known."
            console.warn(f"{path} is not in the data: explained without its true boxes")
        truth = read_truth(trace.maps, trace.specs, _targets(sample, trace), loss) if sample else None
        if not len(trace.found):
            console.say(f"{path}: nothing scores above {LIMITS.conf:g}: the highest score is explained")
        page = _free(folder / f"{path.stem}.html", pages)
        told = Explained(path.name, Path(weights).name, trace, read_cell(trace, place), truth, loss, why)
        size = write_picture_page(page, told, inference, names)
        console.say(
            f"{path}: {len(trace.found)} boxes; {page} ({size / 2**20:.1f} MB), pictures in {page.with_suffix('')}"
        )
    if len(bad) == len(paths):
        raise UserError(f"none of the {len(paths)} files could be read as an image (first: {bad[0]})")
    for line in bad:
        console.warn(f"{line}; left out")


def _free(page: Path, taken: set[Path]) -> Path:
    """Return the page's name, numbered where an earlier picture has it."""
    number, free = 1, page
    while free in taken:
        number += 1
        free = page.with_stem(f"{page.stem}-{number}")
    taken.add(free)
    return free


def _targets(sample: Sample, trace: Trace) -> Targets:
    """Return the boxes of one picture as targets, input px."""
    boxes = trace.letterbox.apply(sample.boxes)
    return Targets(boxes, sample.labels, torch.zeros(len(boxes), dtype=torch.int64), sample.ignore)


def _explain_batch(
    folder: Path, weights: str, names: list[str], config: Config, inference: Inference, loss: DetectionLoss,
    console: Console,
) -> None:  # fmt: skip
    """Write the page of the first batch that training would see."""
    split = load_split(build_dataset(config, console), "train", console)
    check_classes(names, split.names, weights, config.data.source, console)
    loader, config = first_batches(split, config, 1, console)
    batch = next(loader.epoch(0))
    maps = inference.forward(batch.images)
    truth = read_truth(maps, inference.detector.specs, batch.targets, loss)
    page = folder / "batch.html"
    steps = [f"{key} {value:g}" for key, value in config.augment.model_dump().items()
             if isinstance(value, (int, float)) and value]  # fmt: skip
    title = f"The first batch for {Path(weights).name}"
    written = write_batch_page(page, batch, truth, inference.detector.specs, loss, names, title, steps)
    console.say(
        f"{len(batch.indices)} pictures, {len(truth.targets.boxes)} objects, {truth.loss.positives} positives, "
        f"{len(truth.orphans)} objects without a positive; {page}, {written / 2**20:.1f} MB"
    )
