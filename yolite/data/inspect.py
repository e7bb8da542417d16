"""Looking into every image of a data set once, in several processes.

What was found is kept in the user's cache folder, by a hash of each file's bytes: a file that changed in any way is
looked at again. Names, places and labels are not kept at all, so nothing about them can be out of date. No shortcut by
size and time of change is taken: hashing costs about a hundredth of decoding, and times can be set back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields, replace
from pathlib import Path

import cv2
import PIL
import simplejpeg

from yolite.data.dataset import Split
from yolite.data.duplicates import find_duplicates
from yolite.data.look import Look, look_at, problems_of
from yolite.errors import UserError
from yolite.files import clear_leftovers, write_atomically
from yolite.paths import cache_folder

_MADE_BY = [2, cv2.__version__, PIL.__version__, simplejpeg.__version__]
"""Findings of another form or of other decoders are not used."""
KEPT_DAYS = 30
"""So long what was found of a data set is kept without being used."""
KEPT_UNUSED = 1000
"""So many looks at images that a data set no longer has, or as many as it has images, are kept."""
_CHUNK = 16
_WORTH = 64
"""Fewer images than this a process are not worth starting it."""

_known: frozenset[str] = frozenset()


def _start_process(known: frozenset[str]) -> None:
    """Keep a process to one thread and leave Ctrl-C to the one that started it."""
    global _known
    _known = known
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _look_at_all(paths: Sequence[Path]) -> list[Look]:
    """Look at a chunk of files in a process of `_looks`."""
    return [look_at(path, _known) for path in paths]


def _looks(paths: Sequence[Path], known: frozenset[str]) -> Iterator[Look]:
    """Yield the look of every file, in order, from several processes where that is worth it.

    Raises:
        UserError: a process was ended from outside.
    """
    processes = min(os.cpu_count() or 1, len(paths) // _WORTH)
    if processes < 2:
        yield from (look_at(path, known) for path in paths)
        return
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    context = multiprocessing.get_context()
    try:
        with ProcessPoolExecutor(processes, context, _start_process, (known,)) as pool:
            try:
                for chunk in pool.map(_look_at_all, chunks):
                    yield from chunk
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # else Ctrl-C would wait for all the others
                raise
    except BrokenProcessPool:
        raise UserError(
            "a process that reads the images was ended from outside (is the memory full?): try again"
        ) from None


class Store:
    """The looks of a data set that are kept between calls.

    Args:
        name: What the data set is called; each has a file of its own.
    """

    def __init__(self, name: str) -> None:
        self.path = (
            cache_folder()
            / "looks"
            / f"{hashlib.blake2b(name.encode(errors='replace'), digest_size=8).hexdigest()}.json"
        )

    def load(self) -> dict[str, Look]:
        """Return the looks by digest; none if the file is missing, damaged or of another version."""
        try:
            plain = json.loads(self.path.read_bytes())
            return {row[0]: _checked(row) for row in plain["looks"]} if plain["made_by"] == _MADE_BY else {}
        except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
            return {}

    def touch(self) -> str:
        """Mark the looks as used; return in words where they are."""
        with contextlib.suppress(OSError):
            os.utime(self.path)
        return f"kept in {self.path}"

    def _prune(self) -> None:
        """Remove the looks of data sets that were not used for long, and what killed processes left."""
        clear_leftovers(self.path.parent, "*")
        for file in self.path.parent.glob("*.json"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > KEPT_DAYS * 86400:
                    file.unlink()

    def save(self, looks: Iterable[Look]) -> str:
        """Keep these looks; return in words where they are, or why they are not kept."""
        rows = [list(asdict(look).values()) for look in looks if look.digest]
        own = self.path.with_suffix(f".{os.getpid()}")  # another process may write at the same time
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"made_by": _MADE_BY, "looks": rows})
            write_atomically(own, lambda file: file.write(text.encode()))
            os.replace(own, self.path)
            self._prune()
        except (OSError, UserError):
            return f"not kept for the next time: {self.path.parent} cannot be written"
        return f"kept in {self.path}"


def _checked(row: list[object]) -> Look:
    """Make a Look of a row of the store.

    Raises:
        TypeError: it is none.
    """
    look = Look(*row)  # type: ignore[arg-type]
    for field in fields(Look):
        if type(getattr(look, field.name)).__name__ != field.type:
            raise TypeError(field.name)
    return look


def inspect(
    paths: Sequence[Path], store: Store, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Look], str]:
    """Look at these files, each once.

    Args:
        paths: Image files.
        store: Where looks are kept.
        progress: Called with (images done, images in all).

    Returns:
        The look of each path, and a line about what was done.
    """
    known = store.load()
    files = list(dict.fromkeys(paths))
    found: dict[Path, Look] = {}
    for path, look in zip(files, _looks(files, frozenset(known)), strict=True):
        found[path] = known.get(look.digest, look) if look.digest else look
        if progress:
            progress(len(found), len(files))
    new = {look.digest for look in found.values()} - known.keys() - {""}
    used = {look.digest: look for look in found.values()}
    unused = [look for digest, look in known.items() if digest not in used]  # those used last stand last
    kept = store.save([*unused[-max(KEPT_UNUSED, len(used)) :], *used.values()]) if new else store.touch()
    line = f"{len(files)} images looked into, {len(new)} of them for the first time; what was found is {kept}"
    return [found[path] for path in paths], line


def examine(
    splits: Sequence[Split], name: str, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Split], str]:
    """Look into every image of these roles: what cannot be decoded is left out, what was found is added.

    Args:
        splits: What the readers read, with their images.
        name: What the data set is called, for the store.
        progress: Called with (images done, images in all).

    Returns:
        The splits, and a line about what was done.
    """
    places = [(n, sample, sample.path) for n, split in enumerate(splits) for sample in split.samples if sample.path]
    paths = [path for _, _, path in places]
    looks, line = inspect(paths, Store(name), progress)
    problems = [list(split.problems) for split in splits]
    samples = [[sample for sample in split.samples if sample.path is None] for split in splits]
    seen: set[tuple[int, Path]] = set()
    for (n, sample, path), look in zip(places, looks, strict=True):
        problems[n] += [] if (n, path) in seen else problems_of(path, look)
        seen.add((n, path))
        if not look.kind:
            samples[n].append(sample)
    for place, problem in find_duplicates([splits[n].role for n, _, _ in places], paths, looks):
        problems[places[place][0]].append(problem)
    parts = zip(splits, samples, problems, strict=True)
    return [replace(split, samples=kept, problems=found) for split, kept, found in parts], line
