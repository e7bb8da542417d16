"""Samples as pictures of training size: from their files, or decoded once into RAM or into a memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from yolite.data.images import ImageError, read_image
from yolite.data.mosaic import Labelled
from yolite.errors import UserError
from yolite.files import clear_leftovers, write_json
from yolite.geometry import Image, Letterbox, resize
from yolite.structures import Preprocess, Sample

Progress = Callable[[int, int], None]


class Pictures:
    """Samples as pictures resized for the network (not yet padded), from a cache or from their files.

    Args:
        samples: What to read; every one has a path.
        preprocess: The input size and mode.
    """

    def __init__(self, samples: list[Sample], preprocess: Preprocess) -> None:
        self.samples = samples
        self.preprocess = preprocess
        self.letterboxes = [Letterbox.fit(sample.size, preprocess) for sample in samples]
        self._cache: Sequence[Image] | None = None

    @property
    def cache_bytes(self) -> int:
        """Size of the whole cache."""
        return sum(3 * box.content[0] * box.content[1] for box in self.letterboxes)

    def fill_cache(self, progress: Progress | None = None, folder: Path | None = None) -> list[tuple[Sample, str]]:
        """Decode every picture once, on all processors; return the samples that could not be decoded, and why.

        Those are taken out of ``samples``.

        Args:
            progress: Called with (done, in all).
            folder: Where the memory-mapped file goes, or lies from an earlier run; None: into RAM.

        Raises:
            UserError: the file cannot be written.
        """
        if folder is None:
            results: Sequence[Image | str] = list(self._decode(progress))
        else:
            results = self._mapped(folder, progress)
        bad = [(s, r) for s, r in zip(self.samples, results, strict=True) if isinstance(r, str)]
        good = [i for i, r in enumerate(results) if not isinstance(r, str)]
        self._cache = [r for r in results if not isinstance(r, str)]
        self.samples = [self.samples[i] for i in good]
        self.letterboxes = [self.letterboxes[i] for i in good]
        return bad

    def _decode(self, progress: Progress | None) -> Iterator[Image | str]:
        """Yield every resized picture in order, or why there is none."""

        def one(index: int) -> Image | str:
            try:
                return resize(read_image(self.path(index)), self.letterboxes[index].content)
            except ImageError as error:
                return str(error)

        count, threads = len(self.samples), os.cpu_count() or 1
        with ThreadPoolExecutor(threads) as pool:
            # a few ahead, not all: a slow disk would let decoded pictures fill the memory
            begun = deque(pool.submit(one, index) for index in range(min(count, 4 * threads)))
            for done in range(1, count + 1):
                result = begun.popleft().result()
                if done + len(begun) < count:
                    begun.append(pool.submit(one, done + len(begun)))
                yield result
                if progress:
                    progress(done, count)

    def _stamps(self) -> tuple[str, str]:
        """Return a name for this set of pictures at this size, and a hash that changes with any of their files.

        A file's size, its times of change (the system sets ctime; copying an old date onto a file moves it) and its
        inode stand for its content: reading every byte would take as long as decoding small pictures does.
        """
        name, content = hashlib.sha256(f"1 {self.preprocess.size} {self.preprocess.mode}".encode()), hashlib.sha256()
        for index, letterbox in enumerate(self.letterboxes):
            path = self.path(index)
            name.update(os.fsencode(path.resolve()) + b"\n")
            try:
                s = path.stat()
                content.update(f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino} {letterbox.content}\n".encode())
            except OSError:
                content.update(b"missing\n")
        return name.hexdigest()[:20], content.hexdigest()

    def cache_file(self, folder: Path) -> Path:
        """Return where the memory-mapped file of these pictures lies, or would lie."""
        return folder / f"{self._stamps()[0]}.bin"

    def _mapped(self, folder: Path, progress: Progress | None) -> list[Image | str]:
        """Map the cache file, built first where it is missing or of other content."""
        name, content = self._stamps()
        file, index = folder / f"{name}.bin", folder / f"{name}.json"
        rows = _rows_of(file, index, content)
        if rows is None:
            rows = self._build(file, progress)
            write_json(index, {"content": content, "rows": rows})
        pixels = np.memmap(file, np.uint8, "r") if any(not isinstance(r, str) for r in rows) else np.zeros(0, np.uint8)
        return [
            row if isinstance(row, str) else pixels[row[0] : row[0] + 3 * row[1] * row[2]].reshape(row[1], row[2], 3)
            for row in rows
        ]

    def _build(self, file: Path, progress: Progress | None) -> list[list[int] | str]:
        """Write the cache file; return (offset, H, W) of each picture, or why there is none."""
        rows: list[list[int] | str] = []
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        at = 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(file.parent, file.stem)
            if shutil.disk_usage(file.parent).free < self.cache_bytes:
                raise OSError("not enough free space")
            file.with_suffix(".json").unlink(missing_ok=True)  # of another content: no run shall find the two mixed
            with temporary.open("wb") as out:
                for picture in self._decode(progress):
                    if isinstance(picture, str):
                        rows.append(picture)
                        continue
                    out.write(np.ascontiguousarray(picture).data)
                    rows.append([at, picture.shape[0], picture.shape[1]])
                    at += picture.size
            temporary.replace(file)
        except OSError as error:
            raise UserError(
                f"the cache of decoded images {file} cannot be written ({error.strerror or error}): free "
                f"{self.cache_bytes / 2**30:.1f} GiB, or give data.cache=off"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
        return rows

    def path(self, index: int) -> Path:
        """Return the file of a picture.

        Raises:
            ImageError: the data set was read without images.
        """
        path = self.samples[index].path
        if path is None:
            raise ImageError("the data set was read without images")
        return path

    def read(self, index: int) -> tuple[Image, dict[str, float]]:
        """Return the resized picture (not to be changed) and the seconds spent on decoding and resizing.

        Raises:
            ImageError: the file cannot be read.
        """
        if self._cache is not None:
            return self._cache[index], {"decode": 0.0, "preprocess": 0.0}
        start = time.perf_counter()
        image = read_image(self.path(index))
        decoded = time.perf_counter()
        image = resize(image, self.letterboxes[index].content)
        return image, {"decode": decoded - start, "preprocess": time.perf_counter() - decoded}

    def labelled(self, index: int) -> Labelled:
        """Return the resized picture with its boxes in its own px; an unreadable one becomes grey without boxes."""
        sample, letterbox = self.samples[index], self.letterboxes[index]
        try:
            image, _ = self.read(index)
        except ImageError as error:
            # With a cache it was reported and left out before; without one the run goes on with a grey picture.
            # (said from a loader process, which has no console)
            print(f"warning: {sample.path}: {error}; taken as an empty grey picture", file=sys.stderr)
            image = np.full((*letterbox.content, 3), self.preprocess.pad, np.uint8)
            return Labelled(image, torch.zeros(0, 4), sample.labels[:0], sample.ignore[:0])
        return Labelled(image, letterbox.resized(sample.boxes), sample.labels, sample.ignore)

    def __len__(self) -> int:
        return len(self.samples)


def _rows_of(file: Path, index: Path, content: str) -> list[list[int] | str] | None:
    """Return what `Pictures._build` returned for a cache file; None if it is of other content, cut short or damaged."""
    try:
        stored = json.loads(index.read_text())
        rows: list[list[int] | str] = stored["rows"]
        length = sum(3 * row[1] * row[2] for row in rows if not isinstance(row, str))
        return rows if stored["content"] == content and file.stat().st_size == length else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
