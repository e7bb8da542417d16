"""Moving pictures through OpenCV: video files, cameras and network streams, and the video that is written."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolite.errors import UserError
from yolite.geometry import Image, resize

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a damaged video is said once, in our words

SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"})
"""File name endings that count as videos."""

GIVE_UP = 25
"""So many broken frames in a row are taken for the end of a video file."""
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)
"""Seconds before each attempt to reach a stream again that was lost."""
RATE = 25.0
"""Frames a second that are written where a stream does not state its rate."""


@dataclass(frozen=True)
class Frame:
    """One frame, or why there is none.

    Attributes:
        number: Its place in the video, from 0; of a stream, how many came before it.
        seconds: When it is shown, from the start; of a stream: when it came.
        rate: Frames a second of its video, as stated (else `RATE`).
        image: [H, W, 3] uint8 RGB, or None where it is broken.
        error: Why there is no image, or None.
        note: What happened to the stream before this frame, or None.
    """

    number: int
    seconds: float
    rate: float
    image: Image | None
    error: str | None = None
    note: str | None = None


def open_capture(address: str | int) -> Any:
    """Open a file, a camera (by its number) or a stream with OpenCV."""
    return cv2.VideoCapture(address)


def _stated(capture: Any, what: int, most: float) -> float:
    """Return what the header states, or 0 where it states nothing of use."""
    value = float(capture.get(what))
    return value if 0 < value < most else 0.0


def _rgb(image: Any) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


class VideoFile:
    """A video file.

    Args:
        path: The file.

    Attributes:
        rate: Frames a second as stated, else `RATE`.
        frames: How many the header states; 0 where it does not.
        error: Why it cannot be opened, or None.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        capture = open_capture(str(path))
        self.error = None if capture.isOpened() else "it cannot be opened as a video: damaged or an unknown format"
        self.rate = _stated(capture, cv2.CAP_PROP_FPS, 1000) or RATE
        self.frames = int(_stated(capture, cv2.CAP_PROP_FRAME_COUNT, 1e9))
        capture.release()

    def read(self, stride: int = 1) -> Iterator[Frame]:
        """Yield every ``stride``-th frame; one that cannot be decoded has an error.

        A video without any frame, and one that breaks off before its stated end, yield one frame that says so.
        """
        capture = open_capture(str(self.path))
        try:
            yield from self._read(capture, stride)
        finally:
            capture.release()

    def _read(self, capture: Any, stride: int) -> Iterator[Frame]:
        number, good, broken = 0, 0, list[int]()
        while len(broken) < GIVE_UP:
            at, image = number / self.rate, None
            left = number < self.frames  # what a file states may be an estimate: it is read to its end
            ok = capture.grab()
            if ok and number % stride == 0:
                ok, image = capture.retrieve()
            if ok:
                yield from (Frame(n, n / self.rate, self.rate, None, "the frame cannot be decoded") for n in broken)
                good, broken = good + 1, []
                if image is not None:
                    yield Frame(number, at, self.rate, _rgb(image))
            elif left:
                broken.append(number)
            else:
                break
            number += 1
        if not good:
            yield Frame(0, 0.0, self.rate, None, self.error or "a video without a frame that can be read")
        elif broken:
            at = broken[0] / self.rate
            why = f"the video ends after {broken[0]} of the {self.frames} frames it states"
            yield Frame(broken[0], at, self.rate, None, why)


class Stream:
    """A camera or a network stream: a thread reads it, and only the newest frame waits, so that nothing lags behind.

    Args:
        address: A camera's number, or a URL.
        opener: Opens ``address``; see `open_capture`.
        wait: Sleeps some seconds; returns True when the stream is to be given up.

    Attributes:
        rate: Frames a second as stated, else `RATE`.
        skipped: Frames that came faster than they were asked for.
        ended: Whether no more will come.
    """

    def __init__(
        self,
        address: str | int,
        opener: Callable[[str | int], Any] | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.address, self.rate, self.skipped, self.ended = address, RATE, 0, False
        self._open = opener or open_capture
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._lock = threading.Lock()
        self._newest: Frame | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self) -> Frame | None:
        """Return the newest frame if there is one that was not taken yet."""
        with self._lock:
            frame, self._newest = self._newest, None
            return frame

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _put(self, frame: Frame) -> None:
        with self._lock:
            waiting = self._newest
            if waiting is not None:
                self.skipped += 1
                # what happened before a frame that nobody took happened before this one too
                notes = "; ".join(n for n in (waiting.note, frame.note) if n) or None
                frame = replace(frame, note=notes)
            self._newest = frame

    def _work(self) -> None:
        try:
            self._follow()
        except Exception as error:  # a thread's exception would be lost
            self._put(Frame(0, 0.0, self.rate, None, f"reading failed ({type(error).__name__}: {error})"))
        finally:
            self.ended = True

    def _follow(self) -> None:
        """Read until the end; where the stream is lost, try again after each of `WAITS`."""
        began = time.monotonic()
        number, tries, note = 0, 0, None
        capture = self._open(self.address)
        if not capture.isOpened():
            self._put(
                Frame(0, 0.0, self.rate, None, "it cannot be opened: check the address, and that nothing else uses it")
            )
            return
        self.rate = _stated(capture, cv2.CAP_PROP_FPS, 240) or RATE
        ends = _stated(capture, cv2.CAP_PROP_FRAME_COUNT, 1e9) > 0  # a file behind a URL
        while not self._stop.is_set():
            ok, image = capture.read()
            seconds = time.monotonic() - began
            if ok and image is not None:
                self._put(Frame(number, seconds, self.rate, _rgb(image), note=note))
                number, tries, note = number + 1, 0, None
                continue
            capture.release()
            if ends:
                return
            if tries == len(WAITS):
                self._put(Frame(number, seconds, self.rate, None, f"lost, and not reached again in {tries} attempts"))
                return
            if self._wait(WAITS[tries]):
                return
            tries += 1
            note = f"lost after {number} frames, reached again at attempt {tries}"
            capture = self._open(self.address)
        capture.release()


def read_streams(streams: list[Stream], idle: float = 0.002) -> Iterator[tuple[Stream, Frame]]:
    """Yield the newest frame of each stream in turn until all have ended."""
    for stream in streams:
        stream.start()
    try:
        left = list(streams)
        while left:
            came = False
            for stream in list(left):
                ended = stream.ended  # asked before taking: what came last is not lost
                frame = stream.take()
                if frame is not None:
                    came = True
                    yield stream, frame
                elif ended:
                    left.remove(stream)
            if not came:
                time.sleep(idle)
    finally:
        for stream in streams:
            stream.close()


class VideoWriter:
    """An MP4 that is made frame by frame; playable once it is closed.

    Args:
        path: Where to.
        rate: Frames a second.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate, self.frames = path, rate, 0
        self._writer: Any = None
        self._size = (0, 0)
        self._last: Image | None = None

    def add(self, image: Image | None, seconds: float | None = None) -> None:
        """Add a frame [H, W, 3] uint8 RGB; None repeats the last one.

        Args:
            image: All frames get the size of the first.
            seconds: When it is to be shown, for a stream whose frames come unevenly: the last frame stays till then.
        """
        if seconds is not None and self._last is not None:
            while self.frames < round(seconds * self.rate):
                self._write(self._last)
            if self.frames > round(seconds * self.rate) + 1:
                return  # two frames came within the time of one
        image = self._last if image is None else image
        if image is not None:
            self._write(image)
            self._last = image

    def _write(self, image: Image) -> None:
        if self._writer is None:
            self._size = (image.shape[0], image.shape[1])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, (image.shape[1], image.shape[0]))
            if not self._writer.isOpened():
                raise UserError(f"video {self.path} cannot be written: choose another --out")
        self._writer.write(cv2.cvtColor(resize(image, self._size), cv2.COLOR_RGB2BGR))
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
