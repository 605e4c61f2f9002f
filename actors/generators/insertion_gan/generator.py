"""Insertion of objects by a fitted DetectorGAN (Liu, Muelly, Deng, Pfister, Li, ICCV 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from actors.generators.base import one_box, source_of
from actors.generators.cutouts.window import feathered
from actors.generators.diffusion.learner import noise_of, to_pixels
from actors.generators.insertion_gan import checkpoint
from actors.generators.insertion_gan.batches import Windows
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.generators.insertion_gan.painting import Turn, paint, turned, turned_back
from actors.generators.insertion_gan.places import Places
from actors.generators.insertion_gan.scene import Scene, mask_in_picture, window_frame
from actors.images import Pixels
from actors.precision import reproducible
from actors.records import Annotation, Candidate, LabeledImage, Lineage
from actors.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Draft:
    """A candidate before its objects are drawn."""

    lineage: Lineage
    canvas: LabeledImage
    annotation: Annotation  # the canvas's boxes, then those to draw
    seam: float  # mean over the objects to draw, grey levels

    @property
    def to_draw(self) -> range:
        """The positions of the boxes to draw."""
        return range(len(self.canvas.annotation), len(self.annotation))


class InsertionGAN:
    """Draws objects of a lineage's classes and sizes into one image without objects, or into a training image.

    Training images are used where there are none without objects, and then another one than the lineage's where there
    is one. Of a few images, the one is taken that has room for most of the objects, and among those the one whose
    surroundings fit best. Pixels outside the masks do not change. An object without a place is left out.
    """

    def __init__(
        self,
        settings: InsertionGANSettings,
        real: Sequence[LabeledImage],
        clean: Sequence[LabeledImage],
        classes: tuple[str, ...],
        fitted: str | None,
    ) -> None:
        self.settings = settings
        self.real = {image.id: image for image in real}
        self.canvases = sorted(clean or real, key=lambda image: image.id)
        self.places = Places(settings, self.real | {image.id: image for image in clean})
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        painters = checkpoint.build_painters(settings, len(classes))
        painters.load_state_dict(checkpoint.load(fitted, settings, classes)[0])
        self.painters = painters.eval().requires_grad_(False).to(self.device)

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order. It is refused if there is no room for any of its objects.

        Raises ValueError if a lineage names an image or box that does not exist.
        """
        drafts = [self._draft(lineage) for lineage in lineages]
        scenes = [(self._scene(draft, index), self._seed(draft, index)) for draft in drafts for index in draft.to_draw]
        drawn = iter(self._paint(scenes))
        return [self._finish(draft, [next(drawn) for _ in draft.to_draw]) for draft in drafts]

    def _draft(self, lineage: Lineage) -> _Draft:
        source_of(self.real, lineage)  # raises if it does not exist
        rng = np.random.default_rng(lineage.seed)
        others = [image for image in self.canvases if image.id != lineage.image_id] or self.canvases
        chosen = [others[int(number)] for number in rng.permutation(len(others))[: self.settings.tries]]
        drafts = [self._on(canvas, lineage, rng) for canvas in chosen]
        return min(drafts, key=lambda draft: (-len(draft.to_draw), draft.seam))

    def _on(self, canvas: LabeledImage, lineage: Lineage, rng: np.random.Generator) -> _Draft:
        """The lineage's objects on one image."""
        annotation, seams = canvas.annotation, []
        labels = self.real[lineage.image_id].annotation.labels
        for index in lineage.box_indices:
            place = self.places.find(canvas, annotation.boxes, (lineage.image_id, index), rng)
            if place:
                annotation = annotation.join(one_box(place.box, labels[index]))
                seams.append(place.seam)
        return _Draft(
            lineage=lineage, canvas=canvas, annotation=annotation, seam=float(np.mean(seams)) if seams else np.inf
        )

    def _scene(self, draft: _Draft, index: int) -> Scene:
        box = draft.annotation.boxes[index]
        return Scene(
            pixels=self.places.read(draft.canvas.uri),
            others=draft.annotation.take(np.arange(len(draft.annotation)) != index),
            box=box,
            label=int(draft.annotation.labels[index]),
            frame=window_frame(self.settings, box),
        )

    def _seed(self, draft: _Draft, index: int) -> int:
        return derive_seed(draft.lineage.seed, "noise", index)

    def _paint(self, scenes: Sequence[tuple[Scene, int]]) -> list[Pixels]:
        """The redrawn windows ``[S, S, 3]`` of scenes with the seeds of their noise."""
        painted: list[Pixels] = []
        size = self.settings.batch_size
        for start in range(0, len(scenes), size):
            batch = scenes[start : start + size]
            full = [*batch, *[batch[-1]] * (size - len(batch))]  # the batch size changes the last bits
            painted += self._paint_batch(full)[: len(batch)]
        return painted

    def _paint_batch(self, scenes: Sequence[tuple[Scene, int]]) -> list[Pixels]:
        """Each window is turned at random for G_X, as in the fit, and back: one place gets eight different objects."""
        shape = (self.settings.noise_channels, self.settings.size_px, self.settings.size_px)
        turns = [Turn.of(self.settings, derive_seed(seed, "turn")) for _, seed in scenes]
        with reproducible():
            given = Windows.of(self.settings, [scene for scene, _ in scenes], self.device)
            images, masks = (turned(parts, turns) for parts in (given.images, given.masks))
            noise = torch.from_numpy(np.stack([noise_of(seed, shape) for _, seed in scenes])).to(self.device)
            painted = paint(self.painters, "insert", replace(given, images=images, masks=masks), noise)
            return to_pixels(turned_back(painted, turns))

    def _finish(self, draft: _Draft, painted: Sequence[Pixels]) -> Candidate:
        canvas = self.places.read(draft.canvas.uri)
        pixels, touched = canvas.copy(), np.full(canvas.shape[:2], -1, np.int16)
        for index, window in zip(draft.to_draw, painted, strict=True):
            scene = self._scene(draft, index)
            mask = mask_in_picture(self.settings, canvas.shape[:2], scene.box, scene.others.boxes)
            scene.frame.paste(pixels, window, feathered(mask, self.settings.feather_px))
            touched[mask] = index
        return Candidate(
            pixels=pixels,
            annotation=draft.annotation,
            drawn=np.arange(len(draft.annotation)) >= len(draft.canvas.annotation),
            painted=touched,
            canvas=draft.canvas.id,
            lineage=draft.lineage,
            refused="" if painted else "generator: no_room",
        )
