"""Reading and writing small files: JSON and YAML with one plain sentence on failure, writes whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import yaml

from yolite.errors import UserError
from yolite.paths import can_make

MOST_LABEL_BYTES = 2**26
"""A larger label file is taken for a slip: it would fill the memory."""


def read_text(path: Path) -> str:
    """Return a text file's content, without the byte order mark that some editors put first.

    Raises:
        UserError: it is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def read_label(path: Path) -> bytes:
    """Return the content of a label file of one image.

    Raises:
        OSError: missing, unreadable, no ordinary file (a pipe would block, a device never end) or absurdly large.
    """
    there = path.stat()
    if not stat.S_ISREG(there.st_mode):
        raise OSError("not an ordinary file")
    if there.st_size > MOST_LABEL_BYTES:
        raise OSError(f"{there.st_size / 2**20:.0f} MiB are no labels of one image")
    return path.read_bytes()


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without the space around them.

    Raises:
        UserError: it is missing, unreadable or not UTF-8.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_names(path: Path) -> list[str]:
    """Return the class names of a ``classes.txt``: the line is the id, so that none may be missing.

    Raises:
        UserError: it cannot be read, or a line before the last name is empty.
    """
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if "" in lines:
        where = f"line {lines.index('') + 1}" if any(lines) else "it"
        raise UserError(f"{path}: {where} is empty, but each line names the class of its id, from 0: mend it")
    return lines


def read_json(path: Path) -> Any:
    """Load a JSON file.

    Raises:
        UserError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({str(error)[:100]})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Load a YAML file that holds a mapping; an empty file is an empty mapping.

    Raises:
        UserError: it cannot be read, is not YAML, or not a mapping.
    """
    try:
        loaded = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not valid YAML: {reason}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must hold keys and values, not a {type(loaded).__name__}")
    return loaded


def check_writable(path: Path, flag: str) -> None:
    """Refuse an output file that cannot be written, before the long work instead of after it.

    Raises:
        UserError: it is a folder or no ordinary file, or its folder can be neither written nor made.
    """
    if os.path.isdir(path):
        raise UserError(f"{flag} {path} is a folder: give the name of a file")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UserError(f"{flag} {path} is no ordinary file: choose another place")
    check_folder(path.parent, f"{flag} {path}: the folder")


def check_folder(folder: Path, flag: str) -> None:
    """Refuse an output folder that can be neither written nor made.

    Raises:
        UserError: a file stands in its way, or the permissions are missing.
    """
    if not can_make(folder):
        raise UserError(f"{flag} {folder} cannot be made or written: choose another place, or mend its permissions")


class _Watched(io.FileIO):
    """A file that remembers why a write failed: torch's zip writer hides it in words of its own."""

    def __init__(self, path: Path, failed: list[OSError]) -> None:
        super().__init__(path, "wb")
        self.failed = failed

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        left = memoryview(data).cast("B")
        try:
            while len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self.failed.append(error)
            raise
        return memoryview(data).nbytes


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, force it to disk, then rename it over ``path``.

    Until the rename the old file stays as it was, whatever happens.

    Raises:
        UserError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is no ordinary file: choose another place")
    temporary = path.with_name(path.name + ".tmp")
    failed: list[OSError] = []
    try:
        with _Watched(temporary, failed) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):  # it may never have been there
            temporary.unlink()
        reason = (failed[0].strerror if failed else None) or " ".join(str(error).split())[:120]
        kept = f"; the {path.name} that was there is untouched" if path.exists() else ""
        raise UserError(f"{path} could not be written ({reason}): free space or choose another place{kept}") from None


def clear_leftovers(folder: Path, pattern: str) -> None:
    """Remove what killed processes left in a folder of yolite's own: NAME.PID or NAME.PID.tmp of a PID that is gone.

    Args:
        folder: It may be missing.
        pattern: Of NAME, e.g. ``*``.
    """
    if os.name != "posix":  # elsewhere os.kill would end the process that it asks about
        return
    for path in folder.glob(f"{pattern}.*"):
        found = re.search(r"\.(\d{1,9})(\.tmp)?$", path.name)
        if found is None:
            continue
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)  # a folder; of a file it does nothing
            with contextlib.suppress(OSError):
                path.unlink()
        except OSError:
            continue  # another user's, and alive


def write_json(path: Path, plain: Any) -> None:
    """Write a JSON file whole or not at all, making its folder if need be.

    Raises:
        UserError: it cannot be written.
    """
    check_writable(path, "the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write((json.dumps(plain, indent=2) + "\n").encode()))


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line; see `write_atomically`."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(path, lambda file: file.write(text.encode()))
