"""From samples to batches: decode, letterbox, augment, collate.

A batch depends on (seed, epoch, step) alone: not on the number of loader processes, nor on where a run was resumed.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from yolite.boxes import clip
from yolite.data.balance import draw_epoch, epoch_size
from yolite.data.handover import Handover, Jobs, join_targets
from yolite.data.images import ImageError
from yolite.data.mix import copy_paste, mixup
from yolite.data.mosaic import Labelled, compose, mosaic_patches, single_patch
from yolite.data.pictures import Pictures
from yolite.data.transforms import Augment, Damage, FlipAndColour, Warp
from yolite.geometry import Image, Letterbox
from yolite.processes import ALONE, Processes
from yolite.seeding import derived, generator
from yolite.structures import Batch, Sample, Targets

_ORDER, _SAMPLE, _MIX, _WARP, _DAMAGE = 10, 11, 12, 13, 14  # streams of `seeding.generator`
AHEAD = 2
"""Batches that each loader process may be ahead."""
_ASKED = {signal.SIGINT, signal.SIGTERM}
Key = tuple[int, int, bool]
"""(epoch, index of the sample, whether pictures are still put together).

Where an epoch shows a picture several times, its index is that of the picture + k · number of pictures for the k-th
time (from 0): every showing has draws of its own.
"""


def _item(image: Image, boxes: torch.Tensor, labels: torch.Tensor, ignore: torch.Tensor, index: int,
          letterbox: Letterbox) -> tuple[Batch, dict[str, float]]:  # fmt: skip
    """Wrap one finished picture as a batch of one."""
    targets = Targets(boxes, labels, torch.zeros(len(boxes), dtype=torch.int64), ignore)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return Batch(pixels, targets, (letterbox,), (index,)), {}


class TrainSet(Dataset[Batch]):
    """Augmented samples by `Key`."""

    def __init__(self, pictures: Pictures, augment: Augment, seed: int, weights: np.ndarray | None = None) -> None:
        self.pictures, self.augment, self.seed = pictures, augment, seed
        self._chances = None if weights is None else weights / weights.sum()
        canvas, pad = pictures.preprocess.size, pictures.preprocess.pad
        changes: list[Warp | FlipAndColour | Damage]
        changes = [Warp(augment, canvas, pad), FlipAndColour(augment), Damage(augment, pad)]
        self._changes = [
            (stream, change) for stream, change in zip((_WARP, _SAMPLE, _DAMAGE), changes, strict=True) if change.active
        ]

    def _others(self, rng: np.random.Generator, count: int) -> list[int]:
        """Draw pictures to be put together with another one."""
        if self._chances is None:
            return [int(i) for i in rng.integers(len(self.pictures), size=count)]
        return [int(i) for i in rng.choice(len(self.pictures), size=count, p=self._chances)]

    def _draw(self, key: Key) -> tuple[np.random.Generator, list[int]]:
        """Return the generator of a sample and the images it is put together from, its own first."""
        epoch, index, mixing = key
        rng, own = generator(self.seed, _SAMPLE, epoch, index), index % len(self.pictures)
        if mixing and rng.random() < self.augment.mosaic:
            return rng, [own, *self._others(rng, 3)]
        return rng, [own]

    def _draw_mix(self, key: Key) -> tuple[np.random.Generator, int | None, int | None]:
        """Return the generator of what is mixed in, the image whose boxes are pasted, and the one blended in."""
        epoch, index, mixing = key
        chances = (self.augment.copy_paste, self.augment.mixup)
        rng = generator(self.seed, _MIX, epoch, index)
        donor, blended = (self._others(rng, 1)[0] if mixing and rng.random() < chance else None for chance in chances)
        return rng, donor, blended

    def files(self, key: Key) -> list[Path]:
        """Return the files that a sample is put together from."""
        indices = [i for i in (*self._draw(key)[1], *self._draw_mix(key)[1:]) if i is not None]
        return [path for i in indices if (path := self.pictures.samples[i].path) is not None]

    def _scene(self, rng: np.random.Generator, indices: list[int]) -> Labelled:
        """Put one picture, or four, onto a canvas."""
        canvas, pad = self.pictures.preprocess.size, self.pictures.preprocess.pad
        sources = [self.pictures.labelled(i) for i in indices]
        if len(sources) > 1:
            patches = mosaic_patches(rng, [p.image.shape[:2] for p in sources], canvas, self.augment)
        else:
            patches = [single_patch(rng, sources[0].image.shape[:2], canvas, self.augment)]
        return compose(sources, patches, canvas, pad, self.augment.min_visible)

    def _mixed(self, scene: Labelled, key: Key) -> Labelled:
        """Paste boxes of another picture into a scene, and blend it with another, if this sample is to have it."""
        a = self.augment
        if not (a.copy_paste or a.mixup):
            return scene
        rng, donor, blended = self._draw_mix(key)
        if donor is not None:
            scene = copy_paste(rng, scene, self.pictures.labelled(donor), a.scale, a.min_visible)
        if blended is not None:
            scene = mixup(rng, scene, self._scene(rng, [blended]))
        return scene

    def __getitem__(self, key: Key) -> Batch:
        """Return one augmented picture as a batch of one; everything drawn comes from (seed, epoch, index)."""
        epoch, index, _ = key
        scene = self._mixed(self._scene(*self._draw(key)), key)
        for stream, change in self._changes:
            image, boxes, rows = change(scene.image, scene.boxes, derived(self.seed, stream, epoch, index))
            boxes = clip(boxes, self.pictures.preprocess.size)
            scene = Labelled(image, boxes, scene.labels[rows], scene.ignore[rows])
        letterbox = self.pictures.letterboxes[index % len(self.pictures)]
        return _item(scene.image, scene.boxes, scene.labels, scene.ignore, index, letterbox)[0]


class PlainSet(Dataset[tuple[Batch, dict[str, float]]]):
    """Letterboxed samples without augmentation, by index, with the seconds each step took.

    Args:
        pictures: What to read.
        step: What they are padded to (`Letterbox.fit`).
    """

    def __init__(self, pictures: Pictures, step: int = 0) -> None:
        self.pictures = pictures
        self.letterboxes = [Letterbox.fit(sample.size, pictures.preprocess, step) for sample in pictures.samples]

    def __getitem__(self, index: int) -> tuple[Batch, dict[str, float]]:
        """Return one letterboxed picture as a batch of one.

        Raises:
            ImageError: the file cannot be read.
        """
        image, seconds = self.pictures.read(index)
        start = time.perf_counter()
        letterbox, sample = self.letterboxes[index], self.pictures.samples[index]
        padded = letterbox.pad(image)
        seconds["preprocess"] += time.perf_counter() - start
        return _item(padded, letterbox.apply(sample.boxes), sample.labels, sample.ignore, index, letterbox)[0], seconds

    def __len__(self) -> int:
        return len(self.pictures)


def collate(items: list[Batch]) -> Batch:
    """Join batches of one into a batch; each box learns its picture's place."""
    return Batch(
        torch.cat([item.images for item in items]),
        join_targets([item.targets for item in items]),
        tuple(box for item in items for box in item.letterboxes),
        tuple(i for item in items for i in item.indices),
    )


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys for one epoch at a time, from any step on; several processes take turns in each batch.

    Every epoch goes once through a fresh shuffle of all samples, or of as many drawn by their weights (see
    `yolite.data.balance`); the last batch is filled up from its beginning, so that all batches are equally large. How
    many processes share a batch, and in how many parts each computes its share, changes nothing in which samples make
    up the batch.
    """

    def __init__(
        self, samples: int, batch: int, seed: int, mosaic_epochs: int, parts: int = 1, processes: Processes = ALONE,
        weights: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.samples, self.batch, self.seed, self.mosaic_epochs = samples, batch, seed, mosaic_epochs
        self.parts, self.processes, self.weights = parts, processes, weights
        self.epoch, self.start = 0, 0

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return math.ceil((self.samples if self.weights is None else epoch_size(self.weights)) / self.batch)

    def mosaic_on(self, epoch: int) -> bool:
        """Whether samples of this epoch may be mosaics."""
        return epoch < self.mosaic_epochs

    def __iter__(self) -> Iterator[list[Key]]:
        rng = generator(self.seed, _ORDER, self.epoch)
        order = rng.permutation(self.samples) if self.weights is None else draw_epoch(self.weights, rng)
        order = np.resize(order, self.steps * self.batch)
        mosaic_on = self.mosaic_on(self.epoch)
        for step in range(self.start, self.steps):
            own: list[int] = list(self.processes.share(order[step * self.batch : (step + 1) * self.batch].tolist()))
            for part in np.array_split(np.array(own), self.parts):
                yield [(self.epoch, int(i), mosaic_on) for i in part]

    def __len__(self) -> int:
        return (self.steps - self.start) * self.parts


def _start_process(_: int) -> None:
    """Keep a loader process to one thread, and let the trainer answer signals that reach the whole process group.

    Ctrl-C is the trainer's alone. The first SIGTERM too: the trainer finishes its step, saves, and then ends its
    loader processes; only a second one (from multiprocessing's own clean-up) ends this process.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)  # see TrainLoader.epoch


def _as_it_is(parcel: Any) -> Any:
    """Keep torch from turning the arrays into tensors, each of which would be sent in shared memory of its own."""
    return parcel


def choose_workers(local_world: int) -> int:
    """Decide ``data.workers: auto``: one less than this process's share of the processors, at most 8."""
    return max(0, min(8, (os.cpu_count() or 1) // local_world - 1))


class TrainLoader:
    """Training batches, epoch by epoch, each in ``parts`` that are computed one after another."""

    def __init__(self, pictures: Pictures, augment: Augment, batch: int, seed: int, mosaic_epochs: int,
                 workers: int, parts: int = 1, processes: Processes = ALONE,
                 weights: np.ndarray | None = None) -> None:  # fmt: skip
        self.sampler = EpochSampler(len(pictures), batch, seed, mosaic_epochs, parts, processes, weights)
        self._set = TrainSet(pictures, augment, seed, weights)
        self._workers, self._letterboxes = workers, pictures.letterboxes
        if not workers:
            return
        largest = math.ceil(math.ceil(batch / processes.world) / parts)
        self._handover = Handover[Key](self._set, largest, pictures.preprocess.size, workers * AHEAD + 1)
        self._loader = DataLoader(
            self._handover,
            sampler=Jobs(self._handover, self.sampler),
            batch_size=None,  # a job is a whole batch
            collate_fn=_as_it_is,
            num_workers=workers,
            # pictures in RAM are shared with a process that is forked, and copied for one that is started otherwise
            multiprocessing_context="fork" if sys.platform == "linux" else None,
            prefetch_factor=AHEAD,
            persistent_workers=True,
            worker_init_fn=_start_process,
        )

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.sampler.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the parts of the batches of an epoch from step ``start`` on."""
        self.sampler.epoch, self.sampler.start = epoch, start
        if not self._workers:
            return (collate([self._set[key] for key in keys]) for keys in self.sampler)
        # Loader processes start here. A signal that comes before they can answer it waits until they can.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
        try:
            parcels = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
        return (self._handover.unpack(parcel, self._letterboxes) for parcel in parcels)

    def close(self) -> None:
        """End the loader processes now; left to the garbage collector, they may outlast the program's last line.

        Python's way out sends each one SIGTERM and waits for it, and the first SIGTERM is not theirs to follow
        (`_start_process`): a program that had not ended them by then would never end.
        """
        if self._workers and (running := self._loader._iterator) is not None:
            running._shutdown_workers()  # type: ignore[attr-defined]

    def files(self, epoch: int, indices: Sequence[int]) -> list[Path]:
        """Return the files that the samples with these indices were put together from in an epoch."""
        on = self.sampler.mosaic_on(epoch)
        return [path for index in indices for path in self._set.files((epoch, index, on))]


def plain_batches(
    pictures: Pictures, batch: int, on_error: Callable[[Sample, str], None], indices: Iterable[int] | None = None, *,
    step: int,
) -> Iterator[tuple[Batch, dict[str, float]]]:  # fmt: skip
    """Yield letterboxed batches, with the seconds spent; unreadable images are reported and left out.

    Images of one input size make up a batch: they come by size, and in order within each.

    Args:
        pictures: What to read.
        batch: Images at once.
        on_error: Called with each image that cannot be read, and why.
        indices: Those to read; None: all.
        step: What they are padded to (`Letterbox.fit`); that of an `Inference`, or 0.
    """
    data = PlainSet(pictures, step)
    items: list[Batch] = []
    spent = {"decode": 0.0, "preprocess": 0.0}
    for index in sorted(range(len(data)) if indices is None else indices, key=lambda i: data.letterboxes[i].input):
        try:
            item, seconds = data[index]
        except ImageError as error:
            on_error(pictures.samples[index], str(error))
            continue
        if items and (len(items) == batch or item.images.shape != items[0].images.shape):
            yield collate(items), spent
            items, spent = [], dict.fromkeys(spent, 0.0)
        items.append(item)
        spent = {name: spent[name] + seconds[name] for name in spent}
    if items:
        yield collate(items), spent
