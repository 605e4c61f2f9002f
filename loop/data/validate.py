"""Image files: their size, read from the header, and a check that their pixels can be decoded."""

from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError
from upath import UPath

from actors import images as pixels
from actors.records import LabeledImage
from loop.data.ledger import Finding

_TAIL_BYTES = 64
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = frozenset({5, 6, 7, 8})  # orientations that swap width and height


class PictureError(ValueError):
    """An image file that cannot be used; ``reason`` is short and countable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def probe(path: UPath) -> tuple[int, int]:
    """Width and height in px of the upright image, from its header.

    A JPEG or PNG without its end marker is decoded to check that it is complete. Raises FileNotFoundError, and
    PictureError for a file that is not an image, is truncated, or has more than ``actors.images.MAX_PIXELS`` pixels.
    """
    try:
        with path.open("rb") as file:
            with pixels.open_picture(file) as picture:
                size, mark = _upright_size(picture), _END_MARKS.get(picture.format or "", b"")
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            whole = mark in file.read()
    except Image.DecompressionBombError as error:
        raise PictureError("too many pixels", str(error)) from None
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PictureError("unreadable file", str(error)) from None
    if size[0] * size[1] > pixels.MAX_PIXELS:
        raise PictureError("too many pixels", f"{size[0]}x{size[1]} px, the limit is {pixels.MAX_PIXELS} px; resize it")
    if not whole:
        _decode(path)
    return size


def validate_images(images: Sequence[LabeledImage]) -> list[Finding]:
    """Decode every image in full. Returns a finding for each that is broken or has another size than at import."""
    findings = []
    for image in images:
        try:
            height, width = _decode(UPath(image.uri))
        except (PictureError, FileNotFoundError) as error:
            findings.append(Finding(file=image.uri, what="image", reason="unreadable file", detail=str(error)))
            continue
        if (width, height) != (image.width, image.height):
            detail = f"{width}x{height} px decoded, {image.width}x{image.height} px at import"
            findings.append(Finding(file=image.uri, what="image", reason="size mismatch", detail=detail))
    return findings


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    orientation = Image.Image.getexif(picture).get(_ORIENTATION)  # PNG's own getexif would decode the image
    return (picture.height, picture.width) if orientation in _TURNED else picture.size


def _decode(path: UPath) -> tuple[int, ...]:
    try:
        return pixels.decode(path.read_bytes(), str(path)).shape[:2]
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise PictureError("unreadable file", str(error)) from None
