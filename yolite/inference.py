"""One trained network at work: the forward pass that validation, evaluation, detection and the Predictor share.

The seam between the network and all the rest is `Network`: normalised pictures in, raw maps out. Whatever can answer
so (PyTorch here, an exported file through its own runtime) is opened as a `Model`, and everything before and after it
stays the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from yolite.defaults import input_step
from yolite.devices import half_type
from yolite.errors import UserError
from yolite.geometry import Letterbox
from yolite.models.conv import ConvNormAct
from yolite.models.detector import Detector, fused
from yolite.postprocess import Thresholds, postprocess, unsuppressed
from yolite.structures import Detections, HeadSpec, Preprocess, Size


class Network(Protocol):
    """What answers pictures with raw maps, whatever runs it."""

    @property
    def specs(self) -> Sequence[HeadSpec]:
        """How each raw map is to be read, finest level first."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its input is to lie (and where normalisation, decoding and NMS run)."""
        ...

    @property
    def fixed(self) -> bool:
        """Whether it takes inputs of one size alone: a layer of it is fully connected."""
        ...

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """Return the raw maps [B, A·(5 + classes), H / stride, W / stride] of normalised float32 [B, 3, H, W]."""
        ...


class TorchNetwork:
    """A `Network` that PyTorch runs: a detector fused for inference.

    Args:
        detector: A trained detector; it is copied, not changed.
        device: Where to run.
        alone: Whether each picture of a batch is computed by itself, so that its maps have the same bits in every batch
            (on a CPU the library picks other sums for a batch of one than for larger ones).
        half: Whether to compute in 16 bits (`yolite.devices.half_type`) in place of float32; the maps are float32.

    Raises:
        UserError: the device has no 16-bit type.
    """

    def __init__(self, detector: Detector, device: torch.device, alone: bool = False, half: bool = False) -> None:
        self.dtype = half_type(device) if half else torch.float32
        self.detector = fused(detector).to(device, self.dtype).to(memory_format=torch.channels_last)
        for layer in self.detector.modules():
            if isinstance(layer, ConvNormAct) and "inplace" in vars(layer.act):
                # written over what the convolution has just made: the same bits in a tenth less time
                vars(layer.act)["inplace"] = True
        self.device = device
        self.alone = alone

    @property
    def specs(self) -> tuple[HeadSpec, ...]:
        """How each raw map is to be read."""
        return self.detector.specs

    @property
    def fixed(self) -> bool:
        """Whether it takes inputs of one size alone."""
        return self.detector.fixed

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the raw maps of normalised images [B, 3, H, W]."""
        images = images.to(self.dtype)
        parts = images.split(1) if self.alone else (images,)
        found = [self.detector(part.contiguous(memory_format=torch.channels_last)) for part in parts]
        maps = found[0] if len(found) == 1 else [torch.cat(level) for level in zip(*found, strict=True)]
        return [level.float() for level in maps]


@dataclass(frozen=True)
class Model:
    """A network with what is needed to feed it and to name its answers.

    Attributes:
        network: Normalised pictures in, raw maps out.
        preprocess: How its input is made.
        names: Class names; labels index them.
        config: The settings of its training.
        mirrors: Whether it was trained with mirrored pictures (digits and letters are not mirrored): test-time
            augmentation asks.
    """

    network: Network
    preprocess: Preprocess
    names: list[str]
    config: dict[str, Any]
    mirrors: bool = True


def check_input(detector: Detector, size: Size) -> None:
    """Refuse an input size that a network cannot read.

    Raises:
        UserError: its input size is fixed to another than ``size`` (H, W) in px.
    """
    try:
        detector.check_size(size)
    except ValueError as error:
        raise UserError(f"this network cannot be used so: {error}") from None


class Inference:
    """From letterboxed pictures to boxes, with the seconds it spends.

    Args:
        network: What answers with raw maps.
        preprocess: How its input is made.

    Raises:
        UserError: its input size is fixed to another than that of ``preprocess``.

    Attributes:
        step: Pictures are padded to multiples of so many px; 0: to the one size that the network takes.
        seconds: Spent on ``preprocess`` (normalisation), ``forward`` and ``postprocess`` so far.
    """

    def __init__(self, network: Network, preprocess: Preprocess) -> None:
        if isinstance(network, TorchNetwork):
            check_input(network.detector, preprocess.size)
        self.network = network
        self.preprocess = preprocess
        self.device = network.device
        self.step = 0 if network.fixed else input_step(spec.stride for spec in network.specs)
        self.seconds = {"preprocess": 0.0, "forward": 0.0, "postprocess": 0.0}

    @property
    def detector(self) -> Detector:
        """The detector itself, for those who look inside.

        Raises:
            UserError: it is an exported file, which cannot be looked into.
        """
        if not isinstance(self.network, TorchNetwork):
            raise UserError("an exported file cannot be looked into: give the checkpoint")
        return self.network.detector

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def letterbox(self, image: Size) -> Letterbox:
        """Return how a picture of this size (H, W) becomes input here."""
        return Letterbox.fit(image, self.preprocess, self.step)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the raw maps of letterboxed uint8 images [B, 3, H, W]."""
        start = self._now()
        x = self.preprocess.normalise(images.to(self.device))
        ready = self._now()
        maps = list(self.network(x))
        self.seconds["preprocess"] += ready - start
        self.seconds["forward"] += self._now() - ready
        return maps

    @torch.inference_mode()
    def finish(self, maps: Sequence[Tensor], letterboxes: Sequence[Letterbox], limits: Thresholds) -> list[Detections]:
        """Turn raw maps into boxes in image px."""
        start = self._now()
        found = postprocess(maps, self.network.specs, letterboxes, limits)
        self.seconds["postprocess"] += self._now() - start
        return found

    @torch.inference_mode()
    def candidates(
        self, images: Tensor | Sequence[Tensor], letterboxes: Sequence[Letterbox], limits: Thresholds
    ) -> list[Detections]:
        """Detect on letterboxed uint8 images [3, H, W] without NMS: on views of one picture, merged later."""

        def end(maps: list[Tensor], own: list[Letterbox]) -> list[Detections]:
            start = self._now()
            found = unsuppressed(maps, self.network.specs, own, limits)
            self.seconds["postprocess"] += self._now() - start
            return found

        return self._by_size(images, letterboxes, end)

    def __call__(
        self, images: Tensor | Sequence[Tensor], letterboxes: Sequence[Letterbox], limits: Thresholds
    ) -> list[Detections]:
        """Detect on letterboxed uint8 images [3, H, W] of any sizes; [B, 3, H, W] is taken too."""
        return self._by_size(images, letterboxes, lambda maps, own: self.finish(maps, own, limits))

    def _by_size(
        self,
        images: Tensor | Sequence[Tensor],
        letterboxes: Sequence[Letterbox],
        end: Callable[[list[Tensor], list[Letterbox]], list[Detections]],
    ) -> list[Detections]:
        """Send images of one size through the network together, and return what ``end`` makes of the maps, in order."""
        places: dict[Size, list[int]] = {}
        for place, letterbox in enumerate(letterboxes):
            places.setdefault(letterbox.input, []).append(place)
        found: dict[int, Detections] = {}
        for own in places.values():
            maps = self.forward(torch.stack([images[i] for i in own]))
            found.update(zip(own, end(maps, [letterboxes[i] for i in own]), strict=True))
        return [found[place] for place in range(len(letterboxes))]
