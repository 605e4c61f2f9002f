"""Import of a folder of labelled images: the splits of a run, and a report of all that was left out.

Without a validation split, real training images are held out for it; synthetic ones (from an export) never are.
``loop.data.reading`` reads the images and boxes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from upath import UPath

from actors.counted import counted
from actors.plain import dumps
from actors.records import LabeledImage
from loop.data.clean import read_clean
from loop.data.config import DataConfig
from loop.data.ledger import ImportReport, count
from loop.data.provenance import Provenance
from loop.data.reading import Folder, read_folder
from loop.data.relabelling import relabelled
from loop.data.splits import Images, hold_out, subset


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Real images by split, and the report of their import."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[LabeledImage, ...]]  # "train", "val", and "test" if there is one
    report: ImportReport
    val_is_drawn: bool  # "val" was held out of the training images, as there was no validation split
    synthetic: Mapping[str, Provenance] = field(default_factory=dict)  # by image id; only in an imported export
    clean: tuple[LabeledImage, ...] = ()  # images without objects, see ``data.clean``

    @property
    def real(self) -> tuple[LabeledImage, ...]:
        """All images that a run trains on and draws into: the training images, then those without objects."""
        return (*self.splits["train"], *self.clean)

    def identity(self) -> dict[str, str]:
        """The classes, and for each split the number of images and a hash of their names, sizes and labels.

        Labels include masks and areas. The hash does not depend on the location of the images, nor on their pixels.
        """
        images = {**self.splits, **({"clean": self.clean} if self.clean else {})}
        return {"classes": ", ".join(self.classes)} | {
            split: f"{len(members)} images {_hash(members)}" for split, members in images.items()
        }


def _hash(images: Sequence[LabeledImage]) -> str:
    """12 hex digits."""
    known = [
        [one.id, one.width, one.height, one.annotation, *([one.masks] if one.masks else [])]
        + ([one.areas] if one.areas else [])
        for one in images
    ]
    return hashlib.sha256(dumps(known)).hexdigest()[:12]


def import_data(config: DataConfig, root: UPath, seed: int) -> Dataset:
    """Read the data set in ``root``; ``seed`` decides on held-out images and the subset, if the config has them.

    Raises the errors of ``read_folder`` and ``read_clean``, and ValueError if no usable training or validation image is
    left. All other faults are counted in the report.
    """
    folder = read_folder(config, root)
    _check_classes(folder, config)
    val = folder.splits["val"] if "val" in folder.splits else _held_out(folder, config.val_frac, seed)
    folder = relabelled(folder, val, config)
    clean = read_clean(config, folder.root, {**folder.splits, "val": val}, folder.ledger)
    splits = _drawn(folder, val, config, seed)
    report = _report(folder, {**splits, **({"clean": clean} if clean else {})})
    _check_usable(report)
    used = {image.id for images in splits.values() for image in images}
    return Dataset(
        classes=folder.classes,
        splits=splits,
        report=report,
        val_is_drawn="val" not in folder.splits,
        synthetic={name: origin for name, origin in folder.synthetic.items() if name in used},
        clean=clean,
    )


def import_images(root: UPath, classes: Sequence[str]) -> tuple[LabeledImage, ...]:
    """All labelled images in ``root``, whatever their split, with labels that index ``classes``.

    Raises the errors of ``read_folder``, and ValueError if an image or box cannot be used or if a class of the folder
    is not among ``classes``.
    """
    folder = read_folder(DataConfig(root=str(root)), root)
    splits = {"all": tuple(image for images in folder.splits.values() for image in images)}
    report = _report(folder, splits)
    if report.dropped or not splits["all"]:
        raise ValueError(f"not every image of {root} can be used:\n{report}")
    return _relabelled(splits["all"], folder, classes)


def import_split(config: DataConfig, root: UPath, split: str, classes: Sequence[str]) -> Dataset:
    """One split of the data set in ``root``, with labels that index ``classes``; the only split, whatever its name.

    Raises the errors of ``read_folder``, and ValueError if there is no such split, no usable box in it, or if a class
    of the data set is not among ``classes``.
    """
    folder = read_folder(config, root)
    name = next(iter(folder.splits)) if len(folder.splits) == 1 else split
    if name not in folder.splits:
        raise ValueError(f"{root} has no split {split!r}; it has: {', '.join(folder.splits)}")
    report = _report(folder, {name: folder.splits[name]})
    if report.splits[name].boxes == report.splits[name].ignored:
        raise ValueError(f"no usable box in {name} of {root}:\n{report}")
    images = _relabelled(folder.splits[name], folder, classes)
    return Dataset(classes=tuple(classes), splits={split: images}, report=report, val_is_drawn=False)


def _relabelled(images: Sequence[LabeledImage], folder: Folder, classes: Sequence[str]) -> tuple[LabeledImage, ...]:
    """The images with labels that index ``classes``. Raises ValueError if a class of the folder is not among them."""
    if strangers := sorted(set(folder.classes) - set(classes)):
        raise ValueError(f"{folder.root}: classes {strangers} are not among those of the run: {list(classes)}")
    index = np.array([list(classes).index(name) for name in folder.classes], np.int64)
    return tuple(
        replace(image, annotation=replace(image.annotation, labels=index[image.annotation.labels])) for image in images
    )


def _check_classes(folder: Folder, config: DataConfig) -> None:
    if config.classes is not None and tuple(map(str.strip, config.classes)) != folder.classes:
        raise ValueError(
            f"data.classes is {list(config.classes)}, but {folder.root} names its classes itself: "
            f"{list(folder.classes)}; remove the key"
        )


def _held_out(folder: Folder, val_frac: float, seed: int) -> Images:
    """Validation images drawn from the real training images."""
    real = [image for image in folder.splits["train"] if image.id not in folder.synthetic]
    if len(real) < 2:
        report = _report(folder, folder.splits)
        raise ValueError(
            f"{counted(len(real), 'usable image')} cannot be split into training and validation:\n{report}"
        )
    _, val = hold_out(real, val_frac, seed)
    folder.ledger.remarks.append(
        f"no validation split: {counted(len(val), 'training image')} held out, drawn with seed {seed}"
    )
    return val


def _drawn(folder: Folder, val: Images, config: DataConfig, seed: int) -> dict[str, Images]:
    """The splits without held-out images and their synthetic copies in training, after sampling the subset."""
    remarks = folder.ledger.remarks
    if folder.synthetic:
        remarks.append(
            f"{counted(len(folder.synthetic), 'image is', 'images are')} synthetic, by their own flag; none is held out"
        )
    train = _without_held_out(folder, val)
    if config.subset is not None:
        remarks.append(
            f"data.subset: {config.subset} of {counted(len(train), 'training image')}, drawn with seed {seed}"
        )
        train = subset(train, config.subset, seed)
    if config.labels is not None:
        number = sum(image.id in folder.relabelled for image in train)
        remarks.append(
            f"of {counted(len(train), 'training image')}, {counted(number, 'has', 'have')} the labels "
            f"of {config.labels}"
        )
    return {"train": train, "val": val, **{name: folder.splits[name] for name in folder.splits if name == "test"}}


def _without_held_out(folder: Folder, val: Images) -> Images:
    """The training images that are neither validation images nor made from one."""
    held_out = {image.id for image in val}
    train = []
    for image in folder.splits["train"]:
        original = _original(image.id, folder.synthetic)
        if original not in held_out:
            train.append(image)
        elif original != image.id:
            folder.ledger.drop(image.id, "image", "copy of a held-out image", f"made from {original}")
    return tuple(train)


def _original(image_id: str, synthetic: Mapping[str, Provenance]) -> str:
    """The real image that an image was made from, over any number of steps; itself if it is real."""
    seen = {image_id}
    while image_id in synthetic and (source := synthetic[image_id].source) not in seen:
        image_id = source
        seen.add(image_id)
    return image_id


def _report(folder: Folder, splits: Mapping[str, Sequence[LabeledImage]]) -> ImportReport:
    return ImportReport(
        format=folder.format,
        root=str(folder.root),
        splits={split: count(images, folder.classes) for split, images in splits.items()},
        findings=folder.findings,
        remarks=tuple(folder.ledger.remarks),
    )


def _check_usable(report: ImportReport) -> None:
    """Raise ValueError if training or evaluation would have no boxes."""
    for split in ("train", "val"):
        counts = report.splits[split]
        if counts.boxes == counts.ignored:
            what = "box" if counts.images else "image"
            raise ValueError(f"no usable {what} is left in {split}:\n{report}")
