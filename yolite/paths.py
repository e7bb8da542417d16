"""Where yolite finds its own files (configs, data descriptors) and where it may write what it generates."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from yolite.errors import UserError, nearest

_PACKAGE = Path(__file__).resolve().parent
_REPOSITORY = _PACKAGE.parent


def shipped(folder: str) -> Path:
    """Return the folder ``configs`` or ``data`` that came with yolite: inside an installed wheel, or the checkout's."""
    inside = _PACKAGE / "_shipped" / folder
    return inside if inside.is_dir() else _REPOSITORY / folder


def can_make(folder: Path) -> bool:
    """Return whether files can be written in ``folder``, or, where it is not there yet, whether it can be made."""
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)


def cache_folder() -> Path:
    """Return the folder of yolite's own in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolite"


def free_bytes(folder: Path) -> int:
    """Return the free space where ``folder`` lies, or would lie."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def generated(name: str) -> Path:
    """Return the folder where the generated data ``name`` lies or can be made.

    That is data/generated in a checkout; from a wheel, or if the checkout cannot be written, the user's cache folder.
    """
    places = [cache_folder()]
    if not (_PACKAGE / "_shipped").is_dir() and (_REPOSITORY / "pyproject.toml").is_file():
        places.insert(0, _REPOSITORY / "data" / "generated")
    there = [place for place in places if (place / name).is_dir()]
    return (there or [place for place in places if can_make(place)] or places)[0]


def descriptor(name: str, folder: str, what: str) -> Path:
    """Find ``name`` as a path to a YAML file, or as the name of one of the shipped files in ``folder``.

    Raises:
        UserError: there is no such file; the nearest shipped name is given.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise UserError(f"{what} file {name} does not exist: check the path")
    found = shipped(folder) / f"{name}.yaml"
    if found.is_file():
        return found
    names = sorted(p.stem for p in shipped(folder).glob("*.yaml"))
    raise UserError(
        f"unknown {what} {name!r}{nearest(name, names)}: give a path to a YAML file or one of {', '.join(names)}"
    )


def free_run_folder(parent: Path, name: str) -> Path:
    """Return parent/name-N with the lowest N from 1 that is not taken."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"
