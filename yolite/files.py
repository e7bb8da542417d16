"""Reading and writing small files: JSON and YAML with one plain sentence on failure, writes whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import yaml

from yolite.errors import UserError


def _read_text(path: Path) -> str:
    """Return a text file's content.

    Raises:
        UserError: it is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): check the path") from None


def read_json(path: Path) -> Any:
    """Load a JSON file.

    Raises:
        UserError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({str(error)[:100]})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Load a YAML file that holds a mapping; an empty file is an empty mapping.

    Raises:
        UserError: it cannot be read, is not YAML, or not a mapping.
    """
    try:
        loaded = yaml.safe_load(_read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not valid YAML: {reason}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must hold keys and values, not a {type(loaded).__name__}")
    return loaded


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, force it to disk, then rename it over ``path``.

    Until the rename the old file stays as it was, whatever happens.

    Raises:
        UserError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no ordinary file: choose another place")
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError of its zip writer
        temporary.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path} could not be written ({reason}): free space or choose another place; an earlier file of that "
            "name is untouched"
        ) from None


def write_json(path: Path, plain: Any) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(path, lambda file: file.write((json.dumps(plain, indent=2) + "\n").encode()))
