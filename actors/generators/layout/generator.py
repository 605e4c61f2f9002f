"""Layout to image, told what is hard (DetDiffusion, arXiv 2403.13304; its base GeoDiffusion, arXiv 2306.04607).

A diffusion model is fitted on the real training images, each described by where its objects are and whether the
detector finds them easy or hard. It then draws whole new images after the layouts of those that hold mined instances,
and the word for the difficulty says which way.
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
    """Draws whole images after the layouts of those that hold mined instances.

    The annotation is the layout: boxes for which the prompt has no tokens left are flagged ignore, and so are those
    that are ignored in the real image. Every other box is ``drawn``. A candidate has no canvas: all its pixels are new.
    """

    def __init__(self, config: LayoutSettings, real: Sequence[LabeledImage], network: LayoutNetwork) -> None:
        self.config, self.network = config, network
        self.images = {image.id: image for image in real}
        self.arranger = Arranger(config.arrangement, real, network.attributes)
        self.writer = PromptWriter(config.prompt, network.classes, network.tokenizer)
        self.read = lru_cache(maxsize=64)(read)

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order.

        Raises ValueError where a lineage names an image or box that is not there.
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
        """What is asked of the network, and the labels of what it then draws."""
        image, rng = source_of(self.images, lineage), np.random.default_rng(lineage.seed)
        layout = self.arranger.arrange(image, lineage.box_indices, rng)
        prompt = self.writer.write(layout.annotation, image.width, image.height, self._asked(layout), rng)
        unasked = np.ones(len(layout.annotation), np.bool_)
        unasked[list(prompt.kept)] = False
        annotation = Annotation(boxes=layout.annotation.boxes, labels=layout.annotation.labels, ignore=unasked)
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
    """An image ``[H, W, 3]`` resized to ``[height, width, 3]``, whatever that does to its shape."""
    import cv2

    shrinks = height < pixels.shape[0] and width < pixels.shape[1]
    method: Any = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)


def network_input(square: Pixels, *, mirrored: bool) -> NDArray[np.float32]:
    """A square image ``[S, S, 3]``, mirrored left to right or not, as ``[3, S, S]`` in [-1, 1]."""
    return scaled(square[:, ::-1] if mirrored else square)
