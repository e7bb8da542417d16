"""How finished batches get from the loader processes to the trainer: through buffers made once and used in turn.

Sent the ordinary way, every batch would lie in a new piece of shared memory, whose pages the system has to make one by
one: for small pictures that takes longer than putting the batch together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from yolite.errors import UserError
from yolite.structures import Batch, Size, Targets

Key = TypeVar("Key")
Job = tuple[int, list[Key]]
"""A buffer, and the samples that go into it."""
Parcel = tuple[int, tuple[int, ...], list[np.ndarray]]
"""A buffer, the indices of its pictures, and the fields of their `Targets`: what goes through the pipe."""


class Handover(Dataset[Parcel], Generic[Key]):
    """Puts batches together in a loader process, and unpacks them in the trainer.

    Args:
        samples: Batches of one picture by key.
        batch: Most pictures a batch.
        size: (H, W) of the pictures.
        buffers: One more than the batches that are under way at once.

    Raises:
        UserError: shared memory has no room for them.
    """

    def __init__(self, samples: Dataset[Batch], batch: int, size: Size, buffers: int) -> None:
        self._samples = samples
        try:
            self._pixels = torch.zeros(buffers, batch, *size, 3, dtype=torch.uint8).share_memory_()
        except RuntimeError as error:
            raise UserError(
                f"shared memory has no room for {buffers * batch * size[0] * size[1] * 3 / 2**20:.0f} MiB of batches "
                f"({str(error).splitlines()[0]}): give it more (docker run --shm-size 1g), or data.workers=0"
            ) from None

    def jobs(self, batches: Iterable[list[Key]]) -> Iterator[Job[Key]]:
        """Give each batch the buffer whose turn it is."""
        for number, keys in enumerate(batches):
            yield number % len(self._pixels), keys

    def __getitem__(self, job: Job[Key]) -> Parcel:
        """Put one batch together (in a loader process)."""
        buffer, keys = job
        items = [self._samples[key] for key in keys]
        for place, item in enumerate(items):
            self._pixels[buffer, place] = item.images[0].permute(1, 2, 0)
        targets = join_targets([item.targets for item in items])
        indices = tuple(i for item in items for i in item.indices)
        return buffer, indices, [getattr(targets, f.name).numpy() for f in fields(Targets)]

    def unpack(self, parcel: Parcel, letterboxes: Sequence[Any]) -> Batch:
        """Copy a batch out of its buffer, which is then free (in the trainer); ``letterboxes`` by picture."""
        buffer, indices, parts = parcel
        pixels = self._pixels[buffer, : len(indices)].permute(0, 3, 1, 2)
        images = pixels.pin_memory() if torch.cuda.is_available() else pixels.clone()
        boxes = tuple(letterboxes[i % len(letterboxes)] for i in indices)
        return Batch(images, Targets(*(torch.from_numpy(part) for part in parts)), boxes, indices)


class Jobs(Sampler[Job[Key]]):
    """The jobs of the batches that a sampler gives."""

    def __init__(self, handover: Handover[Key], sampler: Sampler[list[Key]]) -> None:
        self._handover, self._sampler = handover, sampler

    def __iter__(self) -> Iterator[Job[Key]]:
        return self._handover.jobs(self._sampler)


def join_targets(items: Sequence[Targets]) -> Targets:
    """Join the targets of single pictures; each box learns its picture's place."""
    image = [torch.full_like(item.image, place) for place, item in enumerate(items)]
    return Targets(
        torch.cat([item.boxes for item in items]),
        torch.cat([item.labels for item in items]),
        torch.cat(image),
        torch.cat([item.ignore for item in items]),
    )
