"""One step of the optimiser: a batch in parts, over one process or many, in any precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from yolite.devices import HALF
from yolite.models.detector import Detector
from yolite.processes import Processes
from yolite.seeding import generator
from yolite.structures import Batch, Preprocess, Size, Targets
from yolite.training.ema import EMA
from yolite.training.loss import DetectionLoss
from yolite.training.optim import set_learning_rate

_SCALE = 20  # stream of `seeding.generator`


@dataclass(frozen=True)
class StepReport:
    """What a step did, summed over all processes.

    Attributes:
        values: The weighted loss parts, ``total``, the number of ``positives`` and the gradient's norm ``grad_norm``
            (before clipping).
        positives: Number of positives of each class.
        stop: A process was asked to stop.
        bad: Why the step was not taken (what is no finite number), or None.
    """

    values: dict[str, float]
    positives: list[float]
    stop: bool
    bad: str | None


@dataclass(frozen=True)
class StepSettings:
    """How a step is done; see `yolite.config.TrainConfig` for the fields of the same name."""

    precision: str = "fp32"
    channels_last: bool = True
    clip: float = 0.0
    l1: float = 0.0
    compile: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """How pictures and weights lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def sizes_of(imgsz: Size, reach: float, cell: int) -> list[Size]:
    """Return the input sizes (H, W) of multi-scale training, the smallest first.

    Args:
        imgsz: (H, W), multiples of ``cell``.
        reach: Sizes lie between (1 − reach) and (1 + reach) times ``imgsz``, and have nearly its shape.
        cell: All are multiples of it: 32, or the coarsest stride where that is larger.
    """
    low, high = (max(1, round(imgsz[0] * f / cell)) for f in (1 - reach, 1 + reach))
    return [(row * cell, max(1, round(imgsz[1] * row / imgsz[0])) * cell) for row in range(low, high + 1)]


def draw_size(imgsz: Size, reach: float, cell: int, seed: int, draw: int) -> Size:
    """Draw one of `sizes_of` (YOLO9000, section 2: "every 10 batches").

    Args:
        imgsz: Of `sizes_of`.
        reach: Of `sizes_of`.
        cell: Of `sizes_of`.
        seed: Of the run.
        draw: Number of the draw: step // multi_scale_every.
    """
    if not reach:
        return imgsz
    sizes = sizes_of(imgsz, reach, cell)
    return sizes[int(generator(seed, _SCALE, draw).integers(len(sizes)))]


class Stepper:
    """Does steps. The state it changes (network, optimiser, average, scaler) is the trainer's to save.

    A batch may be computed in parts (``accumulate``) and over several processes: the loss is always divided by the
    positives of the whole batch, so both change the gradient by rounding alone (and by BN, which sees the parts).
    """

    def __init__(
        self, model: Detector, preprocess: Preprocess, loss: DetectionLoss, optimizer: torch.optim.Optimizer, ema: EMA,
        settings: StepSettings, processes: Processes,
    ) -> None:  # fmt: skip
        self.model, self.preprocess, self.loss, self.optimizer, self.ema = model, preprocess, loss, optimizer, ema
        self.settings, self.processes = settings, processes
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.learning = [p for p in model.parameters() if p.requires_grad]
        ids = [self.device.index] if self.device.type == "cuda" else None
        self.shared = DistributedDataParallel(model, device_ids=ids) if processes.world > 1 else None
        network: nn.Module = self.shared or model
        self.forward: Callable[[Tensor], list[Tensor]] = torch.compile(network) if settings.compile else network

    def _images(self, batch: Batch, size: Size) -> Tensor:
        """Return the network's input [B, 3, H, W] at ``size``."""
        images = self.preprocess.normalise(batch.images.to(self.device, non_blocking=True))
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return images.contiguous(memory_format=self.settings.memory_format)

    def _targets(self, batch: Batch, size: Size) -> Targets:
        """Return the batch's boxes at the input ``size``."""
        height, width = batch.images.shape[-2:]
        targets = batch.targets.to(self.device)
        same = (height, width) == size
        return targets if same else targets.scaled(size[0] / height, size[1] / width)

    def _backward(
        self, batches: Sequence[Batch], targets: Sequence[Targets], size: Size, divisor: float, seen: int
    ) -> Tensor:
        """Add up the gradients of all parts; return this process's loss parts and their sum."""
        values = torch.zeros(len(self.loss.names) + 1, device=self.device)
        for number, (batch, own) in enumerate(zip(batches, targets, strict=True)):
            last = number + 1 == len(batches)
            # gradients travel between the processes once a step, with the last part
            with self.shared.no_sync() if self.shared and not last else nullcontext():
                dtype = HALF.get(self.settings.precision)
                with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                    maps = self.forward(self._images(batch, size))
                output = self.loss([m.float() for m in maps], own, self.model.specs, divisor, seen)
                self.scaler.scale(output.total).backward()
            values += torch.stack([*output.parts.values(), output.total.detach()])
        return values

    def __call__(
        self, batches: Sequence[Batch], lr: float, size: Size, stop: bool = False, seen: int = 0
    ) -> StepReport:
        """Do one step on the parts of this process's share of a batch, or none if something is not finite.

        Args:
            batches: The parts.
            lr: Learning rate.
            size: Input (H, W).
            stop: This process was asked to stop; every process learns of it.
            seen: Images that the run has trained on before.
        """
        world = self.processes.world
        targets = [self._targets(batch, size) for batch in batches]
        counts = torch.stack([self.loss.count(t, self.model.specs, size) for t in targets]).sum(0).tolist()
        *positives, images = self.processes.sum([*counts, sum(len(b.indices) for b in batches)])
        divisor = self.loss.divisor(sum(positives), images)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean over processes where the loss wants the sum
        values = self._backward(batches, targets, size, divisor / world, seen)
        *losses, stops = self.processes.sum([*(v / world for v in values.tolist()), float(stop)])
        self.scaler.unscale_(self.optimizer)
        norm = self._regularise()
        named = dict(zip((*self.loss.names, "total"), losses, strict=True))
        bad = next(
            (f"loss part {name!r} is {value}" for name, value in named.items() if not math.isfinite(value)), None
        )
        if bad is None and not math.isfinite(norm) and not self.scaler.is_enabled():
            bad = f"the gradient's norm is {norm}"
        if bad is None:
            set_learning_rate(self.optimizer, lr)
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)  # fp16: leaves the step out where the scaled gradient overflowed
            self.scaler.update()
            if self.scaler.get_scale() >= before:
                self.ema.update(self.model)
            elif before < 1:
                bad = "the gradient overflows fp16 at every scale"
        else:
            self._undo(buffers)
        report = {**named, "positives": sum(positives), "grad_norm": norm if math.isfinite(norm) else 0.0}
        return StepReport(report, positives, stops > 0, bad)

    def _regularise(self) -> float:
        """Add the L1 penalty's gradient, clip, and return the norm before clipping."""
        if self.settings.l1:
            for parameter in self.learning:
                if parameter.ndim > 1 and parameter.grad is not None:
                    parameter.grad.add_(parameter.detach().sign(), alpha=self.settings.l1)
        return float(nn.utils.clip_grad_norm_(self.learning, self.settings.clip or math.inf))

    @torch.no_grad()
    def _undo(self, buffers: Sequence[Tensor]) -> None:
        """Take back what the forward pass did to the BN statistics; weights were not touched yet."""
        for buffer, old in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(old)
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.is_enabled():
            self.scaler.update()
