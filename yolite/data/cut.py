"""Whether an image file ends before its format says so."""

from __future__ import annotations

from io import BytesIO

from PIL import Image as PillowImage

_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of a value of each type (TIFF 6.0, section 2)."""


def _first_scan(data: bytes) -> int:
    """Return where the first scan of a JPEG begins (or where its chain of segments breaks)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        # a segment's length follows its marker; a marker may have fill bytes before it
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _png_ends(data: bytes) -> bool:
    """Return whether the chunks of a PNG lead to its last one (a false length makes OpenCV ask for a GiB)."""
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def is_cut(data: bytes) -> bool:
    """Return whether the end that a JPEG, PNG or WebP must have is missing: OpenCV 4 paints that of a JPEG grey."""
    if data.startswith(b"\xff\xd8"):
        # coded data hold no such marker, but a preview before the first scan ends with one of its own
        return data.find(b"\xff\xd9", _first_scan(data)) < 0
    if data.startswith(b"\x89PNG"):
        return not _png_ends(data)
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return False


def _tiff_ends(data: bytes) -> bool:
    """Return whether a TIFF holds its table of tags and the pixels that this points to."""

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], "little" if data[:2] == b"II" else "big")

    # TIFF 6.0, section 2, or BigTIFF: how wide an offset is, the number of tags, and a tag
    wide, count, tag = (8, 8, 20) if 43 in data[2:4] else (4, 2, 12)
    first = number(wide, wide) + count
    last = first + tag * number(first - count, count)
    if last > len(data):
        return False
    for at in range(first, last, tag):
        length = _TIFF_BYTES.get(number(at + 2, 2), 0) * number(at + 4, wide)
        if length > wide and number(at + 4 + wide, wide) + length > len(data):
            return False
    try:
        with PillowImage.open(BytesIO(data)) as picture:
            tags = dict(picture.tag_v2)
    except Exception:
        return True  # damaged in another way, for all that is known
    starts, lengths = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    return all(start + length <= len(data) for start, length in zip(starts, lengths, strict=False))


def looks_cut(data: bytes) -> bool:
    """Return whether a file that could not be decoded is one that ends too early.

    Asked of BMP and TIFF only then: the sizes that they state are wrong in files that decode, too.
    """
    if data.startswith(b"BM"):
        return int.from_bytes(data[2:6], "little") > len(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return not _tiff_ends(data)
    return is_cut(data)
