import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageOps

from yolite.data.images import ImageError, decode, image_size, read_image, write_image


def picture() -> np.ndarray:
    image = np.zeros((24, 40, 3), np.uint8)
    image[:12, :20] = (255, 0, 0)
    image[:12, 20:] = (0, 255, 0)
    image[12:, :20] = (0, 0, 255)
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Pillow's exif_transpose is the oracle."""
    stored = PillowImage.fromarray(picture())
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
    stored.save(path, exif=exif, **options.get(suffix, {}))
    wanted = np.asarray(ImageOps.exif_transpose(PillowImage.open(path)))
    got = read_image(path)
    assert got.shape == wanted.shape
    assert image_size(path) == got.shape[:2]
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 4
    assert got.flags["C_CONTIGUOUS"]


def test_a_png_whose_exif_follows_its_pixels(tmp_path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    assert image_size(tmp_path / "a.png") == read_image(tmp_path / "a.png").shape[:2] == (40, 24)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "P", "1"])
def test_other_pixel_formats_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        PillowImage.fromarray(picture()[..., 0].astype(np.uint16) * 257).save(path)
    else:
        PillowImage.fromarray(picture()).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (24, 40, 3)
    assert image.dtype == np.uint8


def test_colours_are_rgb(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture())
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 broken"])
def test_unreadable_files_say_why(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError):
        read_image(path)
    with pytest.raises(ImageError):
        image_size(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("cut", [2, 40])
def test_a_file_that_is_cut_off_is_no_image(tmp_path: Path, suffix: str, cut: int) -> None:
    """Whatever OpenCV makes of it: some releases paint the missing part grey. A preview has an end of its own."""
    noise = PillowImage.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))
    preview = BytesIO()
    noise.save(preview, "JPEG")
    noise.save(tmp_path / f"a{suffix}", exif=b"Exif\0\0" + preview.getvalue())
    whole = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(whole[: -8 - cut])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / f"a{suffix}")
    assert caught.value.kind == "truncated image"
    if suffix == ".webp":  # the readers ask for the size alone; of this it cannot be had either
        (tmp_path / f"a{suffix}").write_bytes(whole[: len(whole) // 200])
        with pytest.raises(ImageError) as caught:
            image_size(tmp_path / f"a{suffix}")
        assert caught.value.kind == "truncated image"


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}])
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
def test_a_tiff_that_is_cut_off(tmp_path: Path, options: dict[str, str], left: float) -> None:
    noise = PillowImage.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))
    noise.save(tmp_path / "a.tif", **options)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.tif")
    assert caught.value.kind == "truncated image"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_is_damaged_inside(tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It decodes, and OpenCV says so on stderr, without a name; here it is told apart from a whole one, in silence."""
    noise = PillowImage.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)).convert(mode)
    noise.save(tmp_path / "a.jpg", quality=90)
    whole = (tmp_path / "a.jpg").read_bytes()
    image, header = decode(whole)
    assert header.damage == ""
    wanted = np.asarray(noise.convert("RGB")).astype(int)
    assert np.abs(image - wanted).mean() < (12 if mode == "L" else 60)  # of noise, colours are halved
    place = len(whole) // 3 + 100
    image, header = decode(whole[:place] + whole[place + 40 :])
    assert "Corrupt JPEG data" in header.damage
    assert image.shape == (48, 80, 3)
    assert capfd.readouterr() == ("", "")


def test_what_follows_a_picture_is_no_fault(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", picture())
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"made by a camera")
    assert read_image(tmp_path / "a.jpg").shape == (24, 40, 3)


def test_pipes_devices_and_bombs_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", 2**31)
    PillowImage.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")
    for name, words in (("pipe", "ordinary"), ("zero", "ordinary"), ("huge", "2.0 GiB"), ("bomb", "179 million px")):
        with pytest.raises(ImageError, match=words):
            read_image(tmp_path / f"{name}.png")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "no.jpg")
