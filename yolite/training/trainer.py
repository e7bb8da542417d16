"""The training loop.

Everything drawn comes from (seed, epoch, index), the learning rate from the step: so the state of a run is its
weights, their average, the optimiser, and the place (epoch, step). A run that is stopped anywhere and resumed gives
the same bits as one that is not.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from yolite.checkpoint import describe
from yolite.config import Config, to_plain
from yolite.console import Console
from yolite.data.loader import Pictures, TrainLoader, plain_batches
from yolite.data.transforms import Augment
from yolite.evaluation.coco import CocoResult
from yolite.evaluation.evaluate import evaluate
from yolite.inference import Inference
from yolite.models.detector import Detector
from yolite.postprocess import Thresholds
from yolite.structures import Batch, Detections, LossOutput, Preprocess, Sample
from yolite.training.ema import EMA
from yolite.training.loss import DetectionLoss
from yolite.training.optim import build_optimizer, learning_rate, set_learning_rate
from yolite.training.run import RunFolder

Listener = Callable[[dict[str, Any], list[Detections]], None]
"""Called after each epoch has been saved, with its row of metrics.jsonl and the detections, one a validation sample."""


class Interrupted(Exception):
    """The run was asked to stop by a signal; it has been saved. ``code`` is the exit status (130 or 143)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped by signal {code - 128}")
        self.code = code


@dataclass
class Place:
    """Where a run stands; all of it goes into the checkpoint.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished inside the current epoch.
        seconds: Time spent so far, over all sittings.
        step_seconds: Of these, inside the steps of this epoch (without waiting for data, and validation).
        sums: Sums of the loss parts over the steps of this epoch.
        history: One row of metrics an epoch.
        best: Best validation AP so far, and its epoch.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, int] = (-2.0, 0)

    def to_plain(self) -> dict[str, Any]:
        """Return the place as plain data."""
        return {**self.__dict__, "best": list(self.best)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Place:
        """Read what `to_plain` wrote."""
        return cls(**{**plain, "best": tuple(plain["best"])})


class Trainer:
    """Train a detector on pictures and judge it after every epoch.

    Args:
        config: Resolved: nothing in it is ``auto`` any more.
        detector: The network, on its device.
        train, val: Pictures with labels.
        names: Class names.
        run: Where results go.
        console: Where words go.
        fingerprint: Identifies the data set, for resume.
    """

    def __init__(
        self, config: Config, detector: Detector, preprocess: Preprocess, train: Pictures, val: Pictures,
        names: list[str], run: RunFolder, console: Console, fingerprint: str,
    ) -> None:  # fmt: skip
        self.config, self.names, self.run, self.console = config, names, run, console
        self.preprocess, self.val, self.fingerprint = preprocess, val, fingerprint
        self.device = next(detector.parameters()).device
        t, a, c = config.train, config.augment, config.loss
        self.memory_format = torch.channels_last if t.channels_last else torch.contiguous_format
        self.model: Detector = detector.to(memory_format=self.memory_format)
        self.optimizer = build_optimizer(self.model, t.optimizer, t.lr, t.momentum, t.weight_decay)
        self.ema = EMA(self.model, t.ema)
        self.loss = DetectionLoss(
            c.box, c.objectness, c.classes, c.iou, c.assign.ratio, c.assign.neighbours, c.assign.ignore_iou
        )
        augment = Augment(a.mosaic, a.scale, a.translate, float(a.hflip), a.vflip, a.hue, a.saturation,
                          a.brightness, a.min_visible)  # fmt: skip
        self.epochs = int(t.epochs)
        mosaic_epochs = self.epochs - round(a.close_mosaic * self.epochs)
        self.loader = TrainLoader(train, augment, t.batch, config.seed, mosaic_epochs, int(config.data.workers))
        self.place = Place()
        self.listeners: list[Listener] = []
        self._signal: int | None = None
        self._saved_at = time.monotonic()

    # ---- state ---------------------------------------------------------------------------------------------------

    def content(self) -> dict[str, Any]:
        """Return the checkpoint of this moment."""
        training = {
            "optimizer": self.optimizer.state_dict(), "place": self.place.to_plain(), "fingerprint": self.fingerprint,
        }  # fmt: skip
        return {
            **describe(self.model, self.preprocess, self.names, to_plain(self.config)),
            "weights": self.model.state_dict(),
            "ema": self.ema.to_plain(),
            "training": training,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Take over the state of a checkpoint of the same run."""
        self.model.load_state_dict(content["weights"])
        self.ema.restore(content["ema"])
        self.optimizer.load_state_dict(content["training"]["optimizer"])
        self.place = Place.from_plain(content["training"]["place"])

    # ---- one step ------------------------------------------------------------------------------------------------

    def step(self, batch: Batch) -> LossOutput:
        """Do one step of the optimiser on a batch."""
        t, place = self.config.train, self.place
        total = self.epochs * self.loader.steps
        at = place.epoch * self.loader.steps + place.step
        warmup = max(1, round(t.warmup_epochs * self.loader.steps)) if t.warmup_epochs else 0
        set_learning_rate(self.optimizer, learning_rate(at, total, warmup, t.lr, t.final_lr, t.schedule))
        images = self.preprocess.normalise(batch.images.to(self.device, non_blocking=True))
        images = images.contiguous(memory_format=self.memory_format)
        bf16 = t.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            maps = self.model(images)
        output = self.loss([m.float() for m in maps], batch.targets.to(self.device), self.model.specs)
        self.optimizer.zero_grad(set_to_none=True)
        output.total.backward()
        if t.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), t.clip)
        self.optimizer.step()
        self.ema.update(self.model)
        return output

    def _account(self, output: LossOutput) -> None:
        """Add a step's loss to the epoch's sums; stop at the first loss that is no number."""
        for name, value in {**output.parts, "total": output.total.detach()}.items():
            number = float(value)
            if number != number or number in (float("inf"), float("-inf")):
                raise FloatingPointError(f"loss part {name!r} is {number}")
            self.place.sums[name] = self.place.sums.get(name, 0.0) + number
        self.place.sums["positives"] = self.place.sums.get("positives", 0.0) + output.positives
        self.place.step += 1

    # ---- epochs --------------------------------------------------------------------------------------------------

    def validate(self) -> tuple[CocoResult, list[Detections], dict[str, float]]:
        """Judge the averaged weights on the validation pictures; return metric, detections and seconds by stage."""
        detector = Detector(self.model.graph.records, self.model.specs, self.model.graph.outputs)
        detector.load_state_dict({k: v.to("cpu") for k, v in self.ema.weights.items()})
        inference = Inference(detector, self.preprocess, self.device)
        e = self.config.eval
        limits = Thresholds(e.conf, e.iou, e.max_det, best_class=False)

        def detect(batch: Batch) -> list[Detections]:
            return inference(batch.images, batch.letterboxes, limits)

        def report(sample: Sample, reason: str) -> None:
            self.console.warn(f"{sample.path}: {reason}; counts as not detected on")

        batches = plain_batches(self.val, e.batch, report)
        result, found, reading = evaluate(batches, detect, self.val.samples, self.names)
        return result, found, {**reading, **{k: reading.get(k, 0.0) + v for k, v in inference.seconds.items()}}

    def _finish_epoch(self, started: float) -> None:
        """Validate, write the epoch's row and the checkpoints, print one line."""
        place, steps = self.place, self.loader.steps
        result, found, _ = self.validate()
        place.epoch, place.step = place.epoch + 1, 0
        place.seconds += time.monotonic() - started
        ap = result.numbers["AP"]
        best = ap > place.best[0]
        if best:
            place.best = (ap, place.epoch)
        row = {"epoch": place.epoch, "step": place.epoch * steps, "seconds": round(place.seconds, 2),
               "step_seconds": round(place.step_seconds / steps, 4),
               "lr": self.optimizer.param_groups[0]["lr"],
               **{f"loss_{k}" if k != "positives" else k: v / steps for k, v in place.sums.items()},
               **result.numbers}  # fmt: skip
        place.history.append(row)
        place.sums, place.step_seconds = {}, 0.0
        self.save(best)
        parts = " ".join(f"{k} {row[f'loss_{k}']:.3f}" for k in (*self.loss.names, "total"))
        self.console.say(
            f"epoch {place.epoch}/{self.epochs}  loss: {parts}  AP {ap:.3f}  "
            f"AP50 {result.numbers['AP50']:.3f}  {place.seconds:.0f} s{'  best' if best else ''}"
        )
        for listener in self.listeners:
            listener(row, found)

    def save(self, best: bool = False) -> None:
        """Write the checkpoint(s) and the metrics."""
        self.run.save(self.content(), best)
        self.run.write_metrics(self.place.history)
        self._saved_at = time.monotonic()

    def _epoch(self) -> None:
        """Train the rest of the current epoch, then validate."""
        place, t = self.place, self.config.train
        started = time.monotonic()
        with self.console.bar() as show:
            for batch in self.loader.epoch(place.epoch, place.step):
                begun = time.monotonic()
                self._account(self.step(batch))
                place.step_seconds += time.monotonic() - begun
                text = f"epoch {place.epoch + 1}/{self.epochs} loss {place.sums['total'] / place.step:.3f}"
                show(text, place.epoch * self.loader.steps + place.step, self.epochs * self.loader.steps)
                inside = place.step < self.loader.steps
                if self._signal is not None or (
                    inside and time.monotonic() - self._saved_at >= 60 * t.checkpoint_minutes
                ):
                    place.seconds += time.monotonic() - started
                    started = time.monotonic()
                    self.save()
                if self._signal is not None:
                    raise Interrupted(128 + self._signal)
        self._finish_epoch(started)

    def train(self) -> None:
        """Train to the last epoch, from wherever the run stands.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the run has been saved.
            FloatingPointError: the loss is not a number any more; the last checkpoint is untouched.
        """
        self.model.train()
        with self._catch_signals():
            while self.place.epoch < self.epochs:
                if self.place.step == self.loader.steps:  # stopped between the last step and the validation
                    self._finish_epoch(time.monotonic())
                else:
                    self._epoch()

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a flag that is looked at after each step."""

        def note(number: int, _: FrameType | None) -> None:
            self._signal = number

        old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
