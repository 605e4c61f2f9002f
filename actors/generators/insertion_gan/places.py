"""Places for objects: clear of others, where the surroundings match, or where the user's masks allow them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from upath import UPath

from actors import boxes as geometry
from actors.generators.cutouts import positions
from actors.generators.cutouts.cutout import Cutout, cut, turned
from actors.generators.cutouts.window import Mask
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.images import Pixels, read
from actors.records import CLEAN_PREFIX, LabeledImage

_NUM_TRIES = 50  # random positions tried in an image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """The place of an object to insert."""

    box: geometry.Boxes  # [4] px of the image
    seam: float  # difference to a real instance's surroundings, in grey levels; 0 where they are not compared


class Places:
    """Finds places for objects of the sizes of real instances."""

    def __init__(self, settings: InsertionGANSettings, images: Mapping[str, LabeledImage]) -> None:
        """``images`` hold the instances and the canvases, by id."""
        self.settings, self.images = settings, images
        self.read = lru_cache(maxsize=64)(read)
        self.cut = lru_cache(maxsize=1024)(self._cut)
        self.centres = lru_cache(maxsize=1024)(self._centres)

    def find(
        self, canvas: LabeledImage, occupied: geometry.Boxes, instance: tuple[str, int], rng: np.random.Generator
    ) -> Place | None:
        """A place on ``canvas`` clear of ``occupied`` ``[n, 4]`` for an object of the size of a real ``instance``.

        The instance is given by the id of its image and its position there. None if there is no room.
        """
        cutout = self.cut(*instance)
        turns = int(rng.integers(4)) * self.settings.rotate
        cutout = turned(cutout, flip=bool(rng.integers(2)) and self.settings.flip, quarter_turns=turns)
        if self.settings.places == "context":
            return _matching(self.read(canvas.uri), cutout, occupied, rng)
        return self._anywhere(canvas, cutout.box[2:] - cutout.box[:2], occupied, rng)

    def _cut(self, image_id: str, index: int) -> Cutout:
        image = self.images[image_id]
        return cut(self.read(image.uri), image.annotation.boxes[index], "box")

    def _anywhere(
        self, canvas: LabeledImage, size: geometry.Boxes, occupied: geometry.Boxes, rng: np.random.Generator
    ) -> Place | None:
        """A random one of the places of a box with ``size`` ``[2]`` that lie inside the image and are allowed."""
        room = np.array([canvas.width, canvas.height], np.float32) - size
        if (room < 0).any():
            return None
        for _ in range(_NUM_TRIES):
            corner = self._corner(canvas, size, room, rng)
            box = np.concatenate([corner, corner + size]).astype(np.float32)
            inside = (corner >= 0).all() and (corner <= room).all()
            if inside and not geometry.intersections(box[None], occupied).any():
                return Place(box=box, seam=0.0)
        return None

    def _corner(
        self, canvas: LabeledImage, size: geometry.Boxes, room: geometry.Boxes, rng: np.random.Generator
    ) -> geometry.Boxes:
        if self.settings.place_masks is None:
            return np.asarray(np.floor(rng.uniform(0, room + 1)).clip(0, room), np.float32)
        centres = self.centres(canvas.id)
        return np.asarray(np.round(centres[int(rng.integers(len(centres)))] - size / 2), np.float32)

    def _centres(self, image_id: str) -> geometry.Boxes:
        """The positions ``[n, 2]`` at which the mask of an image allows the centre of an object."""
        rows, columns = np.nonzero(_mask(str(self.settings.place_masks), self.images[image_id]))
        return np.stack([columns, rows], axis=1).astype(np.float32) + 0.5


def check_masks(settings: InsertionGANSettings, clean: Sequence[LabeledImage]) -> None:
    """Raise ValueError or OSError unless the mask of each of the images ``clean`` allows a place."""
    folder = str(settings.place_masks)
    if not UPath(folder).is_dir():
        raise NotADirectoryError(f"generator.place_masks: {folder} is no folder; give the folder of the masks")
    for image in clean:
        _mask(folder, image)


def _mask(folder: str, image: LabeledImage) -> Mask:
    """The mask ``[H, W]`` of an image; true where an object may be inserted. Raises ValueError if that is nowhere."""
    import cv2

    mask = read(str(_mask_file(folder, image)))
    shrunk = cv2.resize(mask[..., 0], (image.width, image.height), interpolation=cv2.INTER_NEAREST)
    if not (shrunk > 127).any():
        raise ValueError(
            f"generator.place_masks: the mask of {image.id!r} allows no place; paint some of it white, or remove the "
            "image"
        )
    return np.asarray(shrunk > 127, np.bool_)


def masks_digest(folder: str, clean: Sequence[LabeledImage]) -> str:
    """SHA-256 of the files of the masks of ``clean``. Raises FileNotFoundError if one is missing."""
    digest = hashlib.sha256()
    for image in clean:
        content = _mask_file(folder, image).read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _mask_file(folder: str, image: LabeledImage) -> UPath:
    """The mask with the name of an image, or that name as a PNG. Raises FileNotFoundError if there is none."""
    place = UPath(folder) / image.id.removeprefix(CLEAN_PREFIX)
    for file in (place, place.with_suffix(".png")):
        if file.exists():
            return file
    raise FileNotFoundError(
        f"generator.place_masks: {place} is missing; give each image without objects a mask of its name (or a PNG)"
    )


def _matching(canvas: Pixels, cutout: Cutout, occupied: geometry.Boxes, rng: np.random.Generator) -> Place | None:
    """A place whose surroundings look like those of ``cutout``."""
    room = positions.Search(canvas, occupied, positions.Overlap(most=0.0)).find(cutout, rng)
    if room is None:
        return None
    place, at_scale = room
    box = at_scale.box + np.array([place.x, place.y] * 2, np.float32)
    return Place(box=geometry.clip(box, canvas.shape[1], canvas.shape[0]), seam=place.seam)


def spread(boxes: geometry.Boxes, by_px: float) -> geometry.Boxes:
    """Boxes ``[n, 4]`` with ``by_px`` more on each side."""
    return boxes + np.array([-by_px, -by_px, by_px, by_px], np.float32)


def instances_by_class(images: Sequence[LabeledImage], num_classes: int) -> list[list[tuple[str, int]]]:
    """The instances of each class that has any and that are not ignored: ids of images and positions there."""
    found: list[list[tuple[str, int]]] = [[] for _ in range(num_classes)]
    for image in images:
        for index in map(int, np.flatnonzero(~image.annotation.ignore)):
            found[int(image.annotation.labels[index])].append((image.id, index))
    return [group for group in found if group]
