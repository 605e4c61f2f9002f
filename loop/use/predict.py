"""Detection in pictures that have no labels, with the detector of a run."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os.path import commonpath
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from upath import UPath

from actors import images
from actors.detectors.base import Detector, Reducing
from actors.images import Pixels
from actors.records import Detections
from loop.data.formats.base import below, is_picture
from loop.progress import Reporter
from loop.use.chosen import Chosen

BATCH = 8  # pictures in memory at a time
NUM_READERS = 8  # threads: remote storage is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture to detect in."""

    place: UPath
    name: str  # its path below the folder that holds all pictures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """A picture and the detections in it."""

    picture: Picture
    pixels: Pixels
    seen: Detections


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The detections in a picture of ``width`` x ``height`` px, without its pixels."""

    picture: Picture
    width: int
    height: int
    seen: Detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A picture that cannot be read, and why."""

    picture: Picture
    reason: str


def find_pictures(places: Sequence[str]) -> list[Picture]:
    """The pictures in files, folders (with all below them) and glob patterns, each once, in the order of their paths.

    Raises FileNotFoundError for a place where there is no picture, ValueError if they are in several file systems.
    """
    found = {str(path): path for place in places for path in _below(place)}
    if len({path.protocol for path in found.values()}) > 1:
        raise ValueError(f"the pictures are in several file systems; give those of one at a time: {', '.join(places)}")
    ordered = [found[name] for name in sorted(found)]
    base = PurePosixPath(commonpath([PurePosixPath(path.path).parent for path in ordered]))
    return [Picture(place=path, name=PurePosixPath(path.path).relative_to(base).as_posix()) for path in ordered]


def _below(place: str) -> list[UPath]:
    path = UPath(place).absolute()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [one for one in path.rglob("*") if is_picture(below(path, one)) and one.is_file()]
    else:
        found = [one for one in _matching(path) if one.is_file()]
    if not found:
        raise FileNotFoundError(f"{place}: no picture here; give files, folders or patterns such as 'shots/*.jpg'")
    return found


def _matching(pattern: UPath) -> list[UPath]:
    """The paths that match a pattern; the part before its first wildcard is a folder."""
    parts = PurePosixPath(pattern.path).parts
    first = next((index for index, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
    if first is None:
        return []
    base = pattern
    for _ in parts[first:]:
        base = base.parent
    return list(base.glob("/".join(parts[first:])))


def predict(detector: Detector, found: Sequence[Picture]) -> Iterator[Predicted | Unreadable]:
    """The detections in each picture. Pictures of one shape are detected together, so the order is another."""
    with ThreadPoolExecutor(NUM_READERS) as threads:
        shapes = list(threads.map(_shape, found))
        ordered = [found[index] for index in np.argsort(shapes, kind="stable")]
        for first in range(0, len(ordered), BATCH):
            part = ordered[first : first + BATCH]
            read = list(threads.map(_read, part))
            yield from (one for one in read if isinstance(one, Unreadable))
            good = [(picture, one) for picture, one in zip(part, read, strict=True) if not isinstance(one, Unreadable)]
            for (picture, pixels), seen in zip(good, detector.detect([pixels for _, pixels in good]), strict=True):
                yield Predicted(picture=picture, pixels=pixels, seen=seen)


def _shape(picture: Picture) -> float:
    """Height over width, from the file's header; 0 if it cannot be read."""
    try:
        with picture.place.open("rb") as file, images.open_picture(file) as opened:
            return opened.height / opened.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0.0


def _read(picture: Picture) -> Pixels | Unreadable:
    try:
        return images.read(str(picture.place))
    except (ValueError, OSError) as error:
        return Unreadable(picture=picture, reason=str(error))


def open_detector(chosen: Chosen, score: float, *, control: bool) -> Detector:
    """A detector of the run that reports what it scores at ``score`` or more. Raises ValueError unless in [0, 1]."""
    if not 0 <= score <= 1:
        raise ValueError(f"score: a number from 0 to 1, not {score}")
    checkpoint, _ = chosen.one(control=control)
    config = chosen.config.detector.model_copy(update={"min_score": score})
    return Reducing(config.load(checkpoint), config.picture_px)


def predict_reported(
    detector: Detector,
    pictures: Sequence[Picture],
    reporter: Reporter,
    on_picture: Callable[[Predicted], None] = lambda _: None,
) -> list[Found]:
    """The detections in the pictures that can be read, in the order of ``pictures``; the others are warned of."""
    found: dict[str, Found] = {}
    unreadable = []
    with reporter.stage("predict", len(pictures)) as progress:
        for one in predict(detector, pictures):
            if isinstance(one, Unreadable):
                unreadable.append(one)
            else:
                on_picture(one)
                height, width = one.pixels.shape[:2]
                found[one.picture.name] = Found(picture=one.picture, width=width, height=height, seen=one.seen)
            progress.advance()
    for one in unreadable:
        reporter.warn(f"{one.picture.name} cannot be read: {one.reason.removeprefix(f'{one.picture.place}: ')}")
    return [found[picture.name] for picture in pictures if picture.name in found]
