"""One image file by its content: can it be decoded, what is it really, and what does it look like."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from yolite.data.images import ImageError, decode, read_bytes
from yolite.data.problems import Problem
from yolite.geometry import Image

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",), "DIB": (".bmp",),
    "WEBP": (".webp",), "TIFF": (".tif", ".tiff"),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What the content of an image file is.

    Attributes:
        digest: Hash of the bytes; empty where they cannot be read.
        kind: The kind of the problem if it cannot be decoded, else empty.
        error: Why it cannot be decoded.
        format, mode, raw, alpha, exif, damage: See `yolite.data.images.Header`.
        gradients: 64 bits as hex: whether each of 8x8 cells is brighter than its left neighbour.
        grey: 64 bytes as hex: the picture at 8x8 px.
    """

    digest: str
    kind: str = ""
    error: str = ""
    format: str = ""
    mode: str = ""
    raw: str = ""
    alpha: bool = False
    exif: int = 1
    damage: str = ""
    gradients: str = ""
    grey: str = ""


def _small(image: Image) -> tuple[str, str]:
    """Return the gradients and the grey picture of `Look`."""
    grey = cv2.cvtColor(cv2.resize(image, (72, 72), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    tiny = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex(), tiny.tobytes().hex()


def look_at(path: Path, known: frozenset[str] = frozenset()) -> Look:
    """Read and decode a file; of a content that is ``known`` already only the digest is returned."""
    try:
        data = read_bytes(path)
    except ImageError as error:
        return Look("", error.kind, str(error))
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    if digest in known:
        return Look(digest)
    try:
        image, header = decode(data)
    except ImageError as error:
        return Look(digest, error.kind, str(error))
    h = header
    return Look(digest, "", "", h.format, h.mode, h.raw, h.alpha, h.exif, h.damage, *_small(image))


def problems_of(path: Path, look: Look) -> list[Problem]:
    """Return what there is to say about the content of a file."""
    if look.kind:
        return [Problem(path, 0, look.kind, look.error)]
    found: list[tuple[str, str]] = []
    if path.suffix.lower() not in _SUFFIXES.get(look.format, ()):
        found.append(("extension", f"named {path.suffix or 'without an ending'}, but its content is {look.format}"))
    if look.damage:
        found.append(("damaged image", f"damaged inside ({look.damage})"))
    if look.exif != 1:
        found.append(("EXIF orientation", f"stored with EXIF orientation {look.exif}"))
    if look.mode[:1] in ("L", "1", "I", "F"):
        found.append(("grayscale", f"one channel ({look.mode})"))
    if look.alpha:
        found.append(("alpha", f"it has transparency ({look.mode})"))
    if look.mode == "CMYK":
        found.append(("CMYK", "its channels are CMYK"))
    if "16" in look.raw or look.mode[:1] in ("I", "F"):
        found.append(("16-bit", f"more than 8 bits a channel ({look.raw or look.mode})"))
    return [Problem(path, 0, kind, message) for kind, message in found]
