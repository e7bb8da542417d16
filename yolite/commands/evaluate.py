"""``yolite evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolite.build import build_preprocess
from yolite.checkpoint import find_weights, load_checkpoint
from yolite.commands.common import check_classes, config_of_weights, settings_of_use
from yolite.commands.findings import findings_files, plain_findings, print_findings, say_report, write_findings
from yolite.commands.story import history_of, tell_results, tell_run
from yolite.config import Config
from yolite.console import Console
from yolite.data.dataset import Split
from yolite.data.loader import plain_batches
from yolite.data.pictures import Pictures
from yolite.errors import UserError
from yolite.evaluation.analysis import analyse
from yolite.evaluation.coco import CocoResult, coco_metric
from yolite.evaluation.evaluate import evaluate
from yolite.evaluation.results import read_results
from yolite.export.runtimes import RUNTIMES
from yolite.files import write_json
from yolite.inference import Inference, Model
from yolite.postprocess import Thresholds
from yolite.processes import Processes, join, leave
from yolite.reading import build_dataset, load_split
from yolite.report.evaluation import write_report
from yolite.settings import load_config, make_config, replace_setting
from yolite.structures import Batch, Detections, Sample
from yolite.weights import check_imgsz, choose_device, open_model

Seconds = dict[str, float]


def evaluate_weights(
    weights: str, split: str, options: Mapping[str, Any], words: Sequence[str], json: Path | None, report: Path | None,
    half: bool = False,
) -> None:  # fmt: skip
    """Run a checkpoint over a split, print its metric and what there is to learn from it.

    Raises:
        UserError: weights or data cannot be read, or do not belong together.
    """
    why = "the weights have their own; data, eval, imgsz and device can be chosen"
    settings = settings_of_use(words, ["data", "eval", "imgsz", "device"], "evaluate --weights", why)
    files = findings_files(json, report)
    if report and Path(weights).suffix in RUNTIMES:
        raise UserError(f"--report tells of the training, which {weights} holds nothing of: give the checkpoint")
    processes = join()
    console = Console(quiet=not processes.main)
    name = make_config({"device": "auto"}, options, settings).device
    model = open_model(weights, choose_device(weights, name, processes), half=half)
    config = replace_setting(config_of_weights(model.config, options, settings), "device", str(model.network.device))
    check_imgsz(weights, model.network, model.preprocess.size, config.imgsz)
    data = load_split(build_dataset(config, console), split, console)
    check_classes(model.names, data.names, weights, config.data.source, console)
    result, detections, seconds = _detect(model, config, data, console, processes)
    leave(processes)
    if not processes.main:
        return
    found = analyse(data.samples, detections, result, data.names, config.eval.beta, config.eval.precision)
    print_findings(found, config, console, f"{weights} on {split}")
    plain = plain_findings(found, data.samples, config, seconds)
    per_image = ", ".join(f"{name} {1000 * value:.1f}" for name, value in plain["seconds"].items())
    console.say(f"ms an image on {config.device}: {per_image}")
    write_findings(files, found, data.samples, detections, data.category_ids, console)
    if json:
        write_json(json, plain)
    if report:
        content = load_checkpoint(find_weights(weights))
        history = history_of(Path(weights), content)
        if not history and "training" in content:
            console.say("no epoch of this run is finished: the report has no curves of the training")
        story = tell_run(f"{weights} on {split}", content, history, [data], config, plain["seconds"])
        say_report(report, write_report(report, story, found, data.samples), console)


def _detect(
    model: Model, config: Config, data: Split, console: Console, processes: Processes
) -> tuple[CocoResult, list[Detections], Seconds]:
    """Detect on a split; return the metric, the detections (on the main process) and the seconds by stage."""
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
        share = processes.share(range(len(pictures)))
        batches = plain_batches(pictures, config.eval.batch, report, share, step=inference.step)
        result, detections, reading = evaluate(batches, detect, data.samples, data.names, progress, processes)
    bad = [line for part in processes.gather(bad) for line in part]
    if bad:
        console.warn(f"{len(bad)} images could not be read and count as not detected on (first: {bad[0]})")
    seconds = {"decode": reading.get("decode", 0.0), **inference.seconds}
    seconds["preprocess"] += reading.get("preprocess", 0.0)
    return result, detections, dict(zip(seconds, processes.sum(list(seconds.values())), strict=True))


def evaluate_results(
    results: Path, split: str, options: Mapping[str, Any], words: Sequence[str], json: Path | None, report: Path | None
) -> None:
    """Score any tool's COCO results file, and say what there is to learn from it.

    Raises:
        UserError: the file or the data cannot be read, or do not belong together.
    """
    console = Console()
    if "data" not in options:
        raise UserError("--results needs --data: the truth that the results are scored against")
    why = "nothing is run, the results are scored as they are; only data, eval.beta and eval.precision can be chosen"
    settings_of_use(words, ["data", "eval.beta", "eval.precision"], "evaluate --results", why)
    if useless := sorted(options.keys() - {"data"}):
        raise UserError(f"evaluate --results has no use for --{'batch' if useless[0] == 'eval' else useless[0]}: {why}")
    files = findings_files(json, report)
    config = load_config(None, None, options, words)
    dataset = build_dataset(config, console)
    data = load_split(dataset, split, console, need_images=False, need_sizes=False)
    if report:
        data = _with_images(dataset.read(split), data)
    detections = read_results(results, data.samples, data.category_ids)
    result = coco_metric(data.samples, detections, data.names)
    found = analyse(data.samples, detections, result, data.names, config.eval.beta, config.eval.precision)
    # the file's own thresholds are unknown: nothing is cut but what COCO cuts, 100 boxes an image
    for name, value in (("conf", 0.0), ("iou", 1.0), ("max_det", 100)):
        config = replace_setting(config, f"eval.{name}", value)
    print_findings(found, config, console, f"{results} on {split}")
    write_findings(files, found, data.samples, None, data.category_ids, console)
    if json:
        write_json(json, plain_findings(found, data.samples, config, None))
    if report:
        say_report(report, write_report(report, tell_results(results, data, config), found, data.samples), console)


def _with_images(read: Split, data: Split) -> Split:
    """Return the split with the image files that are there; what is judged stays as it is."""
    there = {sample.id: sample for sample in read.samples}
    samples = [
        replace(s, path=there[s.id].path, size=there[s.id].size) if s.path is None and s.id in there else s
        for s in data.samples
    ]
    return replace(data, samples=samples)
