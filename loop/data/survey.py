"""Survey of a folder of data: its format, classes, splits, and the sizes of images and boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from actors.counted import counted
from actors.records import LabeledImage
from loop.data.config import DataConfig
from loop.data.formats.coco_files import CLEAN
from loop.data.importing import Dataset, import_data


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The contents of a folder of labelled images. Box sides are those of boxes that are not ignored."""

    root: str
    keys: Mapping[str, object]  # of the section data, besides its root
    dataset: Dataset
    image_size_px: int  # median of the images' longer sides
    min_side_px: float  # shortest box side
    small_side_px: float  # 10th percentile of the shorter sides in the class where it is smallest
    median_side_px: float  # median of the boxes' shorter sides
    unused_clean: str = ""  # why the folder ``clean`` of the data set is not used; empty if it is, or there is none

    @property
    def format(self) -> str:
        """coco, yolo or voc."""
        return self.dataset.report.format

    def __str__(self) -> str:
        return (
            f"{self.dataset.report}\n"
            f"Images: {self.image_size_px} px on the longer side (median). Boxes, shorter side: "
            f"{self.min_side_px:.0f} px at least, {self.median_side_px:.0f} px in the median; "
            f"a tenth of the smallest class below {self.small_side_px:.0f} px"
            + (f"\nThe folder clean is not used as data.clean. {self.unused_clean}" if self.unused_clean else "")
        )


def describe(folder: UPath, seed: int = 0, keys: Mapping[str, object] | None = None, clean: str | None = None) -> Found:
    """Import the folder and measure it. ``keys`` are further keys of the section data; others have their defaults.

    ``clean`` is the folder of pictures without objects, or ``none``. By default it is the data set's own folder
    ``clean`` or ``images/clean``, if there is one that can be used.

    Raises the errors of ``import_data``: for a folder without data, a FileNotFoundError that lists the known formats.
    """
    root = folder.resolve() if ".." in folder.parts else folder
    given, note = dict(keys or {}), ""
    own = next((name for name in CLEAN if (root / name).is_dir()), None) if clean is None else None
    chosen = {"clean": own or clean} if (own or clean) not in {None, "none"} else {}
    try:
        dataset = _imported(root, given | chosen, seed)
        note = _with_objects(dataset) if own else ""
    except (ValueError, FileNotFoundError) as error:
        if own is None:
            raise
        note = str(error)
    if note:
        dataset, chosen = _imported(root, given, seed), {}
    images = [image for split in dataset.splits.values() for image in split]
    sides, labels = _shorter_sides(images)
    return Found(
        root=dataset.report.root,
        keys=given | chosen,
        dataset=dataset,
        image_size_px=int(np.median([max(image.width, image.height) for image in images])),
        min_side_px=float(sides.min()),
        small_side_px=min(float(np.percentile(sides[labels == label], 10)) for label in np.unique(labels)),
        median_side_px=float(np.median(sides)),
        unused_clean=note,
    )


def _imported(root: UPath, keys: Mapping[str, object], seed: int) -> Dataset:
    return import_data(DataConfig.model_validate({**keys, "root": str(root)}), root, seed)


def _with_objects(dataset: Dataset) -> str:
    """Why the pictures of ``data.clean`` are not taken for free of objects by themselves; empty if they are."""
    labelled = [one for one in dataset.report.dropped if one.reason == "labelled objects"]
    if not labelled:
        return ""
    told = counted(len(labelled), "of its pictures has", "of its pictures have")
    return f"{told} labelled objects, such as {labelled[0].file}; name the folder with --clean if the others have none"


def _shorter_sides(images: Sequence[LabeledImage]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Shorter sides ``[n]`` in px and labels ``[n]`` of the boxes; ignored boxes count only if there are no others."""
    boxes, labels, ignore = (
        np.concatenate([getattr(image.annotation, name) for image in images]) for name in ("boxes", "labels", "ignore")
    )
    counted = ignore.all() | ~ignore
    return (boxes[counted, 2:] - boxes[counted, :2]).min(axis=1), labels[counted]
