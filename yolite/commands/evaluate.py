"""``yolite evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolite.build import build_dataset, build_preprocess, load_split
from yolite.commands.common import check_classes, config_of_weights, print_metric, settings_of_use
from yolite.config import load_config, make_config
from yolite.console import Console
from yolite.data.loader import plain_batches
from yolite.data.pictures import Pictures
from yolite.errors import UserError
from yolite.evaluation.coco import coco_metric, read_results
from yolite.evaluation.evaluate import evaluate, to_json
from yolite.files import check_writable, write_json
from yolite.inference import Inference
from yolite.postprocess import Thresholds
from yolite.processes import join, leave
from yolite.structures import Batch, Detections, Sample
from yolite.weights import choose_device, open_model


def evaluate_weights(
    weights: str, split: str, options: Mapping[str, Any], words: Sequence[str], json: Path | None
) -> None:
    """Run a checkpoint over a split and print its metric.

    Raises:
        UserError: weights or data cannot be read, or do not belong together.
    """
    why = "the weights have their own; data, eval, imgsz and device can be chosen"
    settings = settings_of_use(words, ["data", "eval", "imgsz", "device"], "evaluate --weights", why)
    if json:
        check_writable(json, "--json")
    processes = join()
    console = Console(quiet=not processes.main)
    device = choose_device(weights, make_config({"device": "auto"}, options, settings).device, processes)
    model = open_model(weights, device)
    config = config_of_weights(model.config, options, settings)
    data = load_split(build_dataset(config, console), split, console)
    check_classes(model.names, data.names, weights, config.data.source, console)
    preprocess = build_preprocess(config)
    inference = Inference(model.network, preprocess)
    limits = Thresholds(config.eval.conf, config.eval.iou, config.eval.max_det, best_class=False)
    pictures = Pictures(data.samples, preprocess)
    bad: list[str] = []

    def detect(batch: Batch) -> list[Detections]:
        return inference(batch.images, batch.letterboxes, limits)

    def report(sample: Sample, reason: str) -> None:
        bad.append(f"{sample.path}: {reason}")

    with console.track("evaluating") as progress:
        batches = plain_batches(pictures, config.eval.batch, report, processes.share(range(len(pictures))))
        result, _, reading = evaluate(batches, detect, data.samples, data.names, progress, processes)
    bad = [line for part in processes.gather(bad) for line in part]
    if bad:
        console.warn(f"{len(bad)} images could not be read and count as not detected on (first: {bad[0]})")
    seconds = {**inference.seconds, "decode": reading.get("decode", 0.0)}
    seconds["preprocess"] += reading.get("preprocess", 0.0)
    seconds = dict(zip(seconds, processes.sum(list(seconds.values())), strict=True))
    leave(processes)
    print_metric(result, config, console, f"{weights} on {split}")
    plain = to_json(result, config.eval.conf, config.eval.iou, config.eval.max_det, seconds)
    per_image = ", ".join(f"{name} {1000 * value:.1f}" for name, value in plain["seconds"].items())
    console.say(f"ms an image on {device}: {per_image}")
    if json and processes.main:
        write_json(json, plain)


def evaluate_results(
    results: Path, split: str, options: Mapping[str, Any], words: Sequence[str], json: Path | None
) -> None:
    """Score any tool's COCO results file.

    Raises:
        UserError: the file or the data cannot be read, or do not belong together.
    """
    console = Console()
    if "data" not in options:
        raise UserError("--results needs --data: the truth that the results are scored against")
    why = "nothing is run, the results are scored as they are; only data can be chosen"
    settings_of_use(words, ["data"], "evaluate --results", why)
    if useless := sorted(options.keys() - {"data"}):
        raise UserError(f"evaluate --results has no use for --{'batch' if useless[0] == 'eval' else useless[0]}: {why}")
    if json:
        check_writable(json, "--json")
    config = load_config(None, None, options, words)
    data = load_split(build_dataset(config, console), split, console, need_images=False, need_sizes=False)
    found = read_results(results, data.samples, data.category_ids)
    result = coco_metric(data.samples, found, data.names)
    # the file's own thresholds are unknown: nothing is cut but what COCO cuts, 100 boxes an image
    config = make_config({"eval": {"conf": 0.0, "iou": 1.0, "max_det": 100}})
    print_metric(result, config, console, f"{results} on {split}")
    if json:
        write_json(json, to_json(result, 0.0, 1.0, 100, None))
