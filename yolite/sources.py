"""What is to be detected on: image files, folders and glob patterns, in a stable order."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from yolite.data.images import SUFFIXES, image_files
from yolite.errors import UserError


def image_paths(sources: Sequence[str | Path]) -> list[Path]:
    """List the files that the sources name, each once.

    A folder means its images (searched through), a pattern with ``*``, ``?`` or ``[`` what it matches; a file is
    taken as it is, whatever its ending.

    Raises:
        UserError: a source does not exist, or names no image.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = image_files(path)
            if not inside:
                raise UserError(f"folder {path} holds no images ({', '.join(sorted(SUFFIXES))}): check the path")
            found.update(dict.fromkeys(inside))
        elif path.is_file():
            found[path] = None
        elif glob.has_magic(str(source)):
            matches = [Path(p) for p in sorted(glob.glob(str(source), recursive=True)) if Path(p).is_file()]
            if not matches:
                raise UserError(f"pattern {str(source)!r} matches no file: check it (quote it against the shell)")
            found.update(dict.fromkeys(matches))
        else:
            raise UserError(f"source {path} does not exist: give image files, folders or patterns")
    if not found:
        raise UserError("no source was given: give image files, folders or patterns")
    return list(found)
