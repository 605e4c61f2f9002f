"""Training images with the labels of another file (``data.labels``), in place of those of the data set.

The file is checked as a data set is: boxes move into the frame of their images, and a notation that does not fit stops
the import with a question.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from upath import UPath

from actors.records import LabeledImage
from loop.data.config import DataConfig
from loop.data.formats import coco
from loop.data.formats.base import RawBox, Size
from loop.data.frames import into_frame
from loop.data.ledger import Ledger
from loop.data.locating import Located
from loop.data.notation import check_boxes


def relabelled(
    located: Mapping[str, list[Located]], classes: Sequence[str], config: DataConfig, ledger: Ledger
) -> dict[str, list[Located]]:
    """The images by split, where training images that ``config.labels`` names have the boxes of that file.

    Its boxes are xyxy in px of the upright image, or of the size that the file gives for it; images for which that is
    uncertain are dropped. Raises FileNotFoundError if there is no such file. Raises ValueError if it is no COCO file,
    names no image or one that is no training image, has boxes of a class that is not among ``classes``, or if its boxes
    seem misread.
    """
    if config.labels is None:
        return dict(located)
    file, train = UPath(config.labels), located.get("train", [])
    if not file.is_file():
        raise FileNotFoundError(f"data.labels: there is no file {file}")
    given = coco.read_boxes(file, config, ledger)
    _check_names(given.keys(), train, file, config)
    _check_classes([box for _, boxes in given.values() for box in boxes], classes, file)
    named = [_with(one, *given[one.place], str(file)) for one in train if one.place in given]
    moved = {one.place: one for one in into_frame({"train": named}, ledger)["train"]}
    check_boxes("data.labels", list(moved.values()), classes, coco.NOTATION, config)
    kept = [moved.get(one.place, one) for one in train if one.place in moved or one.place not in given]
    return {**located, "train": kept}


def _check_names(names: Collection[str], train: Sequence[Located], file: UPath, config: DataConfig) -> None:
    how = "it gives images by their paths below data.root"
    if not names:
        raise ValueError(f"data.labels: {file} names no image; {how}")
    if strangers := sorted(set(names) - {one.place for one in train}):
        raise ValueError(
            f"data.labels: {file} names {len(strangers)} images that are no training images of {config.root}, such as "
            f"{strangers[0]!r}; {how}"
        )


def _check_classes(boxes: Sequence[RawBox], classes: Sequence[str], file: UPath) -> None:
    if strangers := sorted({box.label for box in boxes if box.label is not None} - set(classes)):
        raise ValueError(
            f"data.labels: {file} has boxes of the class {strangers[0]!r}, which the data set does not have; name its "
            f"categories as the data set does: {list(classes)}"
        )


def _with(one: Located, size: Size, boxes: tuple[RawBox, ...], source: str) -> Located:
    """The image with other boxes, annotated on a picture of ``size``."""
    return replace(one, raw=replace(one.raw, boxes=boxes, source=source, size=size, relative=False))


def remark_on_labels(
    root: UPath, located: Sequence[Located], usable: Sequence[LabeledImage], config: DataConfig, ledger: Ledger
) -> None:
    """Count the ``usable`` training images that have the labels of ``config.labels``, if it is given.

    ``located`` are all of them, also those that were left out. Raises ValueError if the file gives labels to none.
    """
    if config.labels is None:
        return
    source, used = str(UPath(config.labels)), {image.uri for image in usable}
    number = sum(one.raw.source == source and str(root / one.place) in used for one in located)
    if not number:
        reasons = Counter(found.reason for found in ledger.findings if found.dropped and found.what == "image")
        listed = ", ".join(f"{times} x {reason}" for reason, times in reasons.most_common())
        raise ValueError(
            f"data.labels: no image that {source} names can be used; images left out: {listed}; correct the file"
        )
    ledger.remarks.append(f"{number} of {len(usable)} training images have the labels of {source}")
