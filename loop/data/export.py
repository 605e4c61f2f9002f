"""Export of real and synthetic images as one data set in a known format, each image with its provenance.

Synthetic images join the training split, flagged, with their source image and their lineage. Validation and test
splits stay real. Boxes, classes (also those without boxes), empty images and ignore flags survive a round trip through
every format (``import_data``), boxes to within 0.5 px. Instance masks survive in COCO only; the other formats have no
place for them. Image files are copied byte for byte, but those that readers of YOLO and VOC do not know are saved as
PNG.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from upath import UPath

from actors.images import decode, encode_png
from actors.records import LabeledImage, Sample
from actors.seeds import derive_id
from loop.data.card import dataset_card
from loop.data.formats import FORMATS, Format
from loop.data.formats.base import OutImage
from loop.data.provenance import Provenance

_NUM_COPIERS = 8
_READABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})  # by Ultralytics, OpenCV and Pillow
_SYNTHETIC = "synthetic_"  # prefix of the file names of synthetic images


def export(
    real: Sequence[LabeledImage],
    pool: Sequence[Sample],
    classes: Sequence[str],
    out: UPath,
    fmt: str,
    held_out: Mapping[str, Sequence[LabeledImage]] | None = None,
    provenance: Mapping[str, Provenance] | None = None,
) -> UPath:
    """Write ``real`` and the kept samples of ``pool`` as training data, ``held_out`` as ``{"val": ..., "test": ...}``.

    ``provenance`` (by image id) marks the images of ``real`` that are synthetic already: ``Dataset.synthetic`` of an
    imported export. ``fmt`` is coco, yolo or voc. Returns the path of the dataset card.

    Raises ValueError for an unknown format, for a folder that is not empty (it is left unchanged), for a class name
    that the format cannot hold, and for a synthetic image that is held out or was generated from a held-out one.
    """
    if fmt not in FORMATS:
        raise ValueError(f"unknown export format {fmt!r}; choose one of {', '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(True for _ in out.iterdir())):
        raise ValueError(f"{out} is not empty; export into a new folder")
    _refuse_names(classes, fmt)
    known = dict(provenance or {})
    samples = [_as_image(sample) for sample in pool if not sample.dropped]
    known |= {image.id: origin for image, origin in samples}
    splits = {"train": [*real, *(image for image, _ in samples)], **(held_out or {})}
    _refuse_leaks(splits, known)
    named = _named(splits, known, fmt)
    FORMATS[fmt].write(named, classes, out)
    _copy_pictures(named, out, FORMATS[fmt])
    card = out / "README.md"
    card.write_text(dataset_card(named, classes, fmt), encoding="utf-8")
    return card


def _refuse_names(classes: Sequence[str], fmt: str) -> None:
    """VOC has class names as lines of text and as text of XML, which has no control characters."""
    wrong = [name for name in classes if name != name.strip() or not name or not name.replace(" ", "").isprintable()]
    if fmt == "voc" and wrong:
        raise ValueError(
            f"VOC cannot hold the class name {wrong[0]!r}: no line breaks, control characters or outer spaces; "
            "export as coco or yolo, or rename the class"
        )


def _as_image(sample: Sample) -> tuple[LabeledImage, Provenance]:
    name = f"{_SYNTHETIC}{sample.id}{PurePosixPath(sample.uri).suffix}"
    image = LabeledImage(
        id=name, uri=sample.uri, width=sample.width, height=sample.height, annotation=sample.annotation
    )
    return image, Provenance(source=sample.lineage.image_id, lineage=sample.lineage)


def _refuse_leaks(splits: Mapping[str, Sequence[LabeledImage]], known: Mapping[str, Provenance]) -> None:
    held_out = {image.id: split for split, images in splits.items() if split != "train" for image in images}
    for image_id, origin in known.items():
        leak = next((name for name in (image_id, origin.source) if name in held_out), None)
        if leak is not None:
            raise ValueError(f"synthetic image {image_id}: {leak} belongs to {held_out[leak]}, which must stay real")


def _named(
    splits: Mapping[str, Sequence[LabeledImage]], known: Mapping[str, Provenance], fmt: str
) -> dict[str, list[OutImage]]:
    """Every image with its file name in the export and the path of its source image."""
    names = {key: _with_suffix(name, fmt) for key, name in _unique_names(splits).items()}
    paths = {image_id: FORMATS[fmt].picture_path(split, name) for (split, image_id), name in names.items()}
    named: dict[str, list[OutImage]] = {}
    for split, images in splits.items():
        named[split] = [
            OutImage(
                image=image,
                name=names[split, image.id],
                provenance=known.get(image.id),
                source_name=paths.get(known[image.id].source, "") if image.id in known else "",
            )
            for image in images
        ]
    return named


def _unique_names(splits: Mapping[str, Sequence[LabeledImage]]) -> dict[tuple[str, str], str]:
    """A file name for each split and id: the flattened id, with a hash if its stem is not unique."""
    flat = {(split, one.id): _flat(split, one.id) for split, images in splits.items() for one in images}
    if len(flat) < sum(map(len, splits.values())):
        repeated = [key for key, times in Counter((s, i.id) for s in splits for i in splits[s]).items() if times > 1]
        raise ValueError(f"images given twice: {repeated[:5]}")
    stems = Counter(PurePosixPath(name).stem.lower() for name in flat.values())
    return {
        key: name if stems[PurePosixPath(name).stem.lower()] == 1 else _with_hash(name, *key)
        for key, name in flat.items()
    }


def _with_suffix(name: str, fmt: str) -> str:
    """The name of a copy that can be read as ``fmt``."""
    path = PurePosixPath(name)
    return name if fmt == "coco" or path.suffix.lower() in _READABLE else f"{path.stem}.png"


def _flat(split: str, image_id: str) -> str:
    return image_id.removeprefix("images/").removeprefix(f"{split}/").replace("/", "__")


def _with_hash(name: str, split: str, image_id: str) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{derive_id(split, image_id)[:8]}{path.suffix}"


def _copy_pictures(named: Mapping[str, Sequence[OutImage]], out: UPath, module: Format) -> None:
    jobs = [(one, out / module.picture_path(split, one.name)) for split, images in named.items() for one in images]
    for folder in {target.parent for _, target in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_NUM_COPIERS) as threads:
        list(threads.map(_copy, jobs))


def _copy(job: tuple[OutImage, UPath]) -> None:
    one, target = job
    data = UPath(one.image.uri).read_bytes()
    same = PurePosixPath(one.image.uri).suffix == target.suffix
    target.write_bytes(data if same else encode_png(decode(data, one.image.uri)))
