"""Where detect's findings go: pictures and videos with boxes, JSON, lines for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from yolite.ahead import Behind
from yolite.console import Console
from yolite.result import Result
from yolite.sources import Item, Moving
from yolite.video import VideoWriter

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def places_of(out: Path, items: Sequence[Item]) -> dict[str, Path]:
    """Return where each source's picture or video goes: its own name, numbered where two sources share one."""
    places: dict[str, Path] = {}
    taken: set[Path] = set()
    for item in items:
        if isinstance(item.content, Path):
            stem, suffix = item.content.stem, item.content.suffix.lower()
        else:
            stem, suffix = (
                "".join(c if c.isalnum() else "-" for c in item.source.partition("://")[2] or item.source),
                "",
            )
        ending = ".mp4" if isinstance(item, Moving) else suffix if suffix in PICTURES else ".jpg"
        path, number = out / f"{stem}{ending}", 2
        while path in taken:
            path, number = out / f"{stem}-{number}{ending}", number + 1
        places[item.source] = path
        taken.add(path)
    return places


def _names(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"


def line_of(result: Result) -> str:
    """Return what was found on one picture, for people: ``a.jpg 640x480: 2 cat, 1 dog``."""
    if result.error is not None:
        return f"{result.source}: {result.error}"
    height, width = result.detections.size
    return f"{result.source} {width}x{height}: {_names(Counter(result.names[i] for i in result.labels.tolist()))}"


@dataclass
class Tally:
    """What came of the sources (of one process).

    Attributes:
        entries: JSON entries of pictures, where they are asked for.
        bad: Why each source that gave no picture could not be read.
        pictures, frames, broken, boxes, capped: Counts; ``broken`` of frames.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    pictures: int = 0
    frames: int = 0
    broken: int = 0
    boxes: int = 0
    capped: int = 0


class _Video:
    """One video that is being detected on: what was found so far, and the video with boxes."""

    def __init__(self, path: Path, live: bool, stride: int) -> None:
        self.path, self.live, self.stride = path, live, stride
        self.writer: VideoWriter | None = None
        self.frames, self.broken, self.error, self.counts = 0, 0, "", Counter[str]()
        self.unsaid: list[str] = []

    def add(self, result: Result) -> None:
        """Write one frame; runs in the background, frame after frame."""
        if self.writer is None:
            self.writer = VideoWriter(self.path, (result.rate or 1) / (1 if self.live else self.stride))
        shown = result.drawn() if result.image is not None else None
        self.writer.add(shown, result.seconds if self.live else None)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class Findings:
    """Takes result after result; pictures and frames are written in the background.

    Args:
        items: The sources of this process.
        places: Where each one's picture or video goes.
        lines: File for a line of JSON a picture or frame as it comes, or None: JSON entries are kept in the tally.
        stride: Every so many-th frame of a video file is detected on.
        console: What people see.
    """

    def __init__(
        self, items: Sequence[Item], places: dict[str, Path], lines: Path | None, stride: int, console: Console
    ) -> None:
        self.tally = Tally()
        self._places, self._console = places, console
        self._videos = {i.source: _Video(places[i.source], i.live, stride) for i in items if isinstance(i, Moving)}
        self._open: str | None = None
        self._lines: IO[str] | None = lines.open("w", encoding="utf-8") if lines else None
        self._pictures, self._frames = Behind(2, 4), Behind(1, 4)

    def take(self, result: Result) -> None:
        """Write one result."""
        tally = self.tally
        tally.boxes += len(result.detections)
        tally.capped += result.detections.capped
        if self._lines:
            self._lines.write(json.dumps(result.to_json()) + "\n")
        if result.note:
            self._console.warn(f"{result.source}: {result.note}")
        if result.source in self._videos:
            self._frame(result, self._videos[result.source])
            return
        if not self._lines:
            tally.entries.append(result.to_json())
        if result.error is not None:
            tally.bad.append(line_of(result))
        else:
            tally.pictures += 1
            self._pictures.do(partial(result.save, self._places[result.source]))
            self._console.say(line_of(result))

    def _frame(self, result: Result, video: _Video) -> None:
        if self._open not in (None, result.source) and not video.live:
            self._finish_video(str(self._open))  # the next video has begun
        self._open = result.source
        if result.error is not None:
            video.error = result.error
            video.unsaid.append(f"{result.source}, frame {result.frame}: {result.error}")
        else:
            video.frames += 1
            self.tally.frames += 1
            video.counts.update(result.names[i] for i in result.labels.tolist())
        if video.frames or video.live:  # of a file without any frame one line is enough, at its end
            for text in video.unsaid:
                self._console.warn(text)
            video.broken += len(video.unsaid)
            self.tally.broken += len(video.unsaid)
            video.unsaid.clear()
        if video.frames:
            self._frames.do(partial(video.add, result))

    def _finish_video(self, source: str) -> None:
        video = self._videos.pop(source, None)
        if video is None:
            return
        self._frames.wait()
        video.close()
        if not video.frames:
            if video.error:
                self.tally.bad.append(f"{source}: {video.error}")
            return
        broken = f", {video.broken} broken" if video.broken else ""
        self._console.say(f"{source}: {video.frames} frames{broken}, {_names(video.counts)}; video in {video.path}")

    def close(self) -> None:
        """Finish every file, also after an interrupt; a video is playable after this."""
        try:
            self._pictures.finish()
        finally:
            try:
                for source in list(self._videos):
                    self._finish_video(source)
                self._frames.finish()
            finally:
                if self._lines:
                    self._lines.close()
