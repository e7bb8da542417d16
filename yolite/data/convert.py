"""A data set in another format: what that format can hold, a file name for each image, the whole or nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from yolite.boxes import area
from yolite.data.dataset import Split
from yolite.data.images import SUFFIXES, is_turned
from yolite.data.writers.coco import write_coco
from yolite.data.writers.voc import write_voc
from yolite.data.writers.yolo import write_yolo
from yolite.errors import UserError
from yolite.files import check_folder
from yolite.structures import Sample

Format = Literal["yolo", "coco", "voc"]

LEAST = 1e-6
"""Boxes thinner than this, in px, have no width in the decimals of the files."""

# What the text files that name images and classes cannot hold: ends of lines, control characters, halves of characters.
_UNFIT = "[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\ufffe\uffff]"


@dataclass(frozen=True)
class Part:
    """Samples on their way into another format.

    Attributes:
        roles: The roles that they play; the first names the files.
        split: What was read.
        samples: What the format can hold of it.
        files: File name of each sample's image.
        ids: Id of each sample's image, for COCO.
        remarks: What it cannot hold, and what was changed for it: {what: count}.
    """

    roles: list[str]
    split: Split
    samples: list[Sample]
    files: list[str]
    ids: list[int | str]
    remarks: Counter[str]

    @property
    def boxes(self) -> int:
        """Number of boxes."""
        return sum(len(sample.boxes) for sample in self.samples)


def fit(sample: Sample, to: Format, remarks: Counter[str]) -> Sample:
    """Return what a format can hold of a sample; what it cannot is counted in ``remarks``."""
    thin = (sample.boxes[:, 2:] - sample.boxes[:, :2]).amin(1) < LEAST
    remarks[f"boxes thinner than {LEAST:g} px left out"] += int(thin.sum())
    keep = ~thin
    if to == "yolo":
        # as plain boxes they would be trained on, which is the one thing that they are not for
        remarks["crowd boxes left out"] += int((keep & sample.iscrowd).sum())
        remarks["difficult boxes left out"] += int((keep & sample.difficult & ~sample.iscrowd).sum())
        keep &= ~sample.ignore
    per_box = ("boxes", "labels", "iscrowd", "area", "difficult")
    sample = replace(sample, **{name: getattr(sample, name)[keep] for name in per_box})
    if to == "voc":
        remarks["crowd boxes marked difficult"] += int(sample.iscrowd.sum())
        sample = replace(sample, iscrowd=torch.zeros_like(sample.iscrowd), difficult=sample.ignore)
    if to != "coco":
        own = area(sample.boxes.double()).float()
        remarks["areas (of masks) replaced by those of the boxes"] += int((~sample.area.isclose(own, 1e-3, 0.01)).sum())
        sample = replace(sample, area=own)
    return sample


class FileNames:
    """Gives each image of a folder a file name of its own: the one that it has, where that fits and is free."""

    def __init__(self, to: Format) -> None:
        self._to = to
        self._given: dict[tuple[object, ...], str] = {}
        self._stems: set[str] = set()

    def _fitting(self, path: Path) -> str:
        """Return a file's name without what the format's lists cannot hold."""
        if self._to != "voc":
            return re.sub(rf"{_UNFIT}|^\s|\s$", "_", path.name)
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: VOC finds pictures by their endings ({', '.join(sorted(SUFFIXES))}): rename it")
        return re.sub(rf"{_UNFIT}|\s", "_", path.stem) + path.suffix.lower()

    def of(self, sample: Sample) -> str:
        """Return the file name of a sample; the same image with the same boxes keeps the one it was given before."""
        tensors = [getattr(sample, field.name) for field in fields(sample)]
        key = (sample.path, *(t.numpy().tobytes() for t in tensors if isinstance(t, torch.Tensor)))
        if key not in self._given:
            name = Path(self._fitting(Path(str(sample.path))))
            # labels go by the stem; some file systems do not tell A from a
            stem, number = name.stem, 1
            while stem.casefold() in self._stems:
                number += 1
                stem = f"{name.stem}-{number}"
            self._stems.add(stem.casefold())
            self._given[key] = stem + name.suffix
        return self._given[key]


def make_parts(splits: Sequence[tuple[list[str], Split]], source: Format, to: Format) -> list[Part]:
    """Prepare what was read for another format.

    Args:
        splits: The roles and what plays them.
        source: The format that they have.
        to: The format that they get.

    Raises:
        UserError: the format cannot hold a class name, or an image.
    """
    _check_names(splits[0][1].names, to)
    categories = category_ids([split for _, split in splits])
    parts = []
    names = FileNames(to)
    for roles, split in splits:
        if to != "voc":  # which has one folder for all roles
            names = FileNames(to)
        remarks: Counter[str] = Counter()
        samples = [fit(sample, to, remarks) for sample in split.samples]
        files = [names.of(sample) for sample in samples]
        _remark_on_files(split, files, remarks)
        ids = _image_ids(samples, source, remarks)
        if source == to == "coco":
            pairs = zip(split.category_ids, categories, strict=True)
            remarks["categories with another id than in this role's json"] = sum(a not in (-1, b) for a, b in pairs)
        parts.append(Part(roles, split, samples, files, ids, +remarks))
    return parts


def _remark_on_files(split: Split, files: Sequence[str], remarks: Counter[str]) -> None:
    """Count the images that get another name and those that EXIF turns."""
    paths = [Path(str(sample.path)) for sample in split.samples]
    renamed = [f"{path} is {file}" for path, file in zip(paths, files, strict=True) if path.name != file]
    if renamed:
        reason = "another has their name, or the format cannot hold it"
        remarks[f"images renamed, as {reason} (first: {renamed[0]})"] = len(renamed)
    remarks["images turned by EXIF: sizes and boxes are those of the upright picture"] = sum(map(is_turned, paths))


def _check_names(names: list[str], to: Format) -> None:
    """Refuse class names that would be another class, or none, when they are read back.

    Raises:
        UserError: the first such name.
    """
    for name, count in Counter(names).items() if to != "yolo" else ():
        if count > 1:
            raise UserError(f"two classes are called {name!r}, which {to} cannot tell apart: give each its own name")
        if to == "voc" and (not name or name != name.strip() or re.search(_UNFIT, name)):
            raise UserError(f"VOC cannot hold the class name {name!r}: rename it (no space around it, one line)")


def category_ids(splits: Sequence[Split]) -> list[int]:
    """Return the id of each class: the first that a role's json gives it; 1, 2, 3 … where that is no numbering."""
    columns = zip(*(split.category_ids for split in splits), strict=True)
    ids = [next((ident for ident in column if ident != -1), -1) for column in columns]
    # the order of the ids is the order of the classes
    return ids if ids == sorted(set(ids)) and -1 not in ids else list(range(1, len(ids) + 1))


def _image_ids(samples: Sequence[Sample], source: Format, remarks: Counter[str]) -> list[int | str]:
    """Return the ids of images: their own where these came from COCO and differ, else 1, 2, 3 and so on."""
    ids = [sample.id for sample in samples]
    if source == "coco" and len(set(ids)) == len(ids):
        return ids
    if source == "coco":
        remarks["images numbered anew, as ids stood there twice"] = len(ids)
    return list(range(1, len(ids) + 1))


def check_out(out: Path) -> Path:
    """Return the folder beside ``out`` in which the data set is put together.

    Raises:
        UserError: ``out`` holds something, cannot be made, or an earlier conversion was cut short here.
    """
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out {out} is there and not empty: give a new folder")
    place = Path(os.path.realpath(out))
    work = place.with_name(f"{place.name}.tmp")
    if os.path.lexists(work):
        raise UserError(f"{work} is in the way, left by a conversion that was killed or is running: see to it first")
    check_folder(place.parent, f"--out {out}: the folder")
    return work


def _place(part: Part, folder: Path, link: bool, advance: Callable[[], None]) -> None:
    """Copy the image files of a part into ``folder``, or make links to them."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, sample in zip(part.files, part.samples, strict=True):
        source, target = Path(str(sample.path)), folder / file
        if not os.path.lexists(target):  # a list may name an image twice
            if link:
                target.symlink_to(os.path.realpath(source))
            else:
                shutil.copyfile(source, target)
        advance()


def _write(parts: Sequence[Part], to: Format, root: Path, link: bool, advance: Callable[[], None]) -> None:
    """Write the data set into the folder ``root``."""
    plain: dict[str, Any] = {"path": "."}
    first = parts[0].split
    categories = dict(zip(category_ids([part.split for part in parts]), first.names, strict=True))
    for part in parts:
        role = part.roles[0]
        entry: object = None
        _place(part, root / ("JPEGImages" if to == "voc" else f"images/{role}"), link, advance)
        if to == "yolo":
            entry = write_yolo(root, role, part.files, part.samples)
        elif to == "coco":
            entry = write_coco(root, role, part.files, part.samples, part.ids, categories)
        else:
            write_voc(root, part.roles, part.files, part.samples, first.names)
        plain |= {name: entry for name in part.roles}
    if to == "voc":
        return
    if to == "yolo":
        plain["names"] = dict(enumerate(first.names))
    if not first.mirror_safe:
        plain["mirror_safe"] = False
    text = yaml.dump(plain, Dumper=_NoAliases, sort_keys=False, allow_unicode=True)
    (root / "data.yaml").write_text(text, encoding="utf-8")


class _NoAliases(yaml.SafeDumper):
    """Writes an entry that two roles share twice, not as a reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_dataset(
    parts: Sequence[Part], to: Format, out: Path, link: bool, progress: Callable[[int, int], None],
    searched: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Write a data set to ``out``: put together beside it and renamed when whole.

    Args:
        parts: From `make_parts`.
        to: The format.
        out: A folder that is empty or not there yet.
        link: Make symbolic links to the images instead of copies.
        progress: Called with (images done, images in all).
        searched: Folders in which ``out`` would become a part of what is converted.

    Raises:
        UserError: ``out`` cannot be written, or lies among the images or labels that are converted.
    """
    work = check_out(out)
    place = work.with_suffix("")
    own = {Path(str(sample.path)).parent for part in parts for sample in part.samples}
    for folder in sorted({os.path.realpath(folder) for folder in (*own, *searched)}):
        if place.is_relative_to(folder):
            raise UserError(f"--out {out} lies among the files of {folder}, which stay as they are: choose another")
    done, total = 0, sum(len(part.samples) for part in parts)

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    try:
        work.mkdir(parents=True)
        try:
            _write(parts, to, work, link, advance)
            work.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(
            f"the data set cannot be written to {out} ({where}{error.strerror or error}): free space or choose "
            "another place; nothing was left there"
        ) from None
