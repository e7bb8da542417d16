"""YOLO txt: one text file an image, one row a box: ``class cx cy w h``, the four normalised by the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from yolite.boxes import xyxy_to_cxcywh
from yolite.data.images import SUFFIXES
from yolite.data.readers.folders import label_path
from yolite.structures import Sample


def label_text(sample: Sample) -> str:
    """Return the rows of a sample, with all digits: reading them gives the same float32 boxes again."""
    height, width = sample.size
    scale = torch.tensor([width, height, width, height], dtype=torch.float64)
    rows = (xyxy_to_cxcywh(sample.boxes.double()) / scale).tolist()
    return "".join(f"{label} {' '.join(map(repr, row))}\n" for label, row in zip(sample.labels.tolist(), rows,
                                                                                strict=True))  # fmt: skip


def write_yolo(root: Path, role: str, files: Sequence[str], samples: Sequence[Sample]) -> str:
    """Write the label files of a role (an empty one where there is no box).

    Args:
        root: Folder of the data set.
        role: Name of the folder below images and labels.
        files: Name of each sample's image in images/ROLE.
        samples: What to write.

    Returns:
        What plays the role: the folder of images, or a list of them where the folder, which is read by name, would
        change their order or miss some.
    """
    (root / "labels" / role).mkdir(parents=True)
    for file, sample in zip(files, samples, strict=True):
        label_path(root / "images" / role / file).write_text(label_text(sample), encoding="utf-8")
    if list(files) == sorted(set(files)) and all(Path(file).suffix.lower() in SUFFIXES for file in files):
        return f"images/{role}"
    (root / f"{role}.txt").write_text("".join(f"./images/{role}/{file}\n" for file in files), encoding="utf-8")
    return f"{role}.txt"
