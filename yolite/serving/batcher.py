"""Micro-batching: pictures of several requests that wait at the same time go through the network together."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from yolite.geometry import Image, Letterbox
from yolite.inference import Inference
from yolite.postprocess import Thresholds
from yolite.structures import Detections


@dataclass
class _Waiting:
    """One letterboxed picture [3, H, W] and who waits for its boxes."""

    pixels: Tensor
    letterbox: Letterbox
    conf: float
    answer: Future[Detections] = field(default_factory=Future)


class Batcher:
    """One thread that runs the network; others hand it pictures.

    A batch is what waits when the network becomes free, at most ``most``: nobody waits for a batch to fill up, and the
    busier the server, the larger its batches.

    Args:
        inference: The detector at work; this thread alone calls it.
        iou: NMS threshold.
        max_det: Most boxes a picture.
        most: Most pictures at once.

    Attributes:
        batches, pictures: How many have been computed.
    """

    def __init__(self, inference: Inference, iou: float, max_det: int, most: int) -> None:
        self.inference, self.iou, self.max_det, self.most = inference, iou, max_det, most
        self.batches = self.pictures = 0
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="yolite-batcher", daemon=True)
        self._thread.start()

    def submit(self, image: Image, conf: float) -> Future[Detections]:
        """Ask for the boxes of a picture [H, W, 3] uint8 RGB that score above ``conf``."""
        letterbox = self.inference.letterbox((image.shape[0], image.shape[1]))
        waiting = _Waiting(torch.from_numpy(letterbox.pixels(image)).permute(2, 0, 1), letterbox, conf)
        self._waiting.put(waiting)
        return waiting.answer

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _next(self) -> list[_Waiting]:
        """Wait for a picture, take along what waits beside it; empty at the end."""
        batch: list[_Waiting] = []
        while len(batch) < self.most:
            try:
                one = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if one is None:
                self._waiting.put(None)  # the end is for the next call too
                break
            batch.append(one)
        return batch

    def _run(self) -> None:
        """Answer batch after batch."""
        while batch := self._next():
            try:
                for one, found in zip(batch, self._detect(batch), strict=True):
                    one.answer.set_result(found)
            except Exception as error:  # whoever waits is to hear of it; the thread goes on
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)

    def _detect(self, batch: list[_Waiting]) -> list[Detections]:
        """Run the network; each picture keeps what is above its own threshold.

        With hard NMS a box is only ever dropped by a better one, so cutting after NMS is the same as cutting before.
        """
        limits = Thresholds(min(one.conf for one in batch), self.iou, self.max_det, best_class=True)
        found = self.inference([one.pixels for one in batch], [one.letterbox for one in batch], limits)
        self.batches, self.pictures = self.batches + 1, self.pictures + len(batch)
        return [boxes[boxes.scores > one.conf] for one, boxes in zip(batch, found, strict=True)]

    def seconds(self) -> dict[str, Any]:
        """Return the seconds that the network and the steps around it have taken."""
        return dict(self.inference.seconds)
