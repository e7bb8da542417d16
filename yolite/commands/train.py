"""``yolite train``."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch

from yolite.build import fitting_loss
from yolite.charts import plot_curves, plot_gradients
from yolite.checkpoint import find_weights, load_checkpoint, restore_specs
from yolite.commands.findings import FindingsFiles, plain_findings, print_findings, say_report, write_findings
from yolite.commands.story import tell_run
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.devices import build_device, keep_memory
from yolite.errors import UserError, require
from yolite.evaluation.analysis import Analysis, analyse
from yolite.files import check_folder, read_json
from yolite.paths import free_run_folder
from yolite.predictor import Predictor
from yolite.processes import ALONE, Processes, join, leave
from yolite.report.evaluation import write_report
from yolite.settings import load_config, make_config, merge, parse_words, read_config_file
from yolite.training.place import Place
from yolite.training.prepare import Prepared, prepare
from yolite.training.resume import DataHashes, accepted_settings, check_data
from yolite.training.run import RunFolder
from yolite.training.tensorboard import TensorBoard
from yolite.training.trainer import Broken, Interrupted, Listener, Trainer, on_signal
from yolite.training.watch import memory_peak

PICTURES = 12
"""Annotated validation pictures at the end of a run."""


class BrokenDown(UserError):
    """The loss is no number any more: these settings do not train."""


def train_run(
    model: str | None, file: Path | None, options: Mapping[str, Any], words: Sequence[str], out: Path | None
) -> None:
    """Start a new run; a process that torchrun has started again goes on with the run it finds.

    Raises:
        UserError: anything wrong with what was asked for.
    """
    config = configure(model, file, options, words)
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) and out is None:
        raise UserError("torchrun --max-restarts needs --out RUN: a process that is started again finds its run there")
    processes = join()
    if out is not None and processes.restarts and processes.from_main(RunFolder(out).last.is_file()):
        resume_run(out, {k: v for k, v in options.items() if k != "weights"}, words)
        return
    build_device(config.device, processes)
    run = RunFolder(processes.from_main(out or free_run_folder(Path("runs"), config.model.name)))
    run.refuse_if_taken()
    check_folder(run.path, "--out")
    start(config, run, Console(quiet=not processes.main), processes=processes)
    leave(processes)


def configure(model: str | None, file: Path | None, options: Mapping[str, Any], words: Sequence[str]) -> Config:
    """Return what was asked for; without --model the checkpoint's own network is trained on, its anchors included.

    Raises:
        UserError: anything wrong with it, or it needs a package that is not installed.
    """
    from_file = read_config_file(file) if file else {}
    weights = options.get("weights") or parse_words(words).get("weights") or from_file.get("weights")
    named = from_file.get("model", {})
    if weights and model is None and not (isinstance(named, Mapping) and ("name" in named or "backbone" in named)):
        content = load_checkpoint(find_weights(weights))
        stored = content["config"]
        base = {key: stored[key] for key in ("imgsz", "model", "preprocess")}
        base["loss"] = fitting_loss(restore_specs(content))
        config = make_config(base, from_file, options, parse_words(words))
    else:
        config = load_config(model, file, options, words)
    _check_anchors(config, merge(from_file, parse_words(words)))
    if config.train.tensorboard:
        require("tensorboard", "tensorboard", "train.tensorboard")
    return config


def _check_anchors(config: Config, given: Mapping[str, Any]) -> None:
    """Refuse a number of anchors a level that anchors which are given already would overrule.

    Raises:
        UserError: they differ.
    """
    code = config.model.code
    typed = "anchors_per_level" in given.get("model", {}).get("code", {})
    if typed and code.anchors != "auto" and any(len(level) != code.anchors_per_level for level in code.anchors):
        raise UserError(f"model.code.anchors_per_level={code.anchors_per_level} has no effect: the anchors are given, "
                        f"{len(code.anchors[0])} a level; add model.code.anchors=auto to find new ones")  # fmt: skip


def start(
    config: Config, run: RunFolder, console: Console, listeners: Sequence[Listener] = (),
    processes: Processes = ALONE,
) -> Trainer:  # fmt: skip
    """Train from the beginning to the end, in a folder of its own.

    Args:
        config: What was asked for; every ``auto`` is decided here.
        run: A folder that holds no run.
        console: Where words go.
        listeners: Called after each epoch.
        processes: Which process of how many this is.

    Raises:
        UserError: anything wrong with what was asked for; `BrokenDown` if the loss is no number any more.
        SystemExit: SIGINT or SIGTERM came; the run has been saved.
    """
    # The folder is made when everything that was asked for has been found to make sense.
    prepared = prepare(config, console, processes)
    if processes.main:
        run.create()
    with _alone(run, console, processes):
        console.say(f"run folder: {run.path}")
        trainer = _trainer(prepared, run, console, processes)
        trainer.listeners += listeners
        _describe(prepared, run, processes)
        _go(trainer)
    return trainer


@contextmanager
def _alone(run: RunFolder, console: Console, processes: Processes) -> Iterator[None]:
    """Keep other programs out of the run's folder, and log there what is said; the main process does it for all."""
    with run.locked() if processes.main else nullcontext():
        if processes.main:
            console.log_to(run.log)
        yield


def _describe(prepared: Prepared, run: RunFolder, processes: Processes) -> None:
    """Write down what is trained, and on what."""
    if processes.main:
        run.write_config(to_plain(prepared.config))
        run.write_data(prepared.data)


def resume_run(folder: Path, options: Mapping[str, Any], words: Sequence[str], accept: Sequence[str] = ()) -> None:
    """Go on with a run from its last checkpoint.

    Args:
        folder: The run.
        options: Settings as asked for now, by options.
        words: The same, by ``key=value`` words.
        accept: Settings that may differ from the run's own; ``data``: the data set may have changed.

    Raises:
        UserError: there is nothing to resume, or the settings or the data are not those of the run.
    """
    if folder.suffix == ".ckpt" and folder.is_file():
        folder = folder.parent
    run, processes = RunFolder(folder), join()
    # other hosts may not see the folder: what counts is what the main process finds there
    content, then, results = processes.from_main(_stored(run) if processes.main else ({}, {}, False))
    stored = to_plain(make_config(content["config"]))
    config, changed = accepted_settings(folder, stored, merge(options, parse_words(words)), accept)
    console = Console(quiet=not processes.main)
    place = Place.from_plain(content["training"]["place"])
    if results and place.finished(int(config.train.epochs), config.train.patience):
        console.say(f"{folder} is finished: {place.epoch} epochs, results in {run.results}")
        return
    with _alone(run, console, processes):
        if (before := content["training"].get("processes", 1)) != processes.world:
            console.warn(
                f"trained by {before} processes before, by {processes.world} from here on: batch "
                "norm sees other shares of a batch, so the end is not that of a run that was not stopped"
            )
        for line in changed.values():
            console.warn(f"accepted, from here on: {line}")
        prepared = prepare(config, console, processes, resuming=True)
        trainer = _trainer(prepared, run, console, processes)
        _restore(trainer, content, folder)
        if prepared.fingerprint != content["training"].get("fingerprint"):
            names = content["names"], prepared.names
            line = check_data(folder, then, prepared.data, names, accept)
            console.warn(f"accepted, from here on: {line}")
            changed = {**changed, "data": line}
        _count_from_here(trainer, changed)
        if processes.main:
            _describe(prepared, run, processes)
            run.results.unlink(missing_ok=True)
        console.say(f"resumed at epoch {trainer.place.epoch + 1}, step {trainer.place.step}")
        _go(trainer)
    leave(processes)


def _count_from_here(trainer: Trainer, changed: Collection[str]) -> None:
    """Let what was accepted count from here on, and save it."""
    place = trainer.place
    if "data" in changed:
        place.best = (-math.inf, place.epoch)  # another measure: the search for the best starts anew
    if "train.lr" in changed:
        place.lr_scale, place.strikes = 1.0, 0
    if "data" in changed or "train.batch" in changed:
        place.restart_epoch()  # its steps are others now
    trainer.save()  # metrics.jsonl is whole again too, if the last write was cut off


def _stored(run: RunFolder) -> tuple[dict[str, Any], DataHashes, bool]:
    """Read what a run goes on from: its checkpoint, what its data was, and whether it has its final results.

    Raises:
        UserError: there is none.
    """
    if not run.last.is_file():
        raise UserError(f"--resume {run.path}: there is no last.ckpt to go on from: give a run folder")
    content = load_checkpoint(run.last)
    if "training" not in content:
        raise UserError(f"--resume {run.path}: last.ckpt holds weights alone, no training state")
    try:
        Place.from_plain(content["training"]["place"])
    except (KeyError, TypeError, ValueError):
        raise _not_whole(run.path) from None
    return content, read_json(run.data) if run.data.is_file() else {}, run.results.is_file()


def _not_whole(folder: Path) -> UserError:
    return UserError(
        f"--resume {folder}: the training state in last.ckpt is not whole or not of this version: start a new run with "
        f"--weights {folder}"
    )


def _restore(trainer: Trainer, content: dict[str, Any], folder: Path) -> None:
    """Take over a checkpoint's state, or raise UserError where it does not fit."""
    try:
        trainer.restore(content)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise _not_whole(folder) from None


def _trainer(prepared: Prepared, run: RunFolder, console: Console, processes: Processes) -> Trainer:
    """Build the trainer and say what is about to happen."""
    trainer = Trainer(prepared, run, console, processes)
    if prepared.config.train.tensorboard:
        trainer.listeners.append(TensorBoard(run.path / "tensorboard", prepared.val.samples, prepared.names))
    t, config = prepared.config.train, prepared.config
    parameters = sum(p.numel() for p in prepared.detector.parameters())
    console.say(
        f"{config.model.name}: {parameters / 1e6:.2f} M parameters, input {config.imgsz[0]}x{config.imgsz[1]}, "
        f"{t.epochs} epochs x {trainer.loader.steps} steps of {t.batch} images, {t.optimizer}, "
        f"peak learning rate {t.lr}"
    )
    shared = f"shared by {processes.world} processes" if processes.world > 1 else ""
    parts = f"computed in {t.accumulate} parts" if t.accumulate > 1 else ""
    if shared or parts:
        how = " and ".join(filter(None, (shared, parts)))
        console.say(
            f"a batch of {t.batch} images is {how}; the learning rate {t.lr} is that of the whole batch and not scaled"
        )
    return trainer


def _stop(number: int) -> NoReturn:
    """Answer a signal when everything is saved, and what follows can be done again."""
    raise Interrupted(128 + number)


def _go(trainer: Trainer) -> None:
    """Train to the end, then write results, curves and pictures and print the summary."""
    run, console = trainer.run, trainer.console
    if trainer.device.type == "cpu":
        keep_memory()
    try:
        trainer.train()
        with on_signal(_stop):
            _finish(trainer)
    except Interrupted as stop:
        world = trainer.processes.world
        command = f"torchrun --nproc-per-node {world} tools/train.py" if world > 1 else "yolite train"
        console.say(f"stopped by a signal; saved. Go on with: {command} --resume {run.path}")
        raise SystemExit(stop.code) from None
    except Broken as error:
        raise BrokenDown(
            f"training broke down in {error}; {run.last} holds the state before: go on from it with a lower rate "
            "(--resume RUN train.lr=... --accept train.lr), or start a new run with a lower train.lr or "
            "train.precision=fp32"
        ) from None


def _finish(trainer: Trainer) -> None:
    """Judge best.ckpt once more, with the weights as they lie on disk, and leave everything to look at."""
    run, console, config, place = trainer.run, trainer.console, trainer.config, trainer.place
    content = load_checkpoint(find_weights(run.path)) if trainer.processes.main else {}
    if content:
        trainer.ema.restore(content["ema"])
    started = time.monotonic()
    result, detections, _, seconds = trainer.validate()
    if not trainer.processes.main:
        return
    samples = trainer.val.samples
    found = analyse(samples, detections, result, trainer.names, config.eval.beta, config.eval.precision)
    plain = plain_findings(found, samples, config, seconds)
    plot_curves(run.path / "curves.png", place.history)
    if trainer.gradients.rows:
        plot_gradients(run.path / "gradients.png", trainer.gradients.rows)
    predictor = Predictor(run.path, device=str(trainer.device))
    shown = [s.path for s in trainer.val.samples[:PICTURES] if s.path is not None]
    for picture in predictor.predict(shown):
        if picture.image is not None:
            picture.save(run.path / "pictures" / f"{Path(picture.source).stem}.jpg")
    run.write_results({**plain, "best_epoch": place.best[1], "train_seconds": round(place.seconds, 1)})
    print_findings(found, config, console, f"best.ckpt (epoch {place.best[1]})")
    ids = trainer.prepared.splits[1].category_ids
    write_findings(FindingsFiles(run.worst, run.detections), found, samples, detections, ids, console)
    _report(trainer, content, found, plain["seconds"])
    where = "the training images themselves (overfit)" if config.overfit else "validation"
    console.say(
        f"AP {result.numbers['AP']:.3f}, AP50 {result.numbers['AP50']:.3f} on {where}; trained "
        f"{place.seconds:.0f} s, judged {time.monotonic() - started:.0f} s"
    )
    console.say(_costs(trainer))
    console.say(f"{run.best}, {run.results}, {run.path / 'curves.png'}, {run.path / 'pictures'}")


def _report(trainer: Trainer, content: dict[str, Any], found: Analysis, seconds: dict[str, float]) -> None:
    """Put everything about the run on one page."""
    run, splits = trainer.run, list(trainer.prepared.splits)
    where = "training images (overfit)" if trainer.config.overfit else "validation"
    content["training"]["place"] |= trainer.place.to_plain()  # best.ckpt knows nothing of the epochs after it
    story = tell_run(f"{run.path.name} on {where}", content, trainer.place.history, splits, trainer.config, seconds)
    say_report(run.report, write_report(run.report, story, found, trainer.val.samples), trainer.console)


def _costs(trainer: Trainer) -> str:
    """Say what the run took: memory, and time spent waiting for data."""
    waited = sum(row["wait_seconds"] for row in trainer.place.history)
    share = waited / max(trainer.place.seconds, 1e-9)
    gpu = ""
    if trainer.device.type == "cuda":
        gpu = f", {torch.cuda.max_memory_allocated(trainer.device) / 2**30:.1f} GiB on the GPU"
    return (
        f"peak memory {memory_peak() / 2**30:.1f} GiB{gpu}; {share:.0%} of the training time went by waiting for data"
    )
