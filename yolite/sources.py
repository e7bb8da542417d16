"""What is to be detected on: pictures as files, pixels or bytes, videos, cameras and streams, in a stable order."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageOps

from yolite import video
from yolite.ahead import read_ahead
from yolite.data.images import SUFFIXES, ImageError, decode, image_files, read_bytes
from yolite.errors import UserError
from yolite.files import read_json, read_lines
from yolite.geometry import Image
from yolite.video import Stream, VideoFile, read_streams

Ready = TypeVar("Ready")
FRAMES_AHEAD = 4
"""Frames of a video file that are decoded in advance."""


@dataclass(frozen=True)
class Picture:
    """One picture, or why there is none; the fields are those of `yolite.result.Result`."""

    source: str
    image: Image | None
    error: str | None = None
    path: Path | None = None
    frame: int | None = None
    seconds: float | None = None
    rate: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Still:
    """One picture: a file, or pixels or bytes that were given.

    Attributes:
        source: How it is called.
        content: A path, the bytes of an image file, or pixels [H, W, 3].
    """

    source: str
    content: Path | bytes | Image

    def read(self) -> Picture:
        """Decode it."""
        content = self.content
        path = content if isinstance(content, Path) else None
        if isinstance(content, np.ndarray):
            return Picture(self.source, content)
        try:
            image, header = decode(content if isinstance(content, bytes) else read_bytes(content))
        except ImageError as error:
            return Picture(self.source, None, str(error), path)
        note = "it has several frames or pages: the first alone was looked at" if header.frames else None
        note = f"it is damaged inside ({header.damage}): looked at as it decodes" if header.damage else note
        return Picture(self.source, image, None, path, note=note)


@dataclass(frozen=True)
class Moving:
    """A video file, or a camera or stream."""

    source: str
    content: Path | int | str

    @property
    def live(self) -> bool:
        """Whether it is a camera or a stream."""
        return not isinstance(self.content, Path)


Item = Still | Moving

_URL = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp|rtp|srt|mms)://.+", re.IGNORECASE)


def items_of(sources: Any, bgr: bool = False) -> Iterator[Item]:
    """Yield what the sources name, files once each.

    Args:
        sources: One source or an iterable of them. A source is a path, folder (its pictures and videos, searched
            through), pattern, list (``.txt``, one source a line; or a COCO json), camera number, stream address, the
            bytes of an image file, a Pillow image, a NumPy array ([H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; uint8 or
            uint16), or a tensor ([3, H, W] or [B, 3, H, W]; uint8, or float from 0 to 1).
        bgr: Whether the channels of NumPy arrays are blue, green, red (OpenCV's order) in place of RGB.

    Raises:
        UserError: a source does not exist, or is of a kind that is not known.
    """
    one = isinstance(sources, (str, Path, int, bytes, bytearray, np.ndarray, torch.Tensor, PillowImage.Image, Item))
    seen: set[Path] = set()
    count = 0
    for source in [sources] if one else sources:
        for item in _named(source) if isinstance(source, (str, Path, int)) else _given(source, count, bgr):
            if isinstance(item.content, Path):
                if item.content in seen:
                    continue
                seen.add(item.content)
            elif isinstance(item, Still):
                count += 1
            yield item


def require_items(sources: Sequence[str | Path]) -> list[Item]:
    """List what the sources name.

    Raises:
        UserError: a source does not exist, or there is none.
    """
    found = list(items_of(sources))
    if not found:
        raise UserError("no source was given: give image files, folders, patterns, videos or cameras")
    return found


def _file(path: Path) -> Item:
    return (Moving if path.suffix.lower() in video.SUFFIXES else Still)(str(path), path)


def _named(source: str | Path | int) -> list[Item]:
    """Return what a name stands for: a file that exists goes before a camera's number."""
    text, path = str(source), Path(source) if not isinstance(source, int) else Path()
    if isinstance(source, int) or (text.isdecimal() and not os.path.lexists(path)):
        return [Moving(f"camera {text}", int(text))]
    if _URL.fullmatch(text):
        return [Moving(text, text)]
    if path.is_dir():
        inside = image_files(path, SUFFIXES | video.SUFFIXES)
        if not inside:
            raise UserError(f"folder {path} holds no images ({', '.join(sorted(SUFFIXES))}) or videos: check the path")
        return [_file(p) for p in inside]
    if path.suffix.lower() == ".txt" and path.is_file():
        return _listed(path)
    if path.suffix.lower() == ".json" and path.is_file():
        return _listed_in_json(path)
    if path.is_file():
        return [_file(path)]
    if glob.has_magic(text):
        matches = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if Path(p).is_file()]
        if not matches:
            raise UserError(f"pattern {text!r} matches no file: check it (quote it against the shell)")
        return [_file(p) for p in matches]
    raise UserError(f"source {path} does not exist: give image files, folders, patterns, videos or cameras")


def _listed(path: Path) -> list[Item]:
    """Return what the lines of a list name; relative paths start at the list's folder. A list names no further list."""
    lines = read_lines(path)
    if not lines:
        raise UserError(f"list {path} is empty: write one source a line")
    found: list[Item] = []
    for line in lines:
        plain = line.isdecimal() or _URL.fullmatch(line)
        if line.lower().endswith(".txt"):
            raise UserError(f"list {path} names another list ({line}): give both instead")
        found += _named(line if plain else path.parent / line)
    return found


def _listed_in_json(file: Path) -> list[Item]:
    """Return the images that a COCO json lists, in its order; their names count from its folder, or images/ beside it.

    Raises:
        UserError: it lists none.
    """
    content = read_json(file)
    images = content.get("images") if isinstance(content, dict) else None
    entries = [image if isinstance(image, dict) else {} for image in images] if isinstance(images, list) else []
    names = [name for entry in entries if isinstance(name := entry.get("file_name"), str)]
    if not names or len(names) < len(entries):
        raise UserError(f"source {file} is no list of images (a COCO json with images and their file_name)")
    folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    return [_file(folder / name) for name in names]


def _given(source: Any, count: int, bgr: bool) -> list[Item]:
    """Return pictures that were given as pixels or bytes, the first with the number ``count``."""
    if isinstance(source, (Still, Moving)):
        return [source]
    name = f"picture {count}"
    if isinstance(source, (bytes, bytearray)):
        return [Still(name, bytes(source))]
    if isinstance(source, PillowImage.Image):
        return [Still(name, _from_pillow(source))]
    if isinstance(source, np.ndarray):
        return [Still(name, _from_array(source, bgr, name))]
    if isinstance(source, torch.Tensor):
        batch = source[None] if source.ndim == 3 else source
        return [Still(f"picture {count + i}", _from_tensor(one, f"picture {count + i}")) for i, one in enumerate(batch)]
    raise UserError(
        f"{name} is a {type(source).__name__}: give a path, bytes, a Pillow image, a NumPy array or a tensor"
    )


def _from_pillow(picture: PillowImage.Image) -> Image:
    """Return a Pillow image as `yolite.data.images.read_image` would: upright, 16 bits become 8, alpha is dropped."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        return _from_array(np.asarray(picture).astype(np.uint16), False, "picture")
    return np.array(picture.convert("RGB"))


def _from_array(array: Any, bgr: bool, name: str) -> Image:
    """Return an array as [H, W, 3] uint8 RGB.

    Raises:
        UserError: another shape or dtype.
    """
    wide = array[..., None] if array.ndim == 2 else array
    if wide.ndim != 3 or wide.shape[2] not in (1, 3, 4) or 0 in wide.shape or array.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{name} is a NumPy array {list(array.shape)} of {array.dtype}: give [H, W, 3] (or 1 or 4 channels) of "
            "uint8 or uint16"
        )
    if array.dtype == np.uint16:
        wide = (wide >> 8).astype(np.uint8)
    if wide.shape[2] == 1:
        wide = wide.repeat(3, 2)
    return np.ascontiguousarray(wide[..., 2::-1] if bgr else wide[..., :3])


def _from_tensor(tensor: torch.Tensor, name: str) -> Image:
    """Return a tensor as [H, W, 3] uint8 RGB.

    Raises:
        UserError: another shape or dtype, or floats that are not from 0 to 1.
    """
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise UserError(f"{name} is a tensor {list(tensor.shape)}: give [3, H, W] or [B, 3, H, W]")
    if tensor.is_floating_point():
        if not bool(((tensor >= 0) & (tensor <= 1)).all()):
            raise UserError(f"{name} is a float tensor with values outside 0 to 1: give those, or uint8")
        tensor = (tensor * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise UserError(f"{name} is a tensor of {tensor.dtype}: give uint8, or float from 0 to 1")
    return np.ascontiguousarray(tensor.detach().permute(1, 2, 0).cpu().numpy())


def read_items(
    items: Iterable[Item], then: Callable[[Picture], Ready], stride: int = 1, batch: int = 1
) -> Iterator[Ready]:
    """Yield what is made of the pictures of ``items``, in order and a few ahead; cameras and streams last, all at once.

    Args:
        items: See `items_of`.
        then: What is done with each picture after it is decoded, in the thread that decoded it.
        stride: Every so many-th frame of a video file.
        batch: So many are taken at once: while they are worked on, the next ones are decoded.
    """

    def read(still: Still) -> Ready:
        return then(still.read())

    workers = max(2, min(8, os.cpu_count() or 1))
    waiting: deque[Future[Ready]] = deque()
    live: dict[Stream, Moving] = {}
    pool = ThreadPoolExecutor(workers)
    # These threads and the network's are enough: OpenCV's own would compete with both (a fifth less pictures a second).
    opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for item in items:
            if isinstance(item, Still):
                waiting.append(pool.submit(read, item))
                if len(waiting) > workers + batch:
                    yield waiting.popleft().result()
            elif isinstance(item.content, Path):
                while waiting:
                    yield waiting.popleft().result()
                frames = (
                    then(Picture(item.source, f.image, f.error, item.content, f.number, f.seconds, f.rate, f.note))
                    for f in VideoFile(item.content).read(stride)
                )
                yield from read_ahead(frames, FRAMES_AHEAD + batch)
            else:
                live[Stream(item.content)] = item
        while waiting:
            yield waiting.popleft().result()
        for stream, f in read_streams(list(live)):
            yield then(Picture(live[stream].source, f.image, f.error, None, f.number, f.seconds, f.rate, f.note))
    finally:
        if opencv_threads > 1:  # else another reading is under way, which puts it back
            cv2.setNumThreads(opencv_threads)
        pool.shutdown(cancel_futures=True)
