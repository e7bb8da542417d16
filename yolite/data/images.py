"""Reading image files: RGB, uint8, the way a person sees them (EXIF orientation applied)."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image as PillowImage

from yolite.data.cut import is_cut, looks_cut
from yolite.errors import UserError
from yolite.geometry import Image
from yolite.structures import Size

# A damaged file is an `ImageError`, said once: what the libraries print about it on their own is left out.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""File name endings that count as images in folders."""

MOST_BYTES = 2**30
"""A larger file is taken for no picture: it would fill the memory."""
JPEG_MOST = 2000
"""More px a byte are no JPEG: one bit for 64 px is the least. Decoding would fill the memory with nothing."""

_ORIENTATION = 0x0112
# EXIF orientation → what makes the stored pixels upright (Exif 2.32, 4.6.4, tag 0x0112).
_UPRIGHT: dict[int, Callable[[Image], Image]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}


_CUT = "the file is cut off: its end is missing"


class ImageError(Exception):
    """An image file that cannot be read; the text says why.

    Attributes:
        kind: The kind of the problem (`yolite.data.problems.KINDS`).
    """

    def __init__(self, text: str, kind: str = "unreadable image") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before the pixels.

    Attributes:
        size: (H, W) as it is decoded.
        exif: EXIF orientation, 1 where there is none.
        orientation: What of it is left to be applied to the decoded pixels.
        format: Pillow's name of the file format, e.g. ``JPEG``.
        mode: Pillow's name of the pixel format, e.g. ``RGB`` or ``L``.
        raw: The same as it lies in the file, e.g. ``RGB;16B``; empty where the format does not say.
        alpha: Whether there is transparency.
        frames: Whether there are further frames or pages after the first, which alone is decoded.
        damage: What the decoder of a JPEG found wrong and went on from; known once it is decoded.
    """

    size: Size
    exif: int
    orientation: int
    format: str
    mode: str
    raw: str
    alpha: bool
    frames: bool = False
    damage: str = ""

    @property
    def upright(self) -> Size:
        """(H, W) with the orientation applied."""
        return (self.size[1], self.size[0]) if self.orientation >= 5 else self.size


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Go through a folder and those inside it as `os.walk`, links to folders not followed.

    Raises:
        UserError: one of the folders cannot be opened.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"folder {error.filename} cannot be read ({error.strerror}): check its permissions")

    return os.walk(folder, onerror=refuse)


def image_files(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """List the images (files with one of ``suffixes``) of a folder and of those inside it, sorted.

    What is called like an image and cannot be one (a pipe, a link to nothing) is among them: reading says why.

    Raises:
        UserError: one of the folders cannot be opened.
    """
    found = [Path(top) / name for top, _, names in walk(folder) for name in names]
    named = [path for path in found if path.suffix.lower() in suffixes]
    return sorted(path for path in named if path.suffix.lower() in SUFFIXES or path.is_file())


def _require_file(path: Path) -> None:
    """Refuse what is missing, no ordinary file (a pipe or device would block or never end) or absurdly large.

    Raises:
        ImageError: one of these.
    """
    try:
        there = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise ImageError("a link that leads nowhere") from None
        reason = "the file does not exist" if isinstance(error, FileNotFoundError) else f"no readable file ({error})"
        raise ImageError(reason, "missing image") from None
    if not stat.S_ISREG(there.st_mode):
        raise ImageError("not an ordinary file")
    if there.st_size > MOST_BYTES:
        raise ImageError(f"{there.st_size / 2**30:.1f} GiB are no picture")


def _refusal(reason: str, data: bytes) -> ImageError:
    """Return why a file is no picture: its end is missing, or else the reason that is given."""
    return ImageError(_CUT, "truncated image") if looks_cut(data) else ImageError(reason)


def _content(source: Path | BytesIO) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source.getvalue()


def _exif(picture: PillowImage.Image, source: Path | BytesIO) -> PillowImage.Exif:
    """Return the EXIF record; of a PNG without decoding its pixels (as Pillow would), unless it follows them."""
    if picture.format == "PNG" and "exif" not in picture.info:
        if b"eXIf" not in _content(source):
            return PillowImage.Image.getexif(picture)
    return picture.getexif()


def _header(source: Path | BytesIO) -> Header:
    """Read the header of an image file or of its bytes, without decoding the pixels.

    Raises:
        ImageError: no image.
    """
    try:
        with PillowImage.open(source) as picture:
            tile = getattr(picture, "tile", None)
            arguments = tile[0][3] if tile else ""
            raw = arguments if isinstance(arguments, str) else (arguments or [""])[0]
            width, height = picture.size
            orientation = _exif(picture, source).get(_ORIENTATION, 1)
            alpha = "A" in picture.getbands() or "transparency" in picture.info
            kind, mode = str(picture.format), picture.mode
            # further pictures of an MPO are other views of one photo, or its preview
            frames = kind != "MPO" and bool(getattr(picture, "is_animated", False))
    except PillowImage.DecompressionBombError:
        limit = 2 * (PillowImage.MAX_IMAGE_PIXELS or 0)
        raise ImageError(f"its header states more than {limit / 1e6:.0f} million px") from None
    except Exception as error:
        # Pillow's plugins raise many kinds of exception on damaged files
        raise _refusal(f"not a readable image ({type(error).__name__})", _content(source)) from None
    exif = orientation if orientation in _UPRIGHT else 1
    # the decoders of TIFF apply the orientation themselves
    return Header((height, width), exif, 1 if kind == "TIFF" else exif, kind, mode, str(raw), alpha, frames)


def image_size(path: Path) -> Size:
    """Return (H, W) in image px, orientation applied, from the header alone.

    Raises:
        ImageError: missing or no image.
    """
    _require_file(path)
    return _header(path).upright


def read_bytes(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        ImageError: missing, unreadable or no ordinary file.
    """
    _require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from None


def _decode_jpeg(data: bytes, mode: str) -> tuple[Image, str]:
    """Decode a JPEG to RGB as it lies in the file; return it with what its decoder found wrong and went on from.

    OpenCV would print that without the name of the file. simplejpeg (the same libjpeg-turbo, the same pixels) says it,
    but what it returns then may have parts of memory in it: Pillow, which says nothing, decodes what is damaged.

    Raises:
        ImageError: damaged so that the decoder gave up.
    """
    damage = ""
    try:
        # it reads CMYK, but leaves it so
        pixels: Image = simplejpeg.decode_jpeg(data, "CMYK" if mode == "CMYK" else "RGB")
        if mode != "CMYK":
            return pixels, ""
    except ValueError as error:
        damage = str(error)
    try:
        with PillowImage.open(BytesIO(data)) as picture:
            return np.array(picture.convert("RGB")), damage
    except Exception as error:
        raise ImageError(f"cannot be decoded ({damage or type(error).__name__})") from None


def _decode_other(data: bytes) -> Image:
    """Decode any other format to RGB as it lies in the file.

    Raises:
        ImageError: damaged, cut off or of no known format.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise _refusal(f"cannot be decoded ({type(error).__name__})", data) from None
    if decoded is None:
        raise _refusal("cannot be decoded: damaged or an unknown format", data)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def decode(data: bytes, most_pixels: float = float("inf")) -> tuple[Image, Header]:
    """Decode the content of an image file to what `read_image` returns, and its header.

    Args:
        data: The content.
        most_pixels: A picture whose header states more is refused before it takes memory.

    Raises:
        ImageError: damaged, cut off, too large or no image.
    """
    if is_cut(data):
        raise ImageError(_CUT, "truncated image")
    header = _header(BytesIO(data))
    height, width = header.size
    if height * width > most_pixels:
        raise ImageError(f"{width}x{height} px are more than the {most_pixels / 1e6:g} million allowed here")
    jpeg = header.format in ("JPEG", "MPO")
    if jpeg and height * width > JPEG_MOST * len(data):
        raise ImageError(f"its header states {width}x{height} px, for which {len(data)} bytes are too few")
    image, damage = _decode_jpeg(data, header.mode) if jpeg else (_decode_other(data), "")
    if image.shape[:2] != header.size:
        stated, found = f"{width}x{height}", f"{image.shape[1]}x{image.shape[0]}"
        raise ImageError(f"its header states {stated} px, its pixels are {found}")
    if header.orientation != 1:
        image = np.ascontiguousarray(_UPRIGHT[header.orientation](image))
    return image, replace(header, damage=damage)


def is_turned(path: Path) -> bool:
    """Return whether EXIF says that the stored pixels are not upright.

    Raises:
        ImageError: missing or no image.
    """
    return _header(path).exif != 1


def read_image(path: Path) -> Image:
    """Decode an image file to [H, W, 3] uint8 RGB, upright; grey becomes RGB, alpha is dropped, 16 bits become 8.

    Raises:
        ImageError: missing, unreadable, cut off or empty.
    """
    return decode(read_bytes(path))[0]


def write_image(path: Path, image: Image, quality: int = 92) -> None:
    """Write an RGB image; the format follows the file name's ending.

    Raises:
        UserError: it cannot be written.
    """
    bgr, size = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), f"{image.shape[1]}x{image.shape[0]} px"
    try:
        ok, encoded = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:  # an unknown ending
        ok = False
    if not ok:
        raise UserError(
            f"picture {path} ({size}) cannot be written as {path.suffix or 'a file without ending'}: name it .png"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise UserError(f"picture {path} cannot be written ({error.strerror}): choose another place") from None
