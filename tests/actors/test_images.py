"""Pictures in, pictures out: upright, RGB, whole or refused."""

import os
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image
from upath import UPath

from actors import images


def encoded(picture, form="PNG", **options):
    buffer = BytesIO()
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def test_a_png_gives_the_pixels_back_and_the_same_bytes_every_time(pixels):
    data = images.encode_png(pixels)
    assert np.array_equal(images.decode(data, "a.png"), pixels)
    assert images.encode_png(pixels.copy()) == data


def test_reading_from_a_path_and_from_a_uri(tmp_path, pixels):
    (tmp_path / "a.png").write_bytes(images.encode_png(pixels))
    memory = UPath("memory://pictures/a.png")
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_bytes(images.encode_png(pixels))
    for uri in (str(tmp_path / "a.png"), (tmp_path / "a.png").as_uri(), str(memory)):
        assert np.array_equal(images.read(uri), pixels)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe\.png: not a regular file"):
        images.read(str(tmp_path / "pipe.png"))


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        images.read(str(tmp_path / "missing.png"))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode):
    grey = Image.fromarray(np.full((4, 6), 128, np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(np.full((4, 6), 128 * 257, np.uint16))
    else:
        picture = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    found = images.decode(encoded(picture, "TIFF" if mode == "CMYK" else "PNG"), mode)
    assert found.shape == (4, 6, 3)
    assert found.dtype == np.uint8
    if mode != "1":  # black and white cannot hold a grey
        assert np.abs(found.astype(int) - 128).max() <= 3, "the grey has changed"


def test_pixels_of_unknown_range_are_refused():
    with pytest.raises(ValueError, match=r"depth\.tif: pixels of 32 bits \(mode F\)"):
        images.decode(encoded(Image.fromarray(np.zeros((4, 6), np.float32)), "TIFF"), "depth.tif")


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_16_bits_give_the_same_brightness_in_every_picture_and_unused_ones_are_refused(shape, suffix):
    def found(value):
        values = np.zeros(shape, np.uint16)
        values[1, 2] = value
        return images.decode(cv2.imencode(suffix, values)[1].tobytes(), "a.png").max()

    assert [found(value) for value in (4096, 16383, 65535)] == [16, 63, 255]
    for value in (1023, 4095):
        with pytest.raises(ValueError, match=r"a\.png: it has 16 bits, but no value of 4096 or more.*Multiply"):
            found(value)


def test_a_black_picture_of_8_bits_is_read():
    assert images.decode(encoded(Image.new("L", (4, 6))), "a.png").max() == 0


def test_a_picture_on_its_side_is_turned_upright():
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown rotated 90 degrees clockwise
    upright = images.decode(encoded(Image.fromarray(pixels), exif=exif), "side.png")
    assert upright.shape == (3, 2, 3)
    assert upright[0, 1].tolist() == [255, 255, 255]  # what was top left is now top right


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_truncated_picture_is_refused(form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(ValueError, match="half: not a readable picture"):
        images.decode(data[: len(data) // 2], "half")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<html>no such page</html>"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match=r"page: not a readable picture \(no known format\)"):
        images.decode(data, "page")


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    data = encoded(Image.new("1", (12_000, 8000)))
    assert len(data) < 20_000
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"bomb: 12000x8000 px is more than"):
        images.decode(data, "bomb")
