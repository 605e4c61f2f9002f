"""Reading of a folder of labelled images into records, with a ledger of all that was left out.

Images are found (``loop.data.locating``), boxes are moved into their frame (``loop.data.frames``), a notation that does
not fit stops the import with a question (``loop.data.notation``), and each box is checked (``loop.data.boxes``). An
image in several splits stays in the one that is held out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from upath import UPath

from actors import boxes as geometry
from actors.counted import counted
from actors.records import Annotation, LabeledImage
from actors.storage import is_local
from loop.data.boxes import Sound, usable_boxes
from loop.data.config import DataConfig
from loop.data.formats import READERS, detect
from loop.data.formats.base import RawDataset, below, is_picture, listing
from loop.data.frames import into_frame
from loop.data.ledger import Finding, Ledger
from loop.data.locating import Located, locate
from loop.data.notation import check_boxes
from loop.data.provenance import Provenance
from loop.data.segmentation import masks_of

IMAGE_FOLDERS = ("images", "JPEGImages")
HELD_OUT_FIRST = ("test", "val", "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The usable images of a folder, by its own splits."""

    format: str
    root: UPath
    classes: tuple[str, ...]
    splits: dict[str, tuple[LabeledImage, ...]]
    synthetic: Mapping[str, Provenance]  # by image id; only in an imported export
    ledger: Ledger
    located: Mapping[str, Mapping[str, Located]]  # all images by split and id, also those that their labels rule out
    of_labels: Mapping[str, Sequence[Finding]]  # about the labels of an image, by its id
    relabelled: frozenset[str] = field(default=frozenset())  # ids of training images with the labels of data.labels

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, those about labels last."""
        return (*self.ledger.findings, *(one for found in self.of_labels.values() for one in found))


def read_folder(config: DataConfig, root: UPath) -> Folder:
    """Read the data set in ``root``.

    Raises FileNotFoundError or ValueError, naming file and value, if there is no data of a known format, if an
    annotation file of the whole set is broken, or if a file name leads out of ``root``.
    """
    root = UPath(root).absolute() if is_local(UPath(root)) else UPath(root)
    kind = _format(config, root)
    ledger = Ledger()
    raw = READERS[kind].read(root, config, ledger)
    located = into_frame(
        _without_repeats(_without_same(locate(root, raw.splits, config, ledger), ledger), ledger), ledger
    )
    _remark_on_strangers(root, raw, located, ledger)
    for split, images in located.items():
        check_boxes(split, images, raw.classes, READERS[kind].NOTATION, config)
    strip = _shared_folder(located)
    by_id = {split: {one.place.removeprefix(strip): one for one in images} for split, images in located.items()}
    of_labels: dict[str, Sequence[Finding]] = {}
    return Folder(
        format=kind,
        root=root,
        classes=raw.classes,
        splits={split: labeled(root, raw.classes, images, of_labels) for split, images in by_id.items()},
        synthetic=_synthetic(located, strip),
        ledger=ledger,
        located=by_id,
        of_labels=of_labels,
    )


def labeled(
    root: UPath, classes: Sequence[str], located: Mapping[str, Located], of_labels: dict[str, Sequence[Finding]]
) -> tuple[LabeledImage, ...]:
    """The images, by id, whose labels can be used. Puts what is found in the labels of an image into ``of_labels``."""
    index = {name: position for position, name in enumerate(classes)}
    found = []
    for image_id, one in located.items():
        ledger = Ledger()
        if (image := _image(root, one, image_id, index, ledger)) is not None:
            found.append(image)
        if ledger.findings:
            of_labels[image_id] = ledger.findings
    return tuple(found)


def _format(config: DataConfig, root: UPath) -> str:
    if not root.is_dir():
        raise NotADirectoryError(f"data.root: {root} is no folder")
    if config.format == "auto":
        return detect(root)
    kind = "coco" if config.format == "world" else config.format
    if not READERS[kind].find(root):
        raise FileNotFoundError(
            f"{root}: no {kind} data here; looked for {READERS[kind].LOOKED_FOR}; found {listing(root)}"
        )
    return kind


def _without_same(located: Mapping[str, list[Located]], ledger: Ledger) -> dict[str, list[Located]]:
    """The splits without a held-out one that holds just the pictures of another, as in ``val: images/train``."""
    kept = dict(located)
    for split, copy in (("val", "test"), ("train", "val"), ("train", "test")):
        places = [{one.place for one in kept.get(name, ())} for name in (split, copy)]
        if places[0] and places[0] == places[1]:
            ledger.remarks.append(
                f"{copy} is left out: it holds the same {counted(len(places[0]), 'picture')} as {split}"
            )
            del kept[copy]
    return kept


def _without_repeats(located: Mapping[str, list[Located]], ledger: Ledger) -> dict[str, list[Located]]:
    """Each image once. Held-out splits take precedence, and synthetic images are removed from them."""
    kept: dict[str, list[Located]] = {}
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
    root: UPath, raw: RawDataset, located: Mapping[str, Sequence[Located]], ledger: Ledger
) -> None:
    """Count the image files that are beside those of the data set but do not belong to it."""
    named = {place for images in raw.splits.values() for one in images for place in one.places}
    named |= {one.place for images in located.values() for one in images}
    folders = {str(PurePosixPath(one.place).parent) for images in located.values() for one in images}
    for folder in sorted(folders):
        beside = {below(root, path) for path in (root / folder).iterdir() if is_picture(path.name)}
        num_strangers = len(beside - named)
        if num_strangers:
            ledger.remarks.append(
                f"in {folder}, {counted(num_strangers, 'picture is', 'pictures are')} of no split, or without "
                "annotation"
            )


def _shared_folder(located: Mapping[str, Sequence[Located]]) -> str:
    """The image folder that contains all images, with its slash; ids omit it. Empty if there is none."""
    firsts = {PurePosixPath(one.place).parts[0] for images in located.values() for one in images}
    return f"{firsts.pop()}/" if len(firsts) == 1 and firsts <= set(IMAGE_FOLDERS) else ""


def _image(root: UPath, one: Located, image_id: str, index: Mapping[str, int], ledger: Ledger) -> LabeledImage | None:
    kept = usable_boxes(one, index, ledger)
    if kept is None:
        return None
    return LabeledImage(
        id=image_id,
        uri=str(root / one.place),
        width=one.size[0],
        height=one.size[1],
        annotation=_annotation(kept, index),
        masks=masks_of(kept, one.raw.source, one.size, ledger),
        areas=_areas(kept),
    )


def _areas(kept: Sequence[Sound]) -> tuple[float, ...]:
    """``LabeledImage.areas``: those in the file, and the box's own where it has none."""
    of_boxes = [float(geometry.areas(corners[None])[0]) for _, corners in kept]
    given = [box.area if box.area > 0 else area for (box, _), area in zip(kept, of_boxes, strict=True)]
    return () if np.allclose(given, of_boxes, rtol=1e-4) else tuple(given)


def _annotation(kept: Sequence[Sound], index: Mapping[str, int]) -> Annotation:
    if not kept:
        return Annotation.empty()
    return Annotation(
        boxes=np.array([corners for _, corners in kept], dtype=np.float32),
        labels=np.array([index[box.label] for box, _ in kept if box.label is not None], dtype=np.int64),
        ignore=np.array([box.ignore for box, _ in kept], dtype=np.bool_),
    )


def _synthetic(located: Mapping[str, Sequence[Located]], strip: str) -> dict[str, Provenance]:
    """The provenance by image id, with the id of its source."""
    places = {one.place for images in located.values() for one in images}
    found = {}
    for one in (one for images in located.values() for one in images):
        if one.raw.provenance is not None:
            source = one.raw.provenance.source
            source = source.removeprefix(strip) if source in places else source
            found[one.place.removeprefix(strip)] = Provenance(source=source, lineage=one.raw.provenance.lineage)
    return found
