"""Images without objects (``data.clean``): empty scenes, or parts without a defect.

They are found and checked as labelled images are. A picture with labelled objects, a copy of another picture, whatever
its file format, and a near-copy of a held-out image are left out.
"""

from collections.abc import Iterator, Mapping

from upath import UPath

from actors.counted import counted
from actors.records import CLEAN_PREFIX, Annotation, LabeledImage
from actors.storage import is_local
from loop.data.config import DataConfig
from loop.data.copies import comparable, repeats, same_files, same_pictures
from loop.data.formats import coco, cvat, voc, yolo
from loop.data.formats.base import RawImage, below, pictures
from loop.data.formats.yolo.labels import LabelFiles, looks_like_labels, unclaimed
from loop.data.formats.yolo.paths import text_of
from loop.data.leaks import near_copies, num_compared
from loop.data.ledger import Ledger
from loop.data.locating import locate
from loop.data.splits import Images

_NUM_EXAMPLES = 5  # of pictures that cannot be used, in an error
_LEAST_SIDE_PX = 32  # of a picture into which objects may fit


def read_clean(config: DataConfig, root: UPath, labelled: Mapping[str, Images], ledger: Ledger) -> Images:
    """The images of ``config.clean_folder``, sorted by path; none without such a folder. The rest is dropped.

    ``labelled`` are the images of the data set in ``root``, by split.

    Raises NotADirectoryError if there is no such folder, FileNotFoundError if it holds no picture, and ValueError if it
    has annotations other than YOLO's label files, or such a file without its picture, if a link leads out of it, or if
    none of its pictures can be used.
    """
    if config.clean_folder is None:
        return ()
    folder, own = _place(config.clean_folder, root), Ledger()
    images = _found(folder, config, own)
    left = _without_repeats(_without_objects(images, folder, root, labelled, own), own)
    if config.format != "world":  # its scenes share the surfaces, and none is a copy
        left = _without_leaks(_without_copies(left, labelled, own), labelled, own)
    _check_ids(left, labelled)
    if not left:
        raise ValueError(_none_left(folder, own))
    _note_tiny(left, own)
    ledger.findings += own.findings
    ledger.remarks += [f"data.clean: {counted(len(left), 'image')} without objects from {folder}", *own.remarks]
    return left


def _none_left(folder: UPath, ledger: Ledger) -> str:
    lines = [f"  {one.file}: {one.reason}: {one.detail}" for one in ledger.findings[:_NUM_EXAMPLES]]
    more = len(ledger.findings) - len(lines)
    told = (
        f"data.clean: no picture in {folder} can be used; give pictures in which no object is to be seen, and which "
        "are not in the data set. Left out:"
    )
    return "\n".join([told, *lines, *([f"  and {more} more"] if more else [])])


def _note_tiny(images: Images, ledger: Ledger) -> None:
    for image in images:
        if min(image.width, image.height) < _LEAST_SIDE_PX:
            ledger.note(image.id, "image", "tiny picture", f"{image.width}x{image.height} px")


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
    if annotations := next(_annotations(folder), None):
        raise ValueError(
            f"data.clean: {folder} is a labelled data set (see {annotations}); give a folder of pictures alone, in "
            "which no object is to be seen"
        )
    for file in unclaimed(folder, config.follow_links).values():
        if looks_like_labels(text_of(folder / file)):
            raise ValueError(
                f"data.clean: {folder / file} is a label file, and no picture has its name; give it the name of its "
                "picture, which is then left out, or remove it"
            )
    places = pictures(folder, ".", follow_links=config.follow_links)
    if not places:
        raise FileNotFoundError(f"data.clean: {folder} holds no picture; give a folder of pictures without objects")
    broken = Ledger()
    raw = [RawImage(source=place, places=(place,), boxes=()) for place in places]
    located = locate(folder, {"clean": raw}, config, broken)["clean"]
    for one in broken.findings:
        ledger.drop(CLEAN_PREFIX + one.file, "image", one.reason, one.detail)
    return tuple(
        LabeledImage(
            id=CLEAN_PREFIX + one.place,
            uri=str(folder / one.place),
            width=one.size[0],
            height=one.size[1],
            annotation=Annotation.empty(),
        )
        for one in located
    )


def _annotations(folder: UPath) -> Iterator[UPath]:
    """The annotations of a folder, besides the label files of single pictures."""
    yield from coco.find(folder).values()
    yield from cvat.find(folder)
    yield from (folder / split.annotations for split in voc.find(folder).values())
    yolo_file = yolo.find(folder)
    yield from [yolo_file] if yolo_file and yolo_file.is_file() else []


def _without_objects(
    images: Images, folder: UPath, root: UPath, labelled: Mapping[str, Images], ledger: Ledger
) -> Images:
    """The images without those that the data set knows, with boxes or in a held-out split, and those with a label file.

    A clean image that is also an empty training image would be shown twice as often as meant.
    """
    others = _boxed_first(labelled)
    known, splits = same_files(images, others), _splits(labelled)
    files = _label_files(images, folder, root)
    for image in images:
        if image.id in files:
            ledger.drop(image.id, "image", "labelled objects", f"see {files[image.id]}")
        elif image.id in known:
            _drop_known(image, "file", known[image.id], splits, ledger)
    return tuple(image for image in images if image.id not in known and image.id not in files)


def _without_copies(images: Images, labelled: Mapping[str, Images], ledger: Ledger) -> Images:
    """The images without those that show the same picture as another file, of the data set or among them."""
    splits = _splits(labelled)
    looked_at, others = comparable(images, _boxed_first(labelled))
    copies = same_pictures(looked_at, others)
    for image in images:
        if image.id in copies and copies[image.id].uri in splits:
            _drop_known(image, "picture", copies[image.id], splits, ledger)
        elif image.id in copies:
            ledger.drop(image.id, "image", "repeated picture", f"the same picture as {copies[image.id].id}")
    if len(looked_at) < len(images):
        ledger.remarks.append(
            f"data.clean: copies were looked for among {len(looked_at)} of {counted(len(images), 'image')}"
        )
    return tuple(image for image in images if image.id not in copies)


def _drop_known(image: LabeledImage, what: str, known: LabeledImage, splits: Mapping[str, str], ledger: Ledger) -> None:
    """Drop an image that is also one of the data set: the same ``what``."""
    split = splits[known.uri]
    reason = "labelled objects" if len(known.annotation) else f"also in {split}"
    ledger.drop(image.id, "image", reason, f"the same {what} as {known.id} in {split}")


def _boxed_first(labelled: Mapping[str, Images]) -> Images:
    """The images of all splits, each once, those with boxes first."""
    every = {image.uri: image for images in labelled.values() for image in images}
    return tuple(sorted(every.values(), key=lambda image: not len(image.annotation)))


def _splits(labelled: Mapping[str, Images]) -> dict[str, str]:
    """The split of each image, by URI; that of a held-out training image is the split into which it is held out."""
    order = sorted(labelled, key=lambda split: split != "train")
    return {image.uri: split for split in order for image in labelled[split]}


def _label_files(images: Images, folder: UPath, root: UPath) -> dict[str, str]:
    """The YOLO label file of each image that has one with a row in it, by image id, relative to ``root`` or whole.

    They are looked for at the places of the data set and at those of the folder.
    """
    found: dict[str, str] = {}
    for base in (folder, root if folder.is_relative_to(root) else folder.parent):
        places = {image.id: below(base, folder / image.id.removeprefix(CLEAN_PREFIX)) for image in images}
        files = LabelFiles(base, tuple(places.values()))
        named = {image_id: base / file for image_id, place in places.items() if (file := files.of(place))}
        found |= {image_id: _below_root(file, root) for image_id, file in named.items() if file.read_bytes().strip()}
    return found


def _below_root(file: UPath, root: UPath) -> str:
    return below(root, file) if file.is_relative_to(root) else str(file)


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
            f"data.clean: of {counted(len(images), 'image')}, {num_alike - len(alike)} resemble held-out images, as "
            "training images do, and are used"
        )
    if (compared := num_compared(held_out, images)) < len(images):
        ledger.remarks.append(
            f"data.clean: near-copies of held-out images were looked for in {compared} of "
            f"{counted(len(images), 'image')}"
        )
    return tuple(image for image in images if image.id not in alike)


def _check_ids(images: Images, labelled: Mapping[str, Images]) -> None:
    known = {image.id for others in labelled.values() for image in others}
    if taken := sorted(image.id for image in images if image.id in known):
        raise ValueError(
            f"data.clean: the data set has a labelled image {taken[0]} of its own ({len(taken)} in all); rename its "
            f"folder {CLEAN_PREFIX}"
        )
