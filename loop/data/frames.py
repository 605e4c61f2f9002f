"""Boxes that were annotated in another frame than the image as it is decoded: not yet turned upright, or not resized.

An annotation file may give the size of an image. If it is that of the stored pixels, before EXIF's orientation is
applied, or has the same aspect ratio, then the boxes can be moved into the image. Whether they must be is decided by
the boxes of all such images of the data set: some reach beyond the image, or some beyond the annotated size. Images for
which this stays open are left out, as are those of any other size.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from loop.data.formats.base import RawBox, Size
from loop.data.ledger import Ledger
from loop.data.locating import Located

Kind = Literal["turned", "shrunk", "enlarged", "other"]
Frame = Literal["annotated", "image", "open"]

_SLACK_PX = 1.0  # boxes that exceed a frame by less say nothing: some tools count pixels from 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """An image whose boxes may be of another frame than the decoded one."""

    kind: Kind
    given: Size
    frame: Frame  # the frame that its own boxes or size tell, if they do


def into_frame(located: Mapping[str, Sequence[Located]], ledger: Ledger) -> dict[str, list[Located]]:
    """The images with their boxes in the frame of the decoded image. Those for which that is uncertain are dropped."""
    cases = {one.place: case for images in located.values() for one in images if (case := _case(one))}
    kinds: tuple[Kind, ...] = ("turned", "shrunk", "enlarged")
    common = {kind: _common_frame(kind, cases.values()) for kind in kinds}
    kept: dict[str, list[Located]] = {split: [] for split in located}
    for split, images in located.items():
        for one in images:
            settled = _settled(one, cases[one.place], common, ledger) if one.place in cases else one
            kept[split] += [settled] if settled is not None else []
    return kept


def _case(image: Located) -> _Case | None:
    """None if the boxes are of the image's own frame, or there are none."""
    given, own = _given_size(image), image.size
    if given is None and image.header.orientation != 1 and image.raw.boxes:
        return _Case(kind="other", given=own, frame="open")
    lying = image.header.orientation >= 5
    if given is None or (given == own and image.header.orientation == 1):
        return None
    if given == own:
        return _Case(kind="turned", given=given, frame="image" if lying and own[0] != own[1] else "open")
    frame = _fitting(image.raw.boxes, given, own)
    if lying and _same_shape(given, (own[1], own[0])):
        return _Case(kind="turned", given=given, frame=frame)
    if _same_shape(given, own):
        return _Case(kind="shrunk" if given[0] > own[0] else "enlarged", given=given, frame=frame)
    return _Case(kind="other", given=given, frame="open")


def _given_size(image: Located) -> Size | None:
    """The annotated size; None if there is none, or boxes do not depend on it."""
    size = image.raw.size
    sound = size is not None and all(math.isfinite(side) and side > 0 for side in size)
    return size if sound and not image.raw.relative else None


def _same_shape(one: Size, other: Size) -> bool:
    """True if one size is a scaled version of the other, with sides rounded to px."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def _fitting(boxes: Iterable[RawBox], given: Size, own: Size) -> Frame:
    ends = [box.corners[2:] for box in boxes if all(map(math.isfinite, box.corners))]
    fits = [all(x <= size[0] + _SLACK_PX and y <= size[1] + _SLACK_PX for x, y in ends) for size in (given, own)]
    if fits[0] == fits[1]:
        return "open"
    return "annotated" if fits[0] else "image"


def _common_frame(kind: Kind, cases: Iterable[_Case]) -> Frame:
    """The frame in which images of a kind were annotated, if none contradicts another."""
    votes = {case.frame for case in cases if case.kind == kind} - {"open"}
    if kind == "enlarged" and not votes:  # boxes that fit the smaller frame fit both, however many there are
        return "annotated"
    return votes.pop() if len(votes) == 1 else "open"


def _settled(image: Located, case: _Case, common: Mapping[Kind, Frame], ledger: Ledger) -> Located | None:
    """The image with its boxes moved if need be; None if it is dropped."""
    frame = case.frame if case.frame != "open" else common.get(case.kind, "open")
    sizes = f"annotated as {_text(case.given)}, but the image has {_text(image.size)}"
    silent = case.given == image.size
    if frame == "annotated":
        ledger.note(image.place, "image", "boxes moved into the image", f"{sizes}; the boxes were {case.kind} with it")
        return _moved(image, case.given, image.header.orientation if case.kind == "turned" else 1)
    if frame == "image" or not image.raw.boxes:
        if not silent:
            ledger.note(image.place, "image", "size mismatch", f"{sizes}; the boxes are taken as of the image")
        return image
    if silent:
        detail = f"EXIF orientation {image.header.orientation}; the boxes are taken as of the upright image"
        ledger.note(image.place, "image", "orientation", detail)
        return image
    ledger.drop(image.place, "image", "size mismatch", f"{sizes}; nothing tells how its boxes are to be moved")
    return None


def _text(size: Size) -> str:
    return f"{size[0]:g}x{size[1]:g} px"


def _moved(image: Located, given: Size, orientation: int) -> Located:
    """The image with its boxes turned upright and scaled. Their segmentations are left out."""
    boxes = tuple(_moved_box(box, given, image.size, orientation) for box in image.raw.boxes)
    return replace(image, raw=replace(image.raw, boxes=boxes, size=image.size))


def _moved_box(box: RawBox, given: Size, own: Size, orientation: int) -> RawBox:
    x0, y0, x1, y1 = box.corners
    if not all(map(math.isfinite, box.corners)) or x1 < x0 or y1 < y0:
        return box
    corners = _turned((x0, y0), given, orientation) + _turned((x1, y1), given, orientation)
    shape = given if orientation < 5 else given[::-1]
    xs, ys = (sorted(value * own[i] / shape[i] for value in corners[i::2]) for i in (0, 1))
    area = box.area * (own[0] * own[1]) / (given[0] * given[1])
    return replace(box, corners=(xs[0], ys[0], xs[1], ys[1]), segmentation=None, area=area)


def _turned(point: tuple[float, float], size: Size, orientation: int) -> tuple[float, float]:
    """A point of the stored image of ``size``, in px of the upright image (EXIF 2.3, tag 0x0112)."""
    x, y = point
    mirrored_x, mirrored_y = size[0] - x, size[1] - y
    return {
        1: (x, y),
        2: (mirrored_x, y),
        3: (mirrored_x, mirrored_y),
        4: (x, mirrored_y),
        5: (y, x),
        6: (mirrored_y, x),
        7: (mirrored_y, mirrored_x),
        8: (y, mirrored_x),
    }[orientation]
