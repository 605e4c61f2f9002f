"""Images without objects (``data.clean``): empty scenes, or parts without a defect.

They are found and checked as labelled images are. A picture with labelled objects, a copy of another picture and a
near-copy of a held-out image are left out.
"""

from collections.abc import Mapping

from upath import UPath

from actors.records import Annotation, LabeledImage
from actors.storage import is_local
from loop.data.config import DataConfig
from loop.data.formats import kinds
from loop.data.formats.base import RawImage, below, pictures
from loop.data.formats.yolo.labels import LabelFiles
from loop.data.leaks import near_copies, num_compared, repeats, same_files
from loop.data.ledger import Ledger
from loop.data.locating import locate
from loop.data.splits import Images

PREFIX = "clean/"
"""Ids of clean images begin with it, so that none equals the id of a labelled image in a folder of the same names."""


def read_clean(config: DataConfig, root: UPath, labelled: Mapping[str, Images], ledger: Ledger) -> Images:
    """The images of ``config.clean_folder``, sorted by path; none without such a folder. The rest is dropped.

    ``labelled`` are the images of the data set in ``root``, by split.

    Raises NotADirectoryError if there is no such folder, FileNotFoundError if it holds no picture, and ValueError if it
    is a labelled data set, if a link leads out of it, or if none of its pictures can be used.
    """
    if config.clean_folder is None:
        return ()
    folder, own = _place(config.clean_folder, root), Ledger()
    images = _found(folder, config, own)
    left = _without_repeats(_without_objects(images, folder, root, labelled, own), own)
    if config.format != "world":  # its scenes share the surfaces, and none is a copy
        left = _without_leaks(left, labelled, own)
    _check_ids(left, labelled)
    if not left:
        reasons = "\n".join(f"  {one.file}: {one.reason} {one.detail}".rstrip() for one in own.findings[:5])
        raise ValueError(f"data.clean: none of the {len(own.findings)} pictures in {folder} can be used:\n{reasons}")
    ledger.findings += own.findings
    ledger.remarks += [f"data.clean: {len(left)} images without objects from {folder}", *own.remarks]
    return left


def _place(clean: str, root: UPath) -> UPath:
    """The folder below ``root`` if there is one, else as given."""
    for folder in (root / clean, UPath(clean)):
        if folder.is_dir():
            return folder.absolute() if is_local(folder) else folder
    raise NotADirectoryError(
        f"data.clean: there is no folder {clean!r}, neither in {root} nor as a path of its own; give the folder of the "
        "pictures without objects"
    )


def _found(folder: UPath, config: DataConfig, ledger: Ledger) -> Images:
    if labels := kinds(folder):
        raise ValueError(
            f"data.clean: {folder} is a labelled data set ({labels[0]}); give a folder of pictures alone, in which no "
            "object is to be seen"
        )
    places = pictures(folder, ".", follow_links=config.follow_links)
    if not places:
        raise FileNotFoundError(f"data.clean: {folder} holds no picture; give a folder of pictures without objects")
    broken = Ledger()
    raw = [RawImage(source=place, places=(place,), boxes=()) for place in places]
    located = locate(folder, {"clean": raw}, config, broken)["clean"]
    for one in broken.findings:
        ledger.drop(PREFIX + one.file, "image", one.reason, one.detail)
    return tuple(
        LabeledImage(
            id=PREFIX + one.place,
            uri=str(folder / one.place),
            width=one.size[0],
            height=one.size[1],
            annotation=Annotation.empty(),
        )
        for one in located
    )


def _without_objects(
    images: Images, folder: UPath, root: UPath, labelled: Mapping[str, Images], ledger: Ledger
) -> Images:
    """The images without those that the data set knows, with boxes or in a held-out split, and those with a label file.

    A clean image that is also an empty training image would be shown twice as often as meant.
    """
    boxed = tuple(image for images in labelled.values() for image in images if len(image.annotation))
    reasons = dict.fromkeys(same_files(images, boxed), "labelled objects")
    for split, others in labelled.items():
        empty = tuple(image for image in others if not len(image.annotation))
        reasons |= dict.fromkeys(same_files(images, empty), f"also in {split}")
    files = _label_files(images, folder, root)
    for image in images:
        if image.id in files:
            ledger.drop(image.id, "image", "labelled objects", f"see {files[image.id]}")
        elif image.id in reasons:
            ledger.drop(image.id, "image", reasons[image.id], "the same file as an image of the data set")
    return tuple(image for image in images if image.id not in reasons and image.id not in files)


def _label_files(images: Images, folder: UPath, root: UPath) -> dict[str, str]:
    """The YOLO label file of each image that has one with a row in it, by image id."""
    base = root if folder.is_relative_to(root) else folder.parent
    places = {image.id: below(base, folder / image.id.removeprefix(PREFIX)) for image in images}
    files = LabelFiles(base, tuple(places.values()))
    found = {image_id: files.of(place) for image_id, place in places.items()}
    return {image_id: file for image_id, file in found.items() if file and (base / file).read_bytes().strip()}


def _without_repeats(images: Images, ledger: Ledger) -> Images:
    again = repeats(images)
    for image_id, first in again.items():
        ledger.drop(image_id, "image", "repeated picture", f"the same file as {first}")
    return tuple(image for image in images if image.id not in again)


def _without_leaks(images: Images, labelled: Mapping[str, Images], ledger: Ledger) -> Images:
    """The images without near-copies of held-out ones.

    A held-out image that training images resemble as well, as all pictures of a fixed camera do, does not count.
    """
    held_out = tuple(image for split, others in labelled.items() if split != "train" for image in others)
    alike, num_alike = near_copies(held_out, images), 0
    if alike:
        held_ids = {image.id for image in held_out}
        train = tuple(image for image in labelled["train"] if image.id not in held_ids)
        told, num_alike = near_copies(train, held_out), len(alike)
        alike = near_copies(tuple(image for image in held_out if image.id not in told), images)
    for image_id, known in alike.items():
        ledger.drop(image_id, "image", "near-copy of a held-out image", f"resembles {known}")
    if num_alike > len(alike):
        ledger.remarks.append(
            f"data.clean: {num_alike - len(alike)} images resemble held-out images, as training images do, and are used"
        )
    if (compared := num_compared(held_out, images)) < len(images):
        ledger.remarks.append(
            f"data.clean: near-copies of held-out images were looked for in {compared} of {len(images)} images"
        )
    return tuple(image for image in images if image.id not in alike)


def _check_ids(images: Images, labelled: Mapping[str, Images]) -> None:
    known = {image.id for others in labelled.values() for image in others}
    if taken := sorted(image.id for image in images if image.id in known):
        raise ValueError(
            f"data.clean: the data set has a labelled image {taken[0]} of its own ({len(taken)} in all); rename its "
            f"folder {PREFIX}"
        )
