"""Reading image files: RGB, uint8, the way a person sees them (EXIF orientation applied)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from yolite.errors import UserError
from yolite.geometry import Image
from yolite.structures import Size

# A damaged file is an `ImageError`, said once: what the libraries print about it on their own is left out.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""File name endings that count as images in folders."""

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


class ImageError(Exception):
    """An image file that cannot be read; the text says why."""


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder and of those inside it, sorted.

    Raises:
        UserError: one of the folders cannot be opened.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"folder {error.filename} cannot be read ({error.strerror}): check its permissions")

    found = [Path(top) / name for top, _, names in os.walk(folder, onerror=refuse) for name in names]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())


def _header(path: Path) -> tuple[Size, int]:
    """Return the stored (H, W) and the EXIF orientation (1 where there is none) without decoding the pixels."""
    try:
        with PillowImage.open(path) as picture:
            width, height = picture.size
            orientation = picture.getexif().get(_ORIENTATION, 1)
    except FileNotFoundError:
        raise ImageError("the file does not exist") from None
    except Exception as error:
        # Pillow's plugins raise many kinds of exception on damaged files
        raise ImageError(f"not a readable image ({type(error).__name__})") from None
    return (height, width), orientation if orientation in _UPRIGHT else 1


def image_size(path: Path) -> Size:
    """Return (H, W) in image px, orientation applied, from the header alone.

    Raises:
        ImageError: missing or no image.
    """
    (height, width), orientation = _header(path)
    return (width, height) if orientation >= 5 else (height, width)


def is_turned(path: Path) -> bool:
    """Return whether EXIF says that the stored pixels are not upright.

    Raises:
        ImageError: missing or no image.
    """
    return _header(path)[1] != 1


def read_image(path: Path) -> Image:
    """Decode an image file to [H, W, 3] uint8 RGB, upright; grey becomes RGB, alpha is dropped, 16 bits become 8.

    Raises:
        ImageError: missing, unreadable or empty.
    """
    _, orientation = _header(path)
    try:
        encoded = np.fromfile(path, np.uint8)
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, cv2.error) as error:
        raise ImageError(f"cannot be decoded ({type(error).__name__})") from None
    if decoded is None:
        raise ImageError("cannot be decoded: damaged or an unknown format")
    image: Image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
    if orientation != 1:
        image = np.ascontiguousarray(_UPRIGHT[orientation](image))
    return image


def write_image(path: Path, image: Image, quality: int = 92) -> None:
    """Write an RGB image; the format follows the file name's ending.

    Raises:
        UserError: it cannot be written.
    """
    ok, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ImageError(f"{path} cannot be encoded as {path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise UserError(f"picture {path} cannot be written ({error.strerror}): choose another place") from None
