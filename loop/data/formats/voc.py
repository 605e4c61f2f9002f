"""Pascal VOC: one XML file per image, with the same name.

The layout is the first of these that has XML files:

* ``Annotations/`` or ``annotations/``, with images in ``JPEGImages/`` or ``images/`` and splits in
  ``ImageSets/Main/{train,val,test}.txt`` in any letter case, also ``Validation.txt`` and other usual names
  (``trainval.txt`` is training data if there is no ``train.txt``);
* one folder per split, with XML files and images side by side;
* XML files and images side by side in the root.

Classes are the lines of ``classes.txt`` in the root if it exists (an export has it, so that classes without boxes
survive), else the names found, sorted.

Coordinates count pixels from 1 and name the first and the last pixel of a box, so ``(xmin, ymin, xmax, ymax)`` covers
``[xmin - 1, ymin - 1, xmax, ymax]``, and ``(1, 1, W, H)`` covers the whole image. Decimals are allowed. A box with
``xmin = xmax`` is one pixel wide by definition, but in practice it comes from a click without a drag, so it counts as
zero area. The export therefore widens sides below 1.01 px to 1.01 px about their centre: no box is lost, and edges
move by about half a pixel at most.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

from upath import UPath

from actors.counted import counted
from loop.data.config import DataConfig
from loop.data.formats.base import (
    ALIASES,
    PICTURE_SUFFIXES,
    Corners,
    Notation,
    OutImage,
    RawBox,
    RawDataset,
    RawImage,
    below,
    check_name,
    choose_splits,
    class_name,
    content,
    hidden,
    inside,
    names_split,
    number,
    pictures,
    safe_name,
)
from loop.data.formats.xml import opens_with, parse, plain_tags
from loop.data.ledger import Ledger
from loop.data.provenance import Provenance, from_fields, to_fields

LOOKED_FOR = "Annotations/*.xml (with ImageSets/Main/*.txt), <split>/*.xml or *.xml"
NOTATION: Notation = "x1, y1, x2, y2"
CLASS_FILE = "classes.txt"

_MIN_SIDE_PX = 1.01
_SETS = "ImageSets/Main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The location of a split. All names are relative to the root."""

    annotations: str  # folder
    pictures: str  # folder
    stems: tuple[str, ...] | None  # the images listed in a set file; None: all XML files and images of the folders


def find(root: UPath) -> dict[str, Split]:
    """The splits below ``root`` by name; empty if there is no VOC data."""
    for folder in ("Annotations", "annotations"):
        if _has_xml(root / folder):
            images = next((name for name in ("JPEGImages", "images", "Images") if (root / name).is_dir()), folder)
            whole = Split(annotations=folder, pictures=images, stems=None)
            return _image_sets(root, folder, images) or {"all": whole}
    splits = {
        path.name: Split(annotations=path.name, pictures=path.name, stems=None)
        for path in sorted(root.iterdir())
        if path.is_dir() and not hidden(path.name) and _has_xml(path)
    }
    return splits or ({"all": Split(annotations=".", pictures=".", stems=None)} if _has_xml(root) else {})


def read(root: UPath, config: DataConfig, ledger: Ledger) -> RawDataset:
    """Read all XML files. An image is dropped if its file is not a VOC annotation."""
    found = find(root)
    both = next((name for name in found if name.lower() == "trainval"), None)
    if both is not None:
        whole = found.pop(both)
        if not any(names_split(name) == "train" for name in found):
            found["train"] = whole
    from_zero: list[str] = []
    splits = {
        split: tuple(_images(root, place, config, ledger, from_zero))
        for split, (_, place) in choose_splits(found, config, ledger).items()
    }
    if from_zero:
        ledger.remarks.append(
            f"{counted(len(from_zero), 'file has', 'files have')} boxes that begin at pixel 0, e.g. {from_zero[0]}: "
            "VOC counts from 1; if this data set counts from 0, its boxes are up to 1 px too far to the upper left"
        )
    named = {box.label for images in splits.values() for image in images for box in image.boxes if box.label}
    return RawDataset(classes=_class_file(root) or tuple(sorted(named)), splits=splits)


def write(splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str], out: UPath) -> None:
    """Write ``Annotations/``, ``ImageSets/Main/<split>.txt`` and ``classes.txt`` for images in ``JPEGImages/``."""
    for folder in ("Annotations", _SETS):
        (out / folder).mkdir(parents=True, exist_ok=True)
    (out / CLASS_FILE).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    for split, images in splits.items():
        stems = [PurePosixPath(one.name).stem for one in images]
        (out / _SETS / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        for stem, one in zip(stems, images, strict=True):
            (out / "Annotations" / f"{stem}.xml").write_bytes(_to_xml(one, classes))


def picture_path(split: str, name: str) -> str:
    """The path of the image ``name`` in an export. One folder holds the images of all splits."""
    del split
    return f"JPEGImages/{name}"


def _has_xml(folder: UPath) -> bool:
    """True if a folder holds an XML file of VOC. macOS's ``._NAME.xml`` and those of other formats are none."""
    if not folder.is_dir():
        return False
    return any(opens_with("annotation", file) for file in folder.glob("*.xml") if not hidden(file.name))


def _image_sets(root: UPath, annotations: str, images: str) -> dict[str, Split]:
    """The sets of the whole data set, whatever their letter case; files of one class (``cat_train.txt``) are none."""
    usual = {"trainval", *(alias for aliases in ALIASES.values() for alias in aliases)}
    sets = {}
    for file in sorted((root / _SETS).glob("*.txt")):
        if file.stem.lower() in usual and file.is_file():
            stems = tuple(check_name(line, str(file)) for line in _text_lines(file))
            sets[file.stem] = Split(annotations=annotations, pictures=images, stems=stems)
    return sets


def _text_lines(file: UPath) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text ({error})") from None


def _class_file(root: UPath) -> tuple[str, ...]:
    file = root / CLASS_FILE
    return tuple(dict.fromkeys(class_name(line, file) for line in _text_lines(file))) if file.is_file() else ()


def _images(root: UPath, split: Split, config: DataConfig, ledger: Ledger, from_zero: list[str]) -> Iterator[RawImage]:
    """The images of a split. The files whose boxes begin at pixel 0 are added to ``from_zero``."""
    named = defaultdict(list)
    for picture in pictures(root, split.pictures, follow_links=config.follow_links):
        named[_stem(picture, split.pictures)].append(picture)
    known = {picture for found in named.values() for picture in found}
    for stem in _stems(root, split, named):
        source = PurePosixPath(split.annotations, f"{stem}.xml").as_posix()
        path = inside(root, source, source, follow_links=config.follow_links)
        try:
            element = plain_tags(parse(content(path)))
        except FileNotFoundError:
            ledger.drop(source, "image", "missing annotation", "no XML file for this image")
            continue
        except ValueError as error:
            ledger.drop(source, "image", "unreadable annotation", str(error))
            continue
        from_zero += [source] if _counts_from_zero(element) else []
        image = _image(element, source, split.pictures, named[stem])
        other = PurePosixPath(split.pictures, image.name).as_posix()
        if other in known and other not in image.places:
            ledger.note(source, "image", "names another picture", f"<filename> is {image.name}")
        yield image


def _stem(name: str, folder: str) -> str:
    return PurePosixPath(name).relative_to(folder).with_suffix("").as_posix()


def _stems(root: UPath, split: Split, named: Iterable[str]) -> Sequence[str]:
    """The names of a split's images: those in the set file, else all with an XML file or an image file."""
    if split.stems is not None:
        return [_listed(root, split, line) for line in split.stems]
    files = (root / split.annotations).rglob("*.xml")
    stems = {_stem(below(root, file), split.annotations) for file in files if not hidden(below(root, file))}
    return sorted(stems | set(named))


def _listed(root: UPath, split: Split, line: str) -> str:
    """The name that a line of a set file means: as it is, or without a flag, a folder and a suffix after or in it."""
    path = PurePosixPath(re.sub(r"\s+(-1|0|1)$", "", line))
    bare = path.with_suffix("") if path.suffix.lower() in PICTURE_SUFFIXES else path
    forms = (line, str(path), str(bare), bare.name)
    return next((form for form in forms if (root / split.annotations / f"{form}.xml").is_file()), line)


def _image(element: ET.Element, source: str, folder: str, found: Sequence[str]) -> RawImage:
    """The image of one XML file. Its file is the one with the same stem, else the one named in the XML file."""
    given = (element.findtext("filename") or "").strip() or PurePosixPath(source).stem
    given += "" if PurePosixPath(given).suffix.lower() in PICTURE_SUFFIXES else ".jpg"
    name = safe_name(given)
    named = (PurePosixPath(folder, name).as_posix(),) if name else ()
    places = tuple(found) if len(found) == 1 else named  # several pictures of one stem: the XML file must name its own
    return RawImage(
        source=source,
        places=places if not found or set(places) & set(found) else (),
        boxes=tuple(_box(child, index, source) for index, child in enumerate(element.iter("object"))),
        name=given,
        size=(number(element.findtext("size/width")), number(element.findtext("size/height"))),
        provenance=_provenance(element.find("provenance"), source),
    )


def _box(element: ET.Element, index: int, source: str) -> RawBox:
    label = class_name(element.findtext("name") or "", source)
    texts = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    written = f"({', '.join(str(text) for text in texts):.100})"
    return RawBox(
        corners=_corners(*map(number, texts)),
        label=label or None,
        ignore=number(element.findtext("difficult")) == 1,
        where=f"object {index + 1}, {label!r:.50}, {written}",
    )


def _corners(xmin: float, ymin: float, xmax: float, ymax: float) -> Corners:
    """Corners in px from 0. Empty boxes are returned unchanged and dropped later.

    An edge at 0, which no pixel has, stays there.
    """
    if xmax <= xmin or ymax <= ymin:
        return xmin, ymin, xmax, ymax
    return xmin - bool(xmin), ymin - bool(ymin), xmax, ymax


def _counts_from_zero(element: ET.Element) -> bool:
    edges = [number(found.text) for key in ("xmin", "ymin") for found in element.iterfind(f".//object/bndbox/{key}")]
    return 0 in edges


def _provenance(element: ET.Element | None, source: str) -> Provenance | None:
    if element is None:
        return None
    try:
        return from_fields(json.loads(element.text or ""), source)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{source}: <provenance> is not as detloop writes it ({error})") from None


def _to_xml(one: OutImage, classes: Sequence[str]) -> bytes:
    root = ET.Element("annotation")
    _add(root, "filename", one.name)
    size = ET.SubElement(root, "size")
    for key, value in (("width", one.image.width), ("height", one.image.height), ("depth", 3)):
        _add(size, key, value)
    _add(root, "segmented", 0)
    _add(root, "provenance", json.dumps(to_fields(one.provenance, one.source_name)))
    annotation = one.image.annotation
    for corners, label, ignore in zip(annotation.boxes, annotation.labels, annotation.ignore, strict=True):
        thing = ET.SubElement(root, "object")
        _add(thing, "name", classes[label])
        _add(thing, "difficult", int(ignore))
        box = ET.SubElement(thing, "bndbox")
        for key, edge in zip(("xmin", "ymin", "xmax", "ymax"), _written(*map(float, corners)), strict=True):
            _add(box, key, f"{edge:.3f}".rstrip("0").rstrip("."))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(parent: ET.Element, tag: str, text: object) -> None:
    ET.SubElement(parent, tag).text = str(text)


def _written(x0: float, y0: float, x1: float, y1: float) -> Corners:
    xmin, xmax = _widened(x0, x1)
    ymin, ymax = _widened(y0, y1)
    return xmin + 1, ymin + 1, xmax, ymax


def _widened(low: float, high: float) -> tuple[float, float]:
    missing = max(0.0, _MIN_SIDE_PX - (high - low)) / 2
    return low - missing, high + missing
