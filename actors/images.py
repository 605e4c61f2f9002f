"""Reading and writing pictures: ``[H, W, 3]`` uint8 RGB behind a local path or any fsspec URI."""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from upath import UPath

Pixels = NDArray[np.uint8]

open_picture = Image.open  # ultralytics later replaces Image.open by a version that tries to install packages

MAX_PIXELS = 89_478_485  # a small file can decode to gigabytes: refused where Pillow would begin to warn
MIN_BRIGHTEST = 16  # of 256, in a picture with 16 bits; one with values of 10 or 12 bits is darker


def decode(data: bytes, name: str) -> Pixels:
    """Pixels ``[H, W, 3]`` uint8 RGB of an encoded picture, upright according to its EXIF orientation.

    Of 16 bits, the upper 8 are used: a scale of its own for each picture would change how bright objects look.

    Raises ValueError if the data are no complete picture, hold more than ``MAX_PIXELS`` pixels, or have 16 bits with
    values of 12 bits or less.
    """
    try:
        with open_picture(BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{name}: {picture.width}x{picture.height} px is more than {MAX_PIXELS} px; resize it")
            has_16_bits = stores_16_bits(picture)
            pixels = _to_rgb(ImageOps.exif_transpose(picture), name)
    except UnidentifiedImageError as error:  # its own message names an object in memory
        raise ValueError(f"{name}: not a readable picture (no known format)") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: not a readable picture ({error})") from error
    if has_16_bits and pixels.max() < MIN_BRIGHTEST:
        raise ValueError(
            f"{name}: it has 16 bits, but no value of {MIN_BRIGHTEST * 256} or more, so it would be almost black. "
            "Multiply the values of all pictures by 16 if they have 12 bits, by 64 if they have 10, or save 8 bits"
        )
    return pixels


def stores_16_bits(picture: ImageFile) -> bool:
    """True if the file of a picture that is not yet decoded has 16 bits per value; Pillow keeps them for grey alone."""
    return picture.mode.startswith("I;16") or any(";16" in str(tile.args) for tile in picture.tile)


def _to_rgb(picture: Image.Image, name: str) -> Pixels:
    if picture.mode.startswith("I;16"):  # Pillow would clip 16-bit values at 255, which gives a white picture
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in {"I", "F"}:
        raise ValueError(f"{name}: pixels of 32 bits (mode {picture.mode}); save it with 8 or 16 bits")
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def read(uri: str) -> Pixels:
    """Pixels ``[H, W, 3]`` uint8 RGB. Raises FileNotFoundError or ValueError, naming the URI."""
    if Path(uri).exists() and not Path(uri).is_file():  # to open a named pipe waits for its writer
        raise ValueError(f"{uri}: not a regular file")
    return decode(UPath(uri).read_bytes(), uri)  # fsspec.open would take "::" in a file name for a chain of URIs


def reduced_size(width: int, height: int, max_side_px: int) -> tuple[int, int]:
    """Width and height in px of an image after ``reduced``."""
    ratio = min(max_side_px / max(width, height), 1.0)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)


def reduced(pixels: Pixels, max_side_px: int) -> Pixels:
    """An image ``[H, W, 3]`` by area averages, with a longer side of ``max_side_px``; itself if it is not larger."""
    import cv2

    height, width = pixels.shape[:2]
    size = reduced_size(width, height, max_side_px)
    if size == (width, height):
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def factors(reduced: Pixels, pixels: Pixels) -> NDArray[np.float32]:
    """Factors ``[4]`` from boxes in the ``reduced`` copy of an image to boxes in the image; 1 if it is the same."""
    sides = [np.array(one.shape[1::-1], np.float32) for one in (pixels, reduced)]
    return np.tile(sides[0] / sides[1], 2)


def scaled(pixels: Pixels) -> NDArray[np.float32]:
    """Pixels ``[H, W, 3]`` uint8 as the input of a diffusion model: ``[3, H, W]`` float32 in [-1, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / 127.5 - 1


def encode_png(pixels: Pixels) -> bytes:
    """PNG file of ``[H, W, 3]`` uint8 RGB pixels; equal pixels give equal bytes."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
