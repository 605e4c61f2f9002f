"""CVAT for images 1.1: one XML file with the boxes of many images, corners in px. It is read, and not written.

The files are ``annotations.xml``, or other XML files with ``<annotations>``, in the root, in ``annotations/`` and in
the folders of the root. The split of an image is its subset, or else the folder of its file. Classes are the labels of
the project, in their order, or else the names found, sorted. A turned box counts as the upright box about it, as do
polygons, masks and ellipses. Other shapes mark no box: an image with one is left out, as an object would be unlabelled.
"""

import math
from collections import defaultdict
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET

from upath import UPath

from loop.data.config import DataConfig
from loop.data.formats.base import (
    Corners,
    Notation,
    RawBox,
    RawDataset,
    RawImage,
    below,
    choose_splits,
    class_name,
    content,
    hidden,
    number,
    safe_name,
)
from loop.data.formats.xml import opens_with, parse
from loop.data.ledger import Ledger

LOOKED_FOR = "annotations.xml of CVAT (for images)"
NOTATION: Notation = "x1, y1, x2, y2"

_NO_OBJECT = frozenset({"tag", "attribute"})
_NO_BOX = (math.nan,) * 4


def find(root: UPath) -> list[UPath]:
    """The annotation files below ``root``; empty if there are none."""
    files = sorted([*root.glob("*.xml"), *root.glob("*/*.xml")])
    return [file for file in files if not hidden(below(root, file)) and opens_with("annotations", file)]


def read(root: UPath, config: DataConfig, ledger: Ledger) -> RawDataset:
    """Read all annotation files. Raises ValueError, naming the file, if one is broken or of a video."""
    images = defaultdict(list)
    labels: dict[str, None] = {}
    for file in find(root):
        tree = _load(file)
        labels |= dict.fromkeys(
            filter(None, (class_name(one.text or "", file) for one in tree.iterfind("meta//labels/label/name")))
        )
        for element in tree.findall("image"):
            images[element.get("subset") or _split(root, file)].append(_image(root, file, element))
    named = {box.label for members in images.values() for one in members for box in one.boxes if box.label}
    splits = {split: tuple(members) for split, (_, members) in choose_splits(images, config, ledger).items()}
    return RawDataset(classes=tuple(labels) or tuple(sorted(named)), splits=splits)


def _load(file: UPath) -> ET.Element:
    try:
        tree = parse(content(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if tree.find("track") is not None:
        raise ValueError(f"{file}: CVAT for video is not read; export as 'CVAT for images 1.1' or 'COCO 1.0'")
    return tree


def _split(root: UPath, file: UPath) -> str:
    return "all" if file.parent in {root, root / "annotations"} else file.parent.name


def _image(root: UPath, file: UPath, element: ET.Element) -> RawImage:
    given, subset = element.get("name") or "", element.get("subset") or _split(root, file)
    name, folder = safe_name(given), PurePosixPath(below(root, file)).parent
    usual = (f"images/{subset}/{name}", f"{subset}/{name}", f"images/{name}", name, str(folder / "images" / f"{name}"))
    shapes = [child for child in element if child.tag not in _NO_OBJECT and child.get("outside") != "1"]
    return RawImage(
        source=below(root, file),
        places=() if name is None else (*filter(None, usual), str(folder / name)),
        boxes=tuple(_box(child, file, f"image {given!r}, shape {index + 1}") for index, child in enumerate(shapes)),
        name=given,
        size=(number(element.get("width")), number(element.get("height"))),
    )


def _box(shape: ET.Element, file: UPath, where: str) -> RawBox:
    values = {key: value for key, value in shape.attrib.items() if key != "rle"}
    label = class_name(shape.get("label") or "", file) or None
    return RawBox(corners=_corners(shape), label=label, where=f"{where}: {shape.tag} {values!r:.150}")


def _corners(shape: ET.Element) -> Corners:
    def of(*keys: str) -> list[float]:
        return [number(shape.get(key)) for key in keys]

    if shape.tag == "box":
        left, top, right, bottom = of("xtl", "ytl", "xbr", "ybr")
        return _turned(left, top, right, bottom, number(shape.get("rotation") or 0))
    if shape.tag == "ellipse":
        cx, cy, rx, ry = of("cx", "cy", "rx", "ry")
        return _turned(cx - rx, cy - ry, cx + rx, cy + ry, number(shape.get("rotation") or 0))
    if shape.tag == "mask":
        left, top, width, height = of("left", "top", "width", "height")
        return left, top, left + width, top + height
    if shape.tag == "polygon":
        points = [[number(value) for value in pair.split(",")] for pair in (shape.get("points") or "").split(";")]
        if len(points) > 2 and all(len(point) == 2 and all(map(math.isfinite, point)) for point in points):
            xs, ys = zip(*points, strict=True)
            return min(xs), min(ys), max(xs), max(ys)
    return _NO_BOX


def _turned(x0: float, y0: float, x1: float, y1: float, degrees: float) -> Corners:
    """The upright box about one that is turned about its centre."""
    if not degrees:
        return x0, y0, x1, y1
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    half_width, half_height = ((x1 - x0) * cos + (y1 - y0) * sin) / 2, ((x1 - x0) * sin + (y1 - y0) * cos) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height
