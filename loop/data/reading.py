"""Reading of a folder of labelled images into records, with a ledger of all that was left out.

Images are found by name, and their size is read from the file's header. Boxes are clipped at the image's border,
dropped if nothing is left of them, and kept without their mask if the mask cannot be used. An image in several splits
stays in the one that is held out.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from upath import UPath

from actors import boxes as geometry
from actors.records import Annotation, LabeledImage
from actors.storage import is_local
from loop.data.config import DataConfig
from loop.data.formats import FORMATS, detect
from loop.data.formats.base import RawBox, RawDataset, RawImage, inside, pictures
from loop.data.ledger import Ledger
from loop.data.provenance import Provenance
from loop.data.segmentation import Sound, masks_of
from loop.data.validate import PictureError, probe

IMAGE_FOLDERS = ("images", "JPEGImages")
HELD_OUT_FIRST = ("test", "val", "train")

_ROUNDING_PX = 0.01  # boxes that exceed the image by less are rounding errors
_NUM_READERS = 8  # threads that open image files: remote storage is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The usable images of a folder, by its own splits."""

    format: str
    root: UPath
    classes: tuple[str, ...]
    splits: dict[str, tuple[LabeledImage, ...]]
    synthetic: Mapping[str, Provenance]  # by image id; only in an imported export
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class _Located:
    """An image whose file was found."""

    raw: RawImage
    place: str  # relative to the root
    width: int
    height: int


def read_folder(config: DataConfig, root: UPath) -> Folder:
    """Read the data set in ``root``.

    Raises FileNotFoundError or ValueError, naming file and value, if there is no data of a known format, if an
    annotation file of the whole set is broken, or if a file name leads out of ``root``.
    """
    root = UPath(root).absolute() if is_local(UPath(root)) else UPath(root)
    kind = _format(config, root)
    ledger = Ledger()
    raw = FORMATS[kind].read(root, config, ledger)
    located = _without_repeats({split: _locate(root, images, ledger) for split, images in raw.splits.items()}, ledger)
    _remark_on_strangers(root, raw, located, ledger)
    strip = _shared_folder(located)
    splits = {
        split: tuple(_image(root, one, one.place.removeprefix(strip), raw.classes, ledger) for one in images)
        for split, images in located.items()
    }
    synthetic = _synthetic(located, strip)
    return Folder(format=kind, root=root, classes=raw.classes, splits=splits, synthetic=synthetic, ledger=ledger)


def _format(config: DataConfig, root: UPath) -> str:
    if not root.is_dir():
        raise NotADirectoryError(f"data.root: {root} is no folder")
    if config.format == "auto":
        return detect(root)
    kind = "coco" if config.format == "world" else config.format
    if not FORMATS[kind].find(root):
        raise FileNotFoundError(f"{root}: no {kind} data here; looked for {FORMATS[kind].LOOKED_FOR}")
    return kind


def _locate(root: UPath, images: Sequence[RawImage], ledger: Ledger) -> list[_Located]:
    """The images whose files can be used; the others are dropped."""
    with warnings.catch_warnings(), ThreadPoolExecutor(_NUM_READERS) as threads:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # probe has a lower limit of its own
        attempts = threads.map(lambda raw: _try_locate(root, raw), images)
        return [found for found in (_or_drop(attempt, ledger) for attempt in attempts) if found]


def _try_locate(root: UPath, raw: RawImage) -> "_Located | tuple[str, str, str]":
    """The located image, or the file, reason and detail of its drop."""
    for place in dict.fromkeys(raw.places):
        try:
            width, height = probe(inside(root, place, raw.source))
        except FileNotFoundError:
            continue
        except PictureError as error:
            return place, error.reason, error.detail
        return _Located(raw=raw, place=place, width=width, height=height)
    return raw.source, "missing image", f"looked for {', '.join(dict.fromkeys(raw.places))}"


def _or_drop(attempt: "_Located | tuple[str, str, str]", ledger: Ledger) -> _Located | None:
    if isinstance(attempt, _Located):
        return attempt
    file, reason, detail = attempt
    ledger.drop(file, "image", reason, detail)
    return None


def _without_repeats(located: Mapping[str, list[_Located]], ledger: Ledger) -> dict[str, list[_Located]]:
    """Each image once. Held-out splits take precedence, and synthetic images are removed from them."""
    kept: dict[str, list[_Located]] = {}
    seen: dict[str, str] = {}
    for split in [name for name in HELD_OUT_FIRST if name in located]:
        kept[split] = []
        for one in located[split]:
            if one.place in seen:
                reason = "listed twice" if seen[one.place] == split else f"also in {seen[one.place]}"
                ledger.drop(one.place, "image", reason, f"left out of {split}")
                continue
            seen[one.place] = split
            if one.raw.provenance is not None and split != "train":
                ledger.drop(one.place, "image", "synthetic image held out", f"{split} must stay real")
                continue
            kept[split].append(one)
    return {split: kept[split] for split in reversed(HELD_OUT_FIRST) if split in kept}


def _remark_on_strangers(
    root: UPath, raw: RawDataset, located: Mapping[str, Sequence[_Located]], ledger: Ledger
) -> None:
    """Count the image files that are beside those of the data set but do not belong to it."""
    named = {place for images in raw.splits.values() for one in images for place in one.places}
    folders = {str(PurePosixPath(one.place).parent) for images in located.values() for one in images}
    for folder in sorted(folders):
        beside = [name for name in pictures(root, folder) if str(PurePosixPath(name).parent) == folder]
        num_strangers = len(set(beside) - named)
        if num_strangers:
            ledger.remarks.append(f"{num_strangers} pictures in {folder} belong to no split, or have no annotation")


def _shared_folder(located: Mapping[str, Sequence[_Located]]) -> str:
    """The image folder that contains all images, with its slash; ids omit it. Empty if there is none."""
    firsts = {PurePosixPath(one.place).parts[0] for images in located.values() for one in images}
    return f"{firsts.pop()}/" if len(firsts) == 1 and firsts <= set(IMAGE_FOLDERS) else ""


def _image(root: UPath, one: _Located, image_id: str, classes: Sequence[str], ledger: Ledger) -> LabeledImage:
    _check_size(one, ledger)
    index = {name: position for position, name in enumerate(classes)}
    kept = list(_sound_boxes(one, index, ledger))
    return LabeledImage(
        id=image_id,
        uri=str(root / one.place),
        width=one.width,
        height=one.height,
        annotation=_annotation(kept, index),
        masks=masks_of(kept, one.raw.source, (one.width, one.height), ledger),
    )


def _check_size(one: _Located, ledger: Ledger) -> None:
    given = one.raw.size
    if given is None or any(map(math.isnan, given)) or given == (one.width, one.height):
        return
    detail = f"annotated as {given[0]:g}x{given[1]:g} px, but the image has {one.width}x{one.height} px, which is used"
    ledger.note(one.place, "image", "size mismatch", detail)


def _annotation(kept: Sequence[Sound], index: Mapping[str, int]) -> Annotation:
    if not kept:
        return Annotation.empty()
    return Annotation(
        boxes=np.array([corners for _, corners in kept], dtype=np.float32),
        labels=np.array([index[box.label] for box, _ in kept if box.label is not None], dtype=np.int64),
        ignore=np.array([box.ignore for box, _ in kept], dtype=np.bool_),
    )


def _sound_boxes(one: _Located, index: Mapping[str, int], ledger: Ledger) -> Iterator[Sound]:
    """The valid boxes, each with its corners ``[4]`` in px of the image, clipped at its border."""
    file = one.raw.source
    scale = (one.width, one.height) * 2 if one.raw.relative else (1, 1, 1, 1)
    for box in one.raw.boxes:
        corners = [value * side for value, side in zip(box.corners, scale, strict=True)]
        clipped = np.clip(corners, 0, (one.width, one.height) * 2).astype(np.float32)
        reason = _fault(box, index) or ("" if geometry.areas(clipped[None])[0] > 0 else "outside the image")
        if reason:
            ledger.drop(file, "box", reason, box.where)
            continue
        if np.abs(clipped - corners).max() > _ROUNDING_PX:
            detail = f"{box.where}, in an image of {one.width}x{one.height} px"
            ledger.note(file, "box", "clipped at the image border", detail)
        yield box, clipped


def _fault(box: RawBox, index: Mapping[str, int]) -> str:
    """The reason why the box cannot be used in an image of any size; empty if it can."""
    x0, y0, x1, y1 = box.corners
    if not all(map(math.isfinite, box.corners)):
        return "not a number"
    if box.label not in index:
        return "unknown class"
    if x1 < x0 or y1 < y0:
        return "negative size"
    return "zero area" if x1 == x0 or y1 == y0 else ""


def _synthetic(located: Mapping[str, Sequence[_Located]], strip: str) -> dict[str, Provenance]:
    """The provenance by image id, with the id of its source."""
    places = {one.place for images in located.values() for one in images}
    found = {}
    for one in (one for images in located.values() for one in images):
        if one.raw.provenance is not None:
            source = one.raw.provenance.source
            source = source.removeprefix(strip) if source in places else source
            found[one.place.removeprefix(strip)] = Provenance(source=source, lineage=one.raw.provenance.lineage)
    return found
