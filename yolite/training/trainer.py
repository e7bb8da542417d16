"""The training loop.

Everything drawn comes from (seed, epoch, index) or (seed, step), the learning rate from the step: so the state of a
run is its weights, their average, the optimiser (with its scaler), and the place (epoch, step). A run that is stopped
anywhere and resumed gives the same bits as one that is not.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

import torch

from yolite.build import build_augment, build_loss
from yolite.checkpoint import describe, load_checkpoint
from yolite.config import to_plain
from yolite.console import Console
from yolite.data.loader import TrainLoader, plain_batches
from yolite.defaults import input_step
from yolite.evaluation.coco import CocoResult
from yolite.evaluation.evaluate import evaluate
from yolite.inference import Inference, TorchNetwork
from yolite.models.detector import Detector
from yolite.postprocess import Thresholds
from yolite.processes import Processes
from yolite.seeding import seed_libraries
from yolite.structures import Batch, Detections, Sample
from yolite.training.ema import EMA
from yolite.training.optim import build_optimizer, learning_rate, restore_optimizer, train_mode
from yolite.training.place import Place
from yolite.training.prepare import Prepared
from yolite.training.run import RunFolder
from yolite.training.step import Stepper, StepReport, StepSettings, draw_size
from yolite.training.watch import GradientLog, Watch

Listener = Callable[[dict[str, Any], list[Detections]], None]
"""Called with an epoch's row of metrics and the validation detections, one a sample, before they are saved
(what is told twice because a run was killed in between, is told with the same epoch)."""

STRIKES = 10
"""So many broken steps, and a run ends even if it was to go on at a lower rate."""
_STEP = 21  # stream of `seeding`


class Interrupted(Exception):
    """The run was asked to stop by a signal; it has been saved. ``code`` is the exit status (130 or 143)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped by signal {code - 128}")
        self.code = code


class Asked(Exception):
    """A signal came while the validation pictures were judged; there is more to do before the run can stop."""


class Broken(Exception):
    """The loss or its gradient is no number any more, and the settings say to stop; last.ckpt is good."""


@contextmanager
def on_signal(answer: Callable[[int], None]) -> Iterator[None]:
    """Answer SIGINT and SIGTERM by calling ``answer`` with the signal's number."""

    def handler(number: int, _: FrameType | None) -> None:
        answer(number)

    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


class Trainer:
    """Train a detector on pictures and judge it after every epoch.

    Args:
        prepared: Data, network and a configuration in which nothing is ``auto`` any more.
        run: Where results go.
        console: Where words go.
        processes: Which process of how many this is.

    Attributes:
        listeners: See `Listener`; called on the main process.
    """

    def __init__(self, prepared: Prepared, run: RunFolder, console: Console, processes: Processes) -> None:
        self.prepared, self.config, self.names = prepared, prepared.config, prepared.names
        self.run, self.console, self.processes = run, console, processes
        self.preprocess, self.val = prepared.preprocess, prepared.val
        t = self.config.train
        settings = StepSettings(t.precision, t.channels_last, t.clip, t.l1, t.compile)
        self.model: Detector = prepared.detector.to(memory_format=settings.memory_format)
        self.device = next(self.model.parameters()).device
        self.optimizer = build_optimizer(
            self.model, t.optimizer, t.lr, t.momentum, t.weight_decay, t.lr_factors, prepared.layers,
            torch.bfloat16 if t.precision == "bf16" else torch.float32,
        )  # fmt: skip
        self.ema = EMA(self.model, t.ema)
        self.loss = build_loss(self.config.loss, self.model.specs)
        self.do_step = Stepper(self.model, self.preprocess, self.loss, self.optimizer, self.ema, settings, processes)
        self.epochs = int(t.epochs)
        self.loader = TrainLoader(
            prepared.train, build_augment(self.config), int(t.batch), self.config.seed,
            self.epochs - round(self.config.augment.close_mosaic * self.epochs), int(self.config.data.workers),
            t.accumulate, processes, prepared.weights,
        )  # fmt: skip
        self.place = Place()
        self.listeners: list[Listener] = []
        self.watch = Watch(self.names, prepared.objects, t.clip, self.config.data.cache != "off")
        self.gradients = GradientLog(run.gradients, t.gradient_stats if processes.main else 0, 0)
        self._signal: int | None = None
        self._saved_at = self._clock = time.monotonic()

    # ---- state ---------------------------------------------------------------------------------------------------

    def content(self) -> dict[str, Any]:
        """Return the checkpoint of this moment."""
        training = {
            "optimizer": self.optimizer.state_dict(), "scaler": self.do_step.scaler.state_dict(),
            "place": self.place.to_plain(), "fingerprint": self.prepared.fingerprint, "processes": self.processes.world,
        }  # fmt: skip
        return {
            **describe(self.model, self.preprocess, self.names, to_plain(self.config)),
            "weights": self.model.state_dict(),
            "ema": self.ema.to_plain(),
            "training": training,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Take over the state of a checkpoint of the same run."""
        training = content["training"]
        self.model.load_state_dict(content["weights"])
        self.ema.restore(content["ema"])
        restore_optimizer(self.optimizer, training["optimizer"])
        self.do_step.scaler.load_state_dict(training["scaler"])
        self.place = Place.from_plain(training["place"])
        self.gradients = GradientLog(self.run.gradients, self.gradients.every, self.global_step)

    def save(self, best: bool = False) -> None:
        """Write the checkpoint(s) and the metrics (main process alone)."""
        if self.processes.main:
            self.run.save(self.content(), best)
            self.run.write_metrics(self.place.history)
        self._saved_at = time.monotonic()

    @property
    def global_step(self) -> int:
        """Steps since the beginning of the run."""
        return self.place.epoch * self.loader.steps + self.place.step

    @property
    def done(self) -> bool:
        """Whether the run is over."""
        return self.place.finished(self.epochs, self.config.train.patience)

    # ---- steps ---------------------------------------------------------------------------------------------------

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from the beginning of the run."""
        t, steps = self.config.train, self.loader.steps
        warmup = max(1, round(t.warmup_epochs * steps)) if t.warmup_epochs else 0
        course = learning_rate(step, self.epochs * steps, warmup, t.lr, t.final_lr, t.schedule, t.milestones)
        return course * self.place.lr_scale

    def step(self, batches: list[Batch]) -> StepReport:
        """Do one step of the optimiser on the parts of a batch, at the rate and input size of this place."""
        t, at = self.config.train, self.global_step
        cell = input_step(spec.stride for spec in self.model.specs)
        size = draw_size(self.config.imgsz, t.multi_scale, cell, self.config.seed, at // t.multi_scale_every)
        seed_libraries(self.config.seed, _STEP, at, self.processes.rank)
        return self.do_step(batches, self.rate(at), size, self._signal is not None, at * int(t.batch))

    def _break_down(self, reason: str, batches: list[Batch]) -> bool:
        """Answer a step that gave no number; return whether the run went back to its last checkpoint.

        Raises:
            Broken: the settings say to stop, or it happened too often.
        """
        place, epoch = self.place, self.place.epoch
        own = [str(path) for batch in batches for path in self.loader.files(epoch, batch.indices)]
        files = ", ".join(dict.fromkeys(path for part in self.processes.gather(own) for path in part))
        where = f"epoch {epoch + 1}, step {place.step + 1}: {reason}"
        images = f"; the images of this step: {files}" if files else ""
        place.strike()
        if self.config.train.on_nonfinite == "stop" or place.strikes >= STRIKES:
            raise Broken(f"{where}{images}")
        # One bad batch is left out. Weights that are no numbers, or give none twice running, are beyond repair.
        back = place.broken > 1 or not all(bool(p.isfinite().all()) for p in self.model.parameters())
        if back:
            self.restore(self.processes.from_main(load_checkpoint(self.run.last) if self.processes.main else {}))
            self.place.lr_scale, self.place.strikes = place.lr_scale, place.strikes
        how = f"back to epoch {self.place.epoch + 1}, step {self.place.step}" if back else "the step was not taken"
        self.console.warn(f"{where}; {how}, on at {self.place.lr_scale:g} times the learning rate{images}")
        return back

    def _steps(self) -> Iterator[tuple[list[Batch], float]]:
        """Yield the parts of each remaining batch of the epoch, and the seconds that were waited for them."""
        source = self.loader.epoch(self.place.epoch, self.place.step)
        while True:
            begun = time.monotonic()
            parts = [batch for batch in (next(source, None) for _ in range(self.config.train.accumulate)) if batch]
            if not parts:
                return
            yield parts, time.monotonic() - begun

    def _epoch(self) -> None:
        """Train the rest of the current epoch, then validate; return early after going back to a checkpoint."""
        place, steps = self.place, self.loader.steps
        started, first = time.monotonic(), place.step
        with self.console.bar() as show:
            for batches, waited in self._steps():
                begun = time.monotonic()
                report = self.step(batches)
                if report.bad is None:
                    place.add(report.values, report.positives)
                    self.gradients.note(self.model, self.global_step)
                elif self._break_down(report.bad, batches):
                    return
                else:
                    place.step += 1
                place.wait_seconds += waited
                place.step_seconds += time.monotonic() - begun
                rate = (place.step - first) * int(self.config.train.batch) / (time.monotonic() - started)
                show(self._progress(rate), self.global_step, self.epochs * steps)
                if report.stop or (report.bad is None and self._save_is_due()):
                    place.seconds += self._lap()
                    self.save()
                if report.stop:
                    raise Interrupted(128 + (self._signal or signal.SIGTERM))
        self._finish_epoch()

    def _progress(self, rate: float) -> str:
        """Return the words beside the progress bar."""
        means = self.place.means()
        parts = " ".join(f"{k} {means.get(k, math.nan):.3f}" for k in self.loss.names)
        return f"epoch {self.place.epoch + 1}/{self.epochs} {parts}, {rate:.0f} images/s"

    def _save_is_due(self) -> bool:
        """Whether it is time for a checkpoint inside the epoch (its end saves anyway)."""
        t, step = self.config.train, self.place.step
        by_steps = t.checkpoint_steps and self.global_step % t.checkpoint_steps == 0
        by_time = time.monotonic() - self._saved_at >= 60 * t.checkpoint_minutes
        return step < self.loader.steps and bool(by_steps or by_time)

    def _lap(self) -> float:
        """Return the seconds since it was last asked: no work is left out, the writing of checkpoints neither."""
        before, self._clock = self._clock, time.monotonic()
        return self._clock - before

    # ---- epochs --------------------------------------------------------------------------------------------------

    def validate(self) -> tuple[CocoResult, list[Detections], float, dict[str, float]]:
        """Judge the averaged weights on the validation pictures, spread over the processes.

        Returns:
            The metric, the detections (one a sample; complete on the main process), the loss, and the seconds by stage.
        """
        self.processes.copy_from_main(list(self.ema.weights.values()))
        detector = Detector(self.model.graph.records, self.model.specs, self.model.graph.outputs)
        detector.load_state_dict({k: v.to("cpu") for k, v in self.ema.weights.items()})
        inference = Inference(TorchNetwork(detector, self.device), self.preprocess)
        e = self.config.eval
        limits = Thresholds(e.conf, e.iou, e.max_det, best_class=False)
        loss = [0.0, 0.0, 0.0]  # sum, positives, images

        def detect(batch: Batch) -> list[Detections]:
            if self._signal is not None and self.processes.world == 1:
                raise Asked
            maps = inference.forward(batch.images)
            with torch.inference_mode():
                output = self.loss(maps, batch.targets.to(self.device), self.model.specs, 1.0)
            for place, value in enumerate((float(output.total), output.positives, len(batch.indices))):
                loss[place] += value
            return inference.finish(maps, batch.letterboxes, limits)

        def report(sample: Sample, reason: str) -> None:
            self.console.warn(f"{sample.path}: {reason}; counts as not detected on")

        batches = plain_batches(
            self.val, e.batch, report, self.processes.share(range(len(self.val))), step=inference.step
        )
        result, found, reading = evaluate(batches, detect, self.val.samples, self.names, processes=self.processes)
        total, positives, images = self.processes.sum(loss)
        seconds = {**reading, **{k: reading.get(k, 0.0) + v for k, v in inference.seconds.items()}}
        return result, found, total / self.loss.divisor(positives, max(images, 1)), seconds

    def _finish_epoch(self) -> None:
        """Validate, write the epoch's row and the checkpoints, print one line."""
        place, steps = self.place, self.loader.steps
        try:
            result, found, val_loss, _ = self.validate()
        except Asked:  # the step before is saved; a resume begins with this validation
            self.save()
            raise Interrupted(128 + (self._signal or signal.SIGTERM)) from None
        if not math.isfinite(val_loss):
            place.broken += 1  # nothing to save: the averaged weights are spoiled
            self._break_down(f"the validation loss is {val_loss}", [])
            return
        for remark in self.watch.remarks(place):
            self.console.warn(remark)
        place.seconds += self._lap()
        row = self.processes.from_main({
            "epoch": place.epoch + 1, "step": self.global_step, "seconds": round(place.seconds, 2),
            "step_seconds": round(place.step_seconds / steps, 4), "wait_seconds": round(place.wait_seconds, 2),
            "lr": self.rate(self.global_step - 1),
            **{f"loss_{k}" if k in (*self.loss.names, "total") else k: v for k, v in place.means().items()},
            "val_loss": val_loss, **result.numbers,
        })  # fmt: skip
        by = self.config.train.best_by
        best = place.finish_epoch(row, -row[by] if by == "val_loss" else row[by])
        try:
            if self.processes.main:
                for listener in self.listeners:
                    listener(row, found)
        finally:
            self.save(best)
        parts = " ".join(f"{k} {row.get(f'loss_{k}', math.nan):.3f}" for k in (*self.loss.names, "total"))
        self.console.say(
            f"epoch {place.epoch}/{self.epochs}  loss: {parts}  val {val_loss:.3f}  AP {row['AP']:.3f}  "
            f"AP50 {row['AP50']:.3f}  {place.seconds:.0f} s{'  best' if best else ''}"
        )
        if sum(self.processes.sum([float(self._signal is not None)])):
            raise Interrupted(128 + (self._signal or signal.SIGTERM))

    def train(self) -> None:
        """Train to the last epoch, from wherever the run stands.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the run has been saved.
            Broken: the loss is not a number any more; the last checkpoint is untouched.
        """
        train_mode(self.model, self.config.train.freeze_bn)

        def note(number: int) -> None:
            self._signal = number  # looked at after each step

        self._lap()
        with on_signal(note), closing(self.loader):
            if not self.run.last.exists():
                self.save()  # from now on there is always something to go back to, and to resume from
            while not self.done:
                if self.place.step == self.loader.steps:  # stopped between the last step and the validation
                    self._finish_epoch()
                else:
                    self._epoch()
        if self.place.epoch < self.epochs:
            t = self.config.train
            self.console.say(f"stopped early: no better {t.best_by} for {t.patience} epochs (train.patience)")
