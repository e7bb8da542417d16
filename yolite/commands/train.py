"""``yolite train``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolite.build import build_device
from yolite.checkpoint import find_weights, load_checkpoint
from yolite.commands.common import print_metric
from yolite.config import Config, load_config, make_config, merge, parse_words, to_plain
from yolite.console import Console
from yolite.draw import plot_curves
from yolite.errors import UserError
from yolite.evaluation.evaluate import to_json
from yolite.paths import free_run_folder
from yolite.predictor import Predictor
from yolite.training.prepare import Prepared, differences, prepare
from yolite.training.run import RunFolder
from yolite.training.tensorboard import TensorBoard, require_tensorboard
from yolite.training.trainer import Interrupted, Listener, Trainer

PICTURES = 12
"""Annotated validation pictures at the end of a run."""


class TrainingBroke(UserError):
    """The loss is no number any more: these settings do not train."""


def train_run(
    model: str | None, file: Path | None, options: Mapping[str, Any], words: Sequence[str], out: Path | None
) -> None:
    """Start a new run.

    Raises:
        UserError: anything wrong with what was asked for.
    """
    console = Console()
    config = read_settings(model, file, options, words)
    run = RunFolder(out or free_run_folder(Path("runs"), config.model.name))
    with _stoppable(run, console):
        start(config, run, console)


def read_settings(model: str | None, file: Path | None, options: Mapping[str, Any], words: Sequence[str]) -> Config:
    """Return the configuration that was asked for.

    Raises:
        UserError: anything wrong with it.
    """
    weights = options.get("weights") or parse_words(words).get("weights")
    if weights and model is None and file is None:
        # Without --model the checkpoint's own network is trained on, its anchors included.
        stored = load_checkpoint(find_weights(weights))["config"]
        base = {"model": stored["model"], "preprocess": stored["preprocess"]}
        return make_config(base, options, parse_words(words))
    return load_config(model, file, options, words)


def start(config: Config, run: RunFolder, console: Console, listeners: Sequence[Listener] = ()) -> Trainer:
    """Do a new run from beginning to end: prepare, make its folder, train, judge.

    Args:
        config: As asked for; what is ``auto`` is decided here.
        run: Its folder, not made yet.
        console: Where words go; the run's log.txt gets them too.
        listeners: Called after each epoch.

    Raises:
        UserError: anything wrong with what was asked for; `TrainingBroke` if the loss is no number any more.
        Interrupted: SIGINT or SIGTERM came; the run has been saved.
    """
    build_device(config.device)
    if config.train.tensorboard:
        require_tensorboard()
    run.refuse_if_taken()
    # The folder is made when everything that was asked for has been found to make sense.
    prepared = prepare(config, console)
    run.create()
    console.log_to(run.log)
    console.say(f"run folder: {run.path}")
    run.write_config(to_plain(prepared.config))
    trainer = _trainer(prepared, run, console)
    trainer.listeners += listeners
    _go(trainer, console)
    return trainer


@contextmanager
def _stoppable(run: RunFolder, console: Console) -> Iterator[None]:
    """Turn a signal into the exit status of the contract, with the command that goes on."""
    try:
        yield
    except Interrupted as stop:
        console.say(f"stopped by a signal; saved. Go on with: yolite train --resume {run.path}")
        raise SystemExit(stop.code) from None


def resume_run(folder: Path, options: Mapping[str, Any], words: Sequence[str]) -> None:
    """Go on with a run from its last checkpoint.

    Raises:
        UserError: there is nothing to resume, or the settings or the data are not those of the run.
    """
    console = Console()
    run = RunFolder(folder)
    if not run.last.is_file():
        raise UserError(f"--resume {folder}: there is no last.ckpt to go on from: give a run folder")
    content = load_checkpoint(run.last)
    if "training" not in content:
        raise UserError(f"--resume {folder}: last.ckpt holds weights alone, no training state")
    stored = to_plain(make_config(content["config"]))
    asked = to_plain(make_config(merge(merge(stored, options), parse_words(words))))
    changed = differences(stored, asked)
    if changed:
        raise UserError(f"--resume {folder}: a run goes on with its own settings, these differ: {'; '.join(changed)}")
    console.log_to(run.log)
    config = make_config(stored)
    if config.train.tensorboard:
        require_tensorboard()
    # decided long ago: no ``auto`` is left in a stored configuration
    if content["training"]["place"]["epoch"] >= int(config.train.epochs) and run.results.is_file():
        console.say(f"{folder} is finished: {config.train.epochs} epochs, results in {run.results}")
        return
    prepared = prepare(config, console, resuming=True)
    if prepared.fingerprint != content["training"]["fingerprint"]:
        raise UserError(
            f"--resume {folder}: the data set has changed since (images, boxes or labels): start a new run "
            f"with --weights {folder}"
        )
    trainer = _trainer(prepared, run, console)
    trainer.restore(content)
    console.say(f"resumed at epoch {trainer.place.epoch + 1}, step {trainer.place.step}")
    with _stoppable(run, console):
        _go(trainer, console)


def _trainer(prepared: Prepared, run: RunFolder, console: Console) -> Trainer:
    """Build the trainer and say what is about to happen."""
    trainer = Trainer(prepared.config, prepared.detector, prepared.preprocess, prepared.train, prepared.val,
                      prepared.names, run, console, prepared.fingerprint)  # fmt: skip
    t = prepared.config.train
    if t.tensorboard:
        trainer.listeners.append(TensorBoard(run.path / "tensorboard", prepared.val.samples, prepared.names))
    parameters = sum(p.numel() for p in prepared.detector.parameters())
    console.say(
        f"{prepared.config.model.name}: {parameters / 1e6:.2f} M parameters, input "
        f"{prepared.config.imgsz[0]}x{prepared.config.imgsz[1]}, {t.epochs} epochs x {trainer.loader.steps} steps of "
        f"{t.batch} images, {t.optimizer}, peak learning rate {t.lr}"
    )
    return trainer


def _go(trainer: Trainer, console: Console) -> None:
    """Train to the end, then write results, curves and pictures and print the summary."""
    run = trainer.run
    try:
        trainer.train()
    except FloatingPointError as error:
        raise TrainingBroke(
            f"training broke down in epoch {trainer.place.epoch + 1}: {error}; {run.last} holds the last "
            "good state: try a lower train.lr, or train.precision=fp32"
        ) from None
    _finish(trainer, trainer.config, run, console)


def _finish(trainer: Trainer, config: Config, run: RunFolder, console: Console) -> None:
    """Judge best.ckpt once more, with the weights as they lie on disk, and leave everything to look at."""
    content = load_checkpoint(run.best)
    trainer.ema.restore(content["ema"])
    started = time.monotonic()
    result, _, seconds = trainer.validate()
    e, place = config.eval, trainer.place
    plain = to_json(result, e.conf, e.iou, e.max_det, seconds)
    run.write_results({**plain, "best_epoch": place.best[1], "train_seconds": round(place.seconds, 1)})
    plot_curves(run.path / "curves.png", place.history)
    predictor = Predictor(run.path, device=config.device)
    shown = [s.path for s in trainer.val.samples[:PICTURES] if s.path is not None]
    for picture in predictor.predict(shown):
        if picture.image is not None:
            picture.save(run.path / "pictures" / f"{picture.path.stem}.jpg")
    print_metric(result, config, console, f"best.ckpt (epoch {place.best[1]})")
    where = "the training images themselves (overfit)" if config.overfit else "validation"
    console.say(
        f"AP {result.numbers['AP']:.3f}, AP50 {result.numbers['AP50']:.3f} on {where}; trained "
        f"{place.seconds:.0f} s, judged {time.monotonic() - started:.0f} s"
    )
    console.say(f"{run.best}, {run.results}, {run.path / 'curves.png'}, {run.path / 'pictures'}")
