"""What is to be detected on: image files, folders, glob patterns and lists in COCO's form, in a stable order."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from yolite.data.images import SUFFIXES, image_files
from yolite.errors import UserError
from yolite.files import read_json


def image_paths(sources: Sequence[str | Path]) -> list[Path]:
    """List the files that the sources name, each once.

    A folder means its images (searched through), a pattern with ``*``, ``?`` or ``[`` what it matches, a .json the
    images it lists (a COCO json such as evaluate's worst pictures); another file is taken as it is.

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
        elif path.is_file() and path.suffix == ".json":
            found.update(dict.fromkeys(_listed(path)))
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


def _listed(file: Path) -> list[Path]:
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
    return [folder / name for name in names]
