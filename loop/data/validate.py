"""Image files: their size, read from the header, and a check that their pixels can be decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from upath import UPath

from actors import images as pixels
from actors.records import LabeledImage
from actors.storage import is_local
from loop.data.ledger import Finding

_TAIL_BYTES = 64
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = frozenset({5, 6, 7, 8})  # orientations that swap width and height
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = frozenset({b"eXIf", b"iTXt", b"zTXt", b"tEXt"})  # where a PNG may say its orientation
_UNREADABLE_MODES = frozenset({"I", "F"})  # pixels of 32 bits, whose range is unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The size of an image as it is decoded, and how it is stored."""

    width: int  # px, upright
    height: int  # px, upright
    orientation: int  # EXIF's: 1 is upright, 2 to 4 are mirrored or upside down, 5 to 8 lie on their side


class PictureError(ValueError):
    """An image file that cannot be used; ``reason`` is short and countable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def probe(path: UPath) -> Header:
    """The header of an image file.

    An image is decoded to check that it is complete if that is not known from the end of its file, and to see whether
    16 bits are used. Raises FileNotFoundError, and PictureError for a file that is not an image, is truncated, cannot
    be decoded to 8 bits, or has more than ``actors.images.MAX_PIXELS`` pixels.
    """
    if is_local(path) and path.exists() and not path.is_file():
        raise PictureError("unreadable file", "not a regular file")
    try:
        with path.open("rb") as file:
            with pixels.open_picture(file) as picture:
                deep = pixels.stores_16_bits(picture)
                header, mode, mark = _header(picture), picture.mode, _END_MARKS.get(picture.format or "")
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            whole = not deep and mark is not None and mark in file.read()
    except Image.DecompressionBombError as error:
        raise PictureError("too many pixels", str(error)) from None
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:  # its own message names an object in memory
        raise PictureError("unreadable file", "not a picture of a known format") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError("unreadable file", str(error)) from None
    size = f"{header.width}x{header.height} px"
    if header.width * header.height > pixels.MAX_PIXELS:
        raise PictureError("too many pixels", f"{size}, the limit is {pixels.MAX_PIXELS} px; resize it")
    if mode in _UNREADABLE_MODES:
        raise PictureError("unreadable file", f"{size} of 32 bits (mode {mode}); save it with 8 or 16 bits")
    if not whole:
        _decode(path)
    return header


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


def _header(picture: Image.Image) -> Header:
    """From the header alone where that is possible: only a PNG may have its orientation behind the pixels."""
    if isinstance(picture, PngImageFile) and not _has_late_text(picture):
        exif = Image.Image.getexif(picture)  # PNG's own getexif would decode the image
    else:
        exif = picture.getexif()
    orientation = exif.get(_ORIENTATION)
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    turned = orientation in _TURNED and picture.format != "TIFF"  # Pillow turns the size of a TIFF by itself
    width, height = picture.size[::-1] if turned else picture.size
    return Header(width=width, height=height, orientation=orientation)


def _has_late_text(picture: PngImageFile) -> bool:
    """True if a PNG has an EXIF or text chunk behind its pixels. Only the heads of the chunks are read."""
    file = picture.fp
    if file is None:
        return False
    here, at, kinds = file.tell(), len(_PNG_SIGNATURE), [b""]
    while kinds[-1] != b"IEND" and len(head := _at(file, at)) == 8:
        kinds.append(head[4:])
        at += int.from_bytes(head[:4], "big") + 12  # length, kind, data and checksum
    file.seek(here)
    behind = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return not _TEXT_CHUNKS.isdisjoint(behind)


def _at(file: IO[bytes], position: int) -> bytes:
    file.seek(position)
    return file.read(8)


def _decode(path: UPath) -> tuple[int, ...]:
    try:
        return pixels.decode(path.read_bytes(), str(path)).shape[:2]
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise PictureError("unreadable file", str(error)) from None
