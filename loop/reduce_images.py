"""Reduction of large real images to the size at which a run works on them, once for all runs below a root."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from upath import UPath

from actors import images
from actors.plain import from_plain, to_plain
from actors.records import LabeledImage
from actors.rows import Row
from actors.storage import exclusive, read_record, write_bytes, write_record
from loop import stages
from loop.config import LoopConfig, digest
from loop.data.importing import Dataset
from loop.data.segmentation import resized_mask
from loop.progress import Reporter


def reduce_images(data: Dataset, config: LoopConfig, reporter: Reporter) -> Dataset:
    """The data set with images of at most ``detector.picture_px`` on the longer side to train on and to draw into.

    Needs the engine.

    Larger ones are replaced by copies below ``root``; their boxes and masks are scaled with them. Validation images
    stay as they are: they are measured in their own pixels, and the detector reads them at the same size.
    Raises ValueError if a picture cannot be read.
    """
    max_side_px = config.detector.picture_px
    folder = UPath(config.root) / "pictures"
    large = [image for image in data.real if max(image.width, image.height) > max_side_px]
    if not large:
        return data
    places = {image.id: folder / digest([to_plain(image), max_side_px]) for image in large}
    with exclusive(folder):
        _write(large, places, max_side_px, config, reporter)
    train, clean = (
        tuple(_read(places[image.id]) if image.id in places else image for image in images)
        for images in (data.splits["train"], data.clean)
    )
    return replace(data, splits={**data.splits, "train": train}, clean=clean)


def _read(place: UPath) -> LabeledImage:
    """The copy at ``place``, wherever the root was when it was written."""
    return replace(read_record(place.with_suffix(".json"), LabeledImage), uri=str(place.with_suffix(".png")))


def _write(
    large: Sequence[LabeledImage],
    places: dict[str, UPath],
    max_side_px: int,
    config: LoopConfig,
    reporter: Reporter,
) -> None:
    """Write the copies that are missing, in the actors that write samples."""
    rows = tuple(
        {"id": image.id, "place": str(places[image.id]), "image": json.dumps(to_plain(image)), "error": ""}
        for image in large
        if not places[image.id].with_suffix(".json").exists()
    )
    if not rows:
        return
    stage = stages.Stage(name="reduce", open_component=partial(Reduce, max_side_px), role=config.hosting.keep)
    with reporter.stage(f"reduce to {max_side_px} px", len(rows)) as progress:
        collected = stages.collect(stages.Stream(rows=rows).then(stage), config.hosting, progress.advance)
    stages.refuse_broken(collected)


class Reduce:
    """Writes reduced copies: first the picture, then its record, which marks the copy as complete."""

    def __init__(self, max_side_px: int) -> None:
        self.max_side_px = max_side_px

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """No columns."""
        for row in batch:
            self._write(from_plain(LabeledImage, json.loads(row["image"])), UPath(row["place"]))
        return [self.blank() for _ in batch]

    def blank(self) -> Row:
        """No columns."""
        return {}

    def _write(self, image: LabeledImage, place: UPath) -> None:
        pixels = images.read(image.uri)
        if pixels.shape[1::-1] != (image.width, image.height):
            raise ValueError(
                f"{image.uri}: {pixels.shape[1]}x{pixels.shape[0]} px, recorded as {image.width}x{image.height}; "
                "import the data set again"
            )
        write_bytes(place.with_suffix(".png"), images.encode_png(images.reduced(pixels, self.max_side_px)))
        write_record(place.with_suffix(".json"), reduced_record(image, self.max_side_px))


def reduced_record(image: LabeledImage, max_side_px: int) -> LabeledImage:
    """The record of the reduced copy of ``image``, but for its URI: size, boxes and masks are scaled."""
    width, height = images.reduced_size(image.width, image.height, max_side_px)
    factors = np.array([width / image.width, height / image.height] * 2, np.float32)
    masks = [resized_mask(mask, (image.width, image.height), (width, height)) if mask else "" for mask in image.masks]
    annotation = replace(image.annotation, boxes=image.annotation.boxes * factors)
    areas = tuple(float(area * factors[0] * factors[1]) for area in image.areas)
    return replace(image, width=width, height=height, annotation=annotation, masks=tuple(masks), areas=areas)
