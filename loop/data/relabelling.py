"""Training images with the labels of another file (``data.labels``), in place of those of the data set.

The file is checked as a data set is: boxes move into the frame of their images, and a notation that does not fit stops
the import with a question.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import PurePosixPath

from upath import UPath

from actors.counted import counted
from actors.records import LabeledImage
from loop.data.config import DataConfig
from loop.data.formats import coco
from loop.data.formats.base import RawBox
from loop.data.frames import into_frame
from loop.data.ledger import Finding, Ledger
from loop.data.locating import Located
from loop.data.notation import check_boxes
from loop.data.reading import Folder, labeled


def relabelled(folder: Folder, val: Collection[LabeledImage], config: DataConfig) -> Folder:
    """The folder, where training images that ``config.labels`` names have the labels of that file.

    Images of ``val`` keep their own, also where they are held out of the training images. Boxes of the file are xyxy in
    px of the upright image, or of the size that the file gives for it; images for which that is uncertain are dropped.

    Raises FileNotFoundError if there is no such file. Raises ValueError if it is no COCO file, names an image twice, no
    image, or one that is no training image, has boxes of an image that it does not name, or of a class that the data
    set does not have, if its boxes seem misread, or if no image that it names can be used.
    """
    if config.labels is None:
        return folder
    file, ledger = UPath(config.labels), Ledger()
    if not file.is_file():
        raise FileNotFoundError(f"data.labels: there is no file {file}")
    given = _read(file, folder, config, ledger)
    held_out = given.keys() & {image.id for image in val}
    for_training = {image_id: one for image_id, one in given.items() if image_id not in held_out}
    found = into_frame({"train": list(for_training.values())}, ledger)["train"]
    check_boxes("data.labels", found, folder.classes, coco.NOTATION, config)
    ids = {one.place: image_id for image_id, one in for_training.items()}
    moved = {ids[one.place]: one for one in found}
    of_labels: dict[str, Sequence[Finding]] = dict.fromkeys(for_training, ())  # forgets those about own labels
    images = {image.id: image for image in labeled(folder.root, folder.classes, moved, of_labels)}
    _check_used(images, held_out, [*ledger.findings, *chain.from_iterable(of_labels.values())], file)
    own = {image.id: image for image in folder.splits["train"] if image.id not in for_training}
    known = own | images
    folder.ledger.findings += ledger.findings
    if held_out:
        words = ("image is held out and keeps its", "images are held out and keep their")
        folder.ledger.remarks.append(f"in {file}, {counted(len(held_out), *words)} own labels")
    return replace(
        folder,
        splits=folder.splits | {"train": tuple(known[name] for name in folder.located["train"] if name in known)},
        of_labels={**folder.of_labels, **of_labels},
        relabelled=frozenset(images),
    )


def _read(file: UPath, folder: Folder, config: DataConfig, ledger: Ledger) -> dict[str, Located]:
    """The training images that the file names, by id, with its boxes in px of the size that it gives for them."""
    train = folder.located["train"]
    ids = {one.place: image_id for image_id, one in train.items()}
    found: dict[str, Located] = {}
    boxes = coco.read_boxes(file, config, ledger)
    _check_names([name for name, _, _ in boxes], ids.keys() | train.keys(), file, folder)
    for name, size, of_image in boxes:
        image_id = ids.get(_normal(name), _normal(name))
        if image_id in found:
            raise ValueError(f"data.labels: {file} names the image {name!r} twice; give it once, with all its boxes")
        raw = replace(train[image_id].raw, boxes=of_image, source=str(file), size=size, relative=False)
        found[image_id] = replace(train[image_id], raw=raw)
    _check_boxes([box for _, _, of_image in boxes for box in of_image], ledger, folder, file)
    return found


def _normal(name: str) -> str:
    """A path without ``./``."""
    return str(PurePosixPath(name))


def _check_names(names: Sequence[str], known: Collection[str], file: UPath, folder: Folder) -> None:
    example = next((one.place for one in folder.located["train"].values()), "")
    how = f"give images by their paths below {folder.root}, such as {example!r}"
    if not names:
        raise ValueError(f"data.labels: {file} names no image; {how}")
    if strangers := sorted(name for name in set(names) if _normal(name) not in known):
        is_none = counted(len(strangers), "is no training image", "are no training images")
        raise ValueError(
            f"data.labels: of {counted(len(names), 'image')} in {file}, {is_none} of the data set, "
            f"such as {strangers[0]!r}; {how}"
        )


def _check_boxes(boxes: Sequence[RawBox], ledger: Ledger, folder: Folder, file: UPath) -> None:
    if lost := [found for found in ledger.findings if found.reason == "unknown image"]:
        raise ValueError(
            f"data.labels: in {file}, {counted(len(lost), 'box is of an image', 'boxes are of images')} that it "
            f"does not name, such as {lost[0].detail}; correct the image ids, or delete the "
            "boxes, since their images would be trained without them"
        )
    if strangers := sorted({box.label for box in boxes if box.label is not None} - set(folder.classes)):
        raise ValueError(
            f"data.labels: {file} has boxes of the class {strangers[0]!r}, which the data set does not have; name its "
            f"categories as the data set does: {list(folder.classes)}"
        )


def _check_used(
    images: Mapping[str, LabeledImage], held_out: Collection[str], findings: Sequence[Finding], file: UPath
) -> None:
    if images:
        return
    reasons = Counter(found.reason for found in findings if found.dropped and found.what == "image")
    reasons.update({"held out": len(held_out)} if held_out else {})
    listed = ", ".join(f"{times} x {reason}" for reason, times in reasons.most_common())
    raise ValueError(f"data.labels: no image in {file} can be used; images left out: {listed}; correct the file")
