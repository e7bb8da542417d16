"""Where the files of a YOLO set lie: pictures in folders or lists, their labels in folders of their own or beside them.

What lies there and is not read is found here too, so that nothing disappears without a line.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from yolite.data.images import SUFFIXES, walk
from yolite.data.problems import Problem
from yolite.errors import UserError
from yolite.files import read_lines


def label_path(image: Path) -> Path:
    """Return the label file of an image: the last folder named ``images`` becomes ``labels``, the ending ``.txt``."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    labels = Path(*parts)
    return labels.with_suffix(".txt") if labels.name else labels / ".txt"  # a list may hold anything, even "/"


def _label_folder(images: Path) -> Path:
    """Return the folder of the labels of the images in a folder: itself where none is named ``images``."""
    return label_path(images / "x").parent


def images_of(entry: Path, problems: list[Problem]) -> list[Path]:
    """List the images that a role's entry names: a folder (searched through), or a text file with a path a line.

    Whatever is called like an image is listed, also what turns out to be none (a pipe, a folder, a link that leads
    nowhere); what is not listed is reported in ``problems``.

    Raises:
        UserError: the entry is neither.
    """
    if entry.is_dir():
        return _images_in(entry, problems)
    if entry.suffix == ".txt" and entry.is_file():
        return [entry.parent / line for line in read_lines(entry)]
    if entry.is_file():
        raise UserError(f"{entry} is no list of images: give a folder or a .txt file with one image path a line")
    raise UserError(f"{entry} does not exist: check the path in the data set's description")


def _images_in(folder: Path, problems: list[Problem]) -> list[Path]:
    """List the images of a folder and of those inside it, sorted."""
    images: list[Path] = []
    others: list[Path] = []
    for top, folders, files in walk(folder):
        inside = [Path(top) / name for name in folders]
        beside = [Path(top) / name for name in files]
        images += [path for path in (*inside, *beside) if path.suffix.lower() in SUFFIXES]
        for path in inside:
            if path.is_symlink() and path.suffix.lower() not in SUFFIXES:
                message = "a link to a folder: name it in the description (train: [FOLDER, LINK]) to have its images"
                problems.append(Problem(path, 0, "linked folder", message))
        others += [path for path in beside if path.suffix.lower() not in SUFFIXES and not path.name.startswith(".")]
    others = [path for path in others if path != label_path(path)]  # a label beside its image
    if others:
        endings = Counter(sorted(path.suffix.lower() or "no ending" for path in others)).most_common()
        counts = ", ".join(f"{ending} x {count}" for ending, count in endings[:8]) + " ..." * (len(endings) > 8)
        text = f"{len(others)} files do not end like an image: {counts} (first: {min(others).relative_to(folder)})"
        problems.append(Problem(folder, 0, "file not read", text))
    return sorted(images)


def _roots(folders: Iterable[Path]) -> list[Path]:
    """Return the folders named ``images`` that these lie in, each once."""
    named = [[at for at in (folder, *folder.parents) if at.name == "images"][:1] for folder in folders]
    return list(dict.fromkeys(root for roots in named for root in roots))


def searched(entries: Sequence[Path]) -> list[Path]:
    """Return the folders that are searched through for the images and labels of these entries."""
    images = [entry for entry in entries if os.path.isdir(entry)]
    listed = sorted({image.parent for image in _listed(entries)})
    return [*images, *map(_label_folder, (*images, *_roots([*images, *listed])))]


def _label_folders(entries: Sequence[Path], images: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return the folders that labels of this set may lie in, each with that of its images."""
    inside = sorted({image.parent for image in images})
    found: dict[str, tuple[Path, Path]] = {}
    # where one folder is reached in two ways, that by images/ and labels/ counts: hence these first
    for top in (*_roots(inside), *filter(os.path.isdir, entries)):
        labels = _label_folder(top)
        for below in (Path(at) for at, _, _ in os.walk(labels)):
            own = top / below.relative_to(labels)
            if _label_folder(own) == below:
                found.setdefault(os.path.realpath(below), (below, own))
    for folder in inside:  # a list may name others; os.walk does not follow links
        found.setdefault(os.path.realpath(_label_folder(folder)), (_label_folder(folder), folder))
    return sorted(found.values())


def _claimed(images: Sequence[Path]) -> dict[str, set[str]]:
    """Return the names of these images' label files by their real folder."""
    by_folder: dict[Path, set[str]] = {}
    for label in map(label_path, images):
        by_folder.setdefault(label.parent, set()).add(label.name)
    claimed: dict[str, set[str]] = {}
    for folder, names in by_folder.items():
        claimed.setdefault(os.path.realpath(folder), set()).update(names)
    return claimed


def _listed(entries: Sequence[Path]) -> Iterator[Path]:
    """Yield the images that lists among these entries name; what cannot be read is said where it is read."""
    for entry in entries:
        with contextlib.suppress(UserError):
            yield from images_of(entry, []) if os.path.isfile(entry) else ()


def _names(folder: Path) -> list[str]:
    """Return the names of the files in a folder; none where it cannot be read or is not there."""
    return next(os.walk(folder), ("", [], []))[2]


def orphans(entries: Sequence[Path], images: Sequence[Path], others: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the text files that lie where labels do and belong to no image, each with a reason.

    Those in the folders of another role are left to that role. In a folder that holds images and labels alike, a text
    file may well be something else.

    Args:
        entries: What plays the role.
        images: The images of it.
        others: What plays the other roles.
    """
    # a list may hold anything; with a NUL it is no path
    images, listed = ([image for image in some if "\0" not in str(image)] for some in (images, _listed(others)))
    claimed = _claimed([*images, *listed])
    mine, foreign = ([_label_folder(entry) for entry in some if os.path.isdir(entry)] for some in (entries, others))
    for folder, of in _label_folders(entries, images):
        if any(map(folder.is_relative_to, foreign)) and not any(map(folder.is_relative_to, mine)):
            continue
        beside = [label_path(of / name).name for name in _names(of) if Path(name).suffix.lower() in SUFFIXES]
        known = {"classes.txt", *beside, *claimed.get(os.path.realpath(folder), ())}
        unread = {Path(name).stem: name for name in _names(of) if not name.endswith(".txt")}
        for file in sorted(folder / name for name in _names(folder) if name.endswith(".txt") and name not in known):
            if file not in (*entries, *others):
                name = unread.get(file.stem)
                yield file, f"{name} does not end like an image" if name else "no image belongs to it"
