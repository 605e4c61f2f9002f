"""Inpainting: mined boxes of a real image are repainted (Gen2Det, arXiv 2312.04566, Sec. 3.1).

The labels are the image's own; only pixels inside the boxes change. The paper paints the whole image
at once with a grounded diffusion model; here each box is painted in a window around it at the painter's own resolution,
so that a small object is not lost in latent space. Beyond the paper, an instance may be painted at a new place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from actors import boxes as geometry
from actors.generators.base import drawn_clean, one_box, requested_modes, source_of
from actors.generators.cutouts import extents, positions
from actors.generators.cutouts.cutout import Cutout, rotated, tight, turned
from actors.generators.cutouts.hardening import Mode
from actors.generators.cutouts.window import feathered, frame, hole
from actors.generators.inpaint import example as examples
from actors.generators.inpaint.config import InpaintSettings
from actors.generators.inpaint.draft import Draft, NewPlace, Site, painted_only
from actors.generators.inpaint.painters.base import Painter, Window
from actors.images import Pixels
from actors.records import Annotation, Candidate, Difficulty, LabeledImage, Lineage
from actors.seeds import derive_seed

_NUM_CLEAN = 3  # images without objects that are tried
_NUM_OTHERS = 24  # other training images that are tried


class Inpaint:
    """Repaints a lineage's mined instances, in their own boxes or at new places of their image.

    For a share ``clean`` of the candidates, if there are images without objects, the instances are painted into the one
    of a few such images that has room for most of them, at places with matching surroundings. If none has room, they
    are painted into their own image. If nothing can be painted there, and new places are asked for (``insert`` or
    ``further``), they are painted into the first of a few other training images that has room.

    Pixels outside of the holes do not change. A hole leaves out the neighbours' boxes; a box that shares more than 15 %
    of its area with them is not painted. If the painter starts from an example, neither is a box whose old object
    cannot be removed, or whose example cannot be pasted, without cutting off its surroundings. A large instance (more
    than a third of its image's longer side) is made smaller at a new place where it has no room else; one without an
    outline is replaced by a similar one that has. The annotation holds the image's boxes, then one box for each
    inserted instance.
    """

    def __init__(
        self,
        config: InpaintSettings,
        real: Sequence[LabeledImage],
        painter: Painter,
        clean: Sequence[LabeledImage] = (),
    ) -> None:
        self.config, self.painter = config, painter
        self.clean = sorted(clean, key=lambda image: image.id)
        if config.asks_what_was_hard:
            examples.check_known(painter.attributes, real)
        attributes = painter.attributes if config.examples == "told" else None
        self.extents = extents.by_class(real, upright=not config.rotate)
        turn = {"flip": config.flip, "rotate": config.rotate}
        self.instances = examples.Instances(real, config.cutout, config.margin, attributes, **turn)

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order; the windows of all of them are painted together.

        Raises ValueError if a lineage names an image or box that does not exist.
        """
        drafts = [self._draft(lineage) for lineage in lineages]
        windows = [self._window(draft, site) for draft in drafts for site in draft.sites]
        painted = iter(self.painter.paint(windows))
        return [self._finish(draft, [next(painted) for _ in draft.sites]) for draft in drafts]

    def _draft(self, lineage: Lineage) -> Draft:
        """Choose for each instance its own box or a new place."""
        source_of(self.instances.images, lineage)  # raises if it does not exist
        tried = [
            self._elsewhere(lineage, canvas)
            for canvas in drawn_clean(self.clean, self.config.clean, _NUM_CLEAN, lineage.seed)
        ]
        fits = [draft for draft in tried if draft.sites]
        if fits:
            return min(fits, key=lambda draft: draft.rank)
        at_home = self._at_home(lineage)
        if at_home.sites or not self._finds_new_places:
            return at_home
        return next((draft for draft in self._in_others(lineage) if draft.sites), at_home)

    @property
    def _finds_new_places(self) -> bool:
        return self.config.insert > 0 or self.config.further > 0

    def _in_others(self, lineage: Lineage) -> Iterator[Draft]:
        """Drafts in other training images, in a random order."""
        others = sorted(set(self.instances.images) - {lineage.image_id})
        order = np.random.default_rng(derive_seed(lineage.seed, "others")).permutation(len(others))[:_NUM_OTHERS]
        return (self._elsewhere(lineage, self.instances.images[others[place]]) for place in order)

    def _elsewhere(self, lineage: Lineage, image: LabeledImage) -> Draft:
        """The instances at places of another image; those without a place are left out."""
        canvas = self.instances.read(image.uri)
        rng = np.random.default_rng(derive_seed(lineage.seed, "clean", image.id))
        source, annotation, painted, seams = self.instances.images[lineage.image_id], image.annotation, [], []
        modes = requested_modes(self.config.modes, lineage)
        for _, index in product(range(1 + self.config.further), lineage.box_indices):
            difficulty = self._difficulty(source, index)
            if new := self._new_place(canvas, annotation, (source.id, index), difficulty, modes, rng):
                annotation = annotation.join(one_box(new.box, source.annotation.labels[index]))
                painted.append((len(annotation) - 1, new.example, difficulty))
                seams.append(new.seam)
        draft = self._with_sites(lineage, image, canvas, annotation, painted)
        return replace(draft, seam=float(np.mean(seams)) if seams else np.inf)

    def _at_home(self, lineage: Lineage) -> Draft:
        """The instances in their own boxes or, at random, at new places of their image."""
        image = self.instances.images[lineage.image_id]
        canvas, rng = self.instances.read(image.uri), np.random.default_rng(lineage.seed)
        annotation, painted, modes = image.annotation, [], requested_modes(self.config.modes, lineage)
        for repeat, index in product(range(1 + self.config.further), lineage.box_indices):
            difficulty, key = self._difficulty(image, index), (image.id, index)
            moves = repeat > 0 or self._moves(image, index, rng)
            new = self._new_place(canvas, annotation, key, difficulty, modes, rng) if moves else None
            if new:
                annotation = annotation.join(one_box(new.box, image.annotation.labels[index]))
                painted.append((len(annotation) - 1, new.example, difficulty))
            elif repeat == 0:
                example = self.instances.alike(canvas, key, difficulty, rng)
                mode = modes[rng.integers(len(modes))]
                example = example if mode == "scale" else self.config.harden(example, mode, rng)
                painted.append((index, example, difficulty))
        return self._with_sites(lineage, image, canvas, annotation, painted)

    def _with_sites(
        self,
        lineage: Lineage,
        image: LabeledImage,
        canvas: Pixels,
        annotation: Annotation,
        painted: Sequence[tuple[int, Cutout, Difficulty]],
    ) -> Draft:
        """The draft on the canvas ``image`` with the boxes ``painted`` (index, example, difficulty) that can be."""
        sites = [self._site(canvas, annotation, *one) for one in painted]
        sites = [site for site in sites if examples.is_free(site.mask, site.box)]
        start, sites = self._start(canvas, sites, image) if self.painter.varies else (canvas, sites)
        annotation, sites = painted_only(annotation, len(image.annotation), sites)
        return Draft(
            lineage=lineage, image=image, canvas=canvas, start=start, annotation=annotation, sites=tuple(sites)
        )

    def _moves(self, image: LabeledImage, index: int, rng: np.random.Generator) -> bool:
        return rng.random() < self.config.insert or (self.config.insert > 0 and not self._can_stay(image, index))

    def _can_stay(self, image: LabeledImage, index: int) -> bool:
        """True if another instance can take its place: it is whole, and can be removed if it has to be."""
        replaced = self.painter.varies and self.config.cutout == "object"
        return bool(self.instances.whole[image.id][index]) and not (
            replaced and self.instances.ground(image.id, index) is None
        )

    def _new_place(
        self,
        canvas: Pixels,
        annotation: Annotation,
        key: examples.Key,
        difficulty: Difficulty,
        modes: tuple[Mode, ...],
        rng: np.random.Generator,
    ) -> NewPlace | None:
        """A place for an instance, clear of the others and with matching surroundings."""
        cutout = self.instances.itself_or_alike(canvas, key, difficulty, rng)
        if cutout.shows_ground:
            return None
        turns = int(rng.integers(4)) * self.config.rotate
        cutout = turned(tight(cutout), flip=bool(rng.integers(2)) and self.config.flip, quarter_turns=turns)
        if self.config.turn_deg:
            cutout = rotated(cutout, rng.uniform(-self.config.turn_deg, self.config.turn_deg))
        cutout = self.config.harden(cutout, modes[rng.integers(len(modes))], rng)
        seen = self.extents.get(int(self.instances.images[key[0]].annotation.labels[key[1]]))
        room = positions.Search(canvas, annotation.boxes, positions.Overlap(most=0.0), seen).find(cutout, rng)
        if room is None:
            return None
        place, cutout = room
        box = cutout.box + np.array([place.x, place.y] * 2, np.float32)
        box = geometry.clip(box, canvas.shape[1], canvas.shape[0])
        return NewPlace(box=box, example=cutout, seam=place.seam)

    def _difficulty(self, image: LabeledImage, index: int) -> Difficulty:
        """The requested difficulty of an instance."""
        requested = self.config.difficulty
        return self.painter.attributes[image.id][index] if requested == "origin" else Difficulty(requested)

    def _site(
        self, canvas: Pixels, annotation: Annotation, index: int, example: Cutout, difficulty: Difficulty
    ) -> Site:
        config, box = self.config, annotation.boxes[index]
        others = np.delete(annotation.boxes, index, axis=0)
        least_px = round(self.painter.size_px / self.painter.max_zoom)
        return Site(
            box=box,
            label=int(annotation.labels[index]),
            difficulty=difficulty,
            index=index,
            mask=hole(canvas.shape[:2], box, config.margin, others),
            frame=frame(box, config.context, least_px),
            example=example,
        )

    def _start(self, canvas: Pixels, sites: Sequence[Site], image: LabeledImage) -> tuple[Pixels, list[Site]]:
        """The canvas with an example in each hole, and the sites where one fits."""
        start = canvas.copy()
        ready = [site for site in sites if self._make_room(start, site, image)]
        for site in ready:
            examples.compose(start, site.example, site.box, site.mask)
        return start, ready

    def _make_room(self, start: Pixels, site: Site, image: LabeledImage) -> bool:
        """Remove the object in one of the image's own boxes, in place; False if that or the example leaves a seam."""
        if site.index >= len(image.annotation):  # a new place was chosen for its background
            return True
        if self.config.cutout == "box":  # the example covers the old object
            return examples.goes_on(start, site.example, site.box)
        ground = None if site.example.shows_ground else self.instances.ground(image.id, site.index)
        if ground:
            ground.lay(start, site.mask)
        return ground is not None

    def _window(self, draft: Draft, site: Site) -> Window:
        size_px = self.painter.size_px
        return Window(
            pixels=site.frame.cut(draft.start, size_px),
            mask=site.frame.cut_mask(site.mask, size_px),
            box=site.frame.to_window(site.box, size_px),
            label=site.label,
            difficulty=site.difficulty,
            seed=derive_seed(draft.lineage.seed, site.index),
        )

    def _finish(self, draft: Draft, painted: Sequence[Pixels | None]) -> Candidate:
        canvas = draft.canvas.copy()
        drawn = np.zeros(len(draft.annotation), np.bool_)
        touched = np.full(canvas.shape[:2], -1, np.int16)
        for site, pixels in zip(draft.sites, painted, strict=True):
            if pixels is not None:
                sharp = site.frame.sharpened(pixels, draft.start) if self.painter.varies else pixels
                site.frame.paste(canvas, sharp, feathered(site.mask, self.config.feather_px))
                drawn[site.index] = True
                touched[site.mask] = site.index
        refused = "generator: safety_checker" if any(pixels is None for pixels in painted) else ""
        if not painted:
            refused = "generator: too_crowded"
        return Candidate(
            pixels=canvas,
            annotation=draft.annotation,
            drawn=drawn,
            painted=touched,
            canvas=draft.image.id,
            lineage=draft.lineage,
            refused=refused,
            examples=self._examples(draft),
        )

    def _examples(self, draft: Draft) -> tuple[str, ...]:
        """The image of each box's example; none if the painter does not start from examples."""
        used = {site.index: site.example.source for site in draft.sites} if self.painter.varies else {}
        return tuple(used.get(index, "") for index in range(len(draft.annotation)))
