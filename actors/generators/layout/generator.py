"""Layout to image, conditioned on difficulty (DetDiffusion, arXiv 2403.13304; its base GeoDiffusion, arXiv 2306.04607).

A diffusion model is fitted on the real training images. Their prompts give the class, box and difficulty of each
object. The model then draws whole new images from the layouts of images with mined instances, with the requested
difficulty in the prompt.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.generators.base import source_of
from actors.generators.layout.arrangement import Arranger, Layout
from actors.generators.layout.config import LayoutSettings
from actors.generators.layout.network import LayoutNetwork, Order
from actors.generators.layout.prompt import PromptWriter
from actors.images import Pixels, read, scaled
from actors.records import Annotation, Candidate, Difficulty, LabeledImage, Lineage
from actors.seeds import derive_seed


class LayoutGenerator:
    """Draws whole images from the layouts of images with mined instances.

    The annotation is the layout. Boxes that have no room in the prompt, and those ignored in the real image, are
    flagged ignore; all others are ``drawn``. A candidate has no canvas: all its pixels are new.
    """

    def __init__(self, config: LayoutSettings, real: Sequence[LabeledImage], network: LayoutNetwork) -> None:
        self.config, self.network = config, network
        self.images = {image.id: image for image in real}
        self.arranger = Arranger(config.arrangement, real, network.attributes)
        self.writer = PromptWriter(config.prompt, network.classes, network.tokenizer)
        self.read = lru_cache(maxsize=64)(read)

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order.

        Raises ValueError if a lineage names an image or box that does not exist.
        """
        candidates: list[Candidate] = []
        for first in range(0, len(lineages), self.config.batch_size):
            batch = lineages[first : first + self.config.batch_size]
            drafts = [self._draft(lineage) for lineage in batch]
            pictures = self.network.draw([order for order, _ in drafts])
            candidates += [
                self._candidate(lineage, annotation, picture)
                for lineage, (_, annotation), picture in zip(batch, drafts, pictures, strict=True)
            ]
        return candidates

    def _draft(self, lineage: Lineage) -> tuple[Order, Annotation]:
        """The order for the network, and the annotation of its picture."""
        image, rng = source_of(self.images, lineage), np.random.default_rng(lineage.seed)
        layout = self.arranger.arrange(image, lineage.box_indices, rng)
        prompt = self.writer.write(layout.annotation, image.width, image.height, self._asked(layout), rng)
        left_out = np.ones(len(layout.annotation), np.bool_)
        left_out[list(prompt.kept)] = False
        annotation = Annotation(boxes=layout.annotation.boxes, labels=layout.annotation.labels, ignore=left_out)
        order = Order(text=prompt.text, start=self._start(image, layout), seed=derive_seed(lineage.seed, "noise"))
        return order, annotation

    def _asked(self, layout: Layout) -> tuple[Difficulty, ...]:
        """The difficulty of each box ``[n]`` in the prompt."""
        if self.config.strategy == "origin":
            return layout.difficulties
        return (Difficulty(self.config.strategy),) * len(layout.difficulties)

    def _start(self, image: LabeledImage, layout: Layout) -> NDArray[np.float32] | None:
        if self.config.strength == 1:
            return None
        size = self.config.network.size_px
        return network_input(stretched(self.read(image.uri), size, size), mirrored=layout.mirrored)

    def _candidate(self, lineage: Lineage, annotation: Annotation, picture: Pixels) -> Candidate:
        image = self.images[lineage.image_id]
        pixels = stretched(picture, image.width, image.height)
        painted = np.full(pixels.shape[:2], -1, np.int16)
        for index in np.flatnonzero(~annotation.ignore):
            left, top, right, bottom = np.rint(annotation.boxes[index]).astype(int)
            painted[max(top, 0) : bottom, max(left, 0) : right] = index
        return Candidate(
            pixels=pixels,
            annotation=annotation,
            drawn=~annotation.ignore,
            painted=painted,
            canvas="",
            lineage=lineage,
        )


def stretched(pixels: Pixels, width: int, height: int) -> Pixels:
    """An image ``[H, W, 3]`` resized to ``[height, width, 3]``, without keeping its aspect ratio."""
    import cv2

    shrinks = height < pixels.shape[0] and width < pixels.shape[1]
    method: Any = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)


def network_input(square: Pixels, *, mirrored: bool) -> NDArray[np.float32]:
    """A square image ``[S, S, 3]``, mirrored left to right if ``mirrored``, as ``[3, S, S]`` in [-1, 1]."""
    return scaled(square[:, ::-1] if mirrored else square)
