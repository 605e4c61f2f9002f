"""Copy-paste: real instances pasted elsewhere (Cut, Paste and Learn, arXiv 1708.01642; Simple Copy-Paste, 2012.07177).

No instance masks are needed: an object is cut out along an outline found in its box, or as the whole box, and blended
in with a feathered edge. It is pasted where the image matches its surroundings. A random hard mode changes it first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from actors import boxes as geometry
from actors.config import Share
from actors.generators.base import GeneratorBase, drawn_clean, one_box, requested_modes, source_of
from actors.generators.cutouts import extents, positions
from actors.generators.cutouts.cutout import Cutout, Shape, cut, tight, turned
from actors.generators.cutouts.hardening import HardeningConfig, Mode, ShareRange
from actors.generators.cutouts.outline import Box, Mask, bounds
from actors.images import Pixels, read
from actors.records import Annotation, Candidate, LabeledImage, Lineage

PasteMode = Mode | Literal["occlusion"]

_NUM_TARGETS = 12  # images tried until one has room for all the instances
_NUM_SEAM_TARGETS = 3  # images tried until one has places with good seams
_MAX_LARGE_SHIFT = 20.0  # grey levels: a photograph's object in the dark is not black itself
_GOOD_SEAM = 40.0  # RMS, grey levels: largest difference between a good place's surroundings and the instance's own


class CopyPasteConfig(HardeningConfig, GeneratorBase):
    """Mined instances, made harder and pasted into other training images or at new places in their own."""

    boxes_are_exact: ClassVar = True

    kind: Literal["copy_paste"] = "copy_paste"
    modes: tuple[PasteMode, ...] = Field(("plain", "scale", "occlusion", "contrast", "blur"), min_length=1)
    """Hard modes; one is chosen at random for each pasted instance (repeat a mode to choose it more often)."""
    cutout: Shape = "object"
    """object: along the outline found in the box, for objects on a background; box: the whole box, for marks that are
    part of a surface (defects of a material or a print)."""
    further: int = Field(0, ge=0)
    """Additional copies pasted of each instance, where there is room."""
    clean: Share = 0.5
    """Share of the candidates in which the instances are pasted into an image without objects (``data.clean``), if
    there are any. The others are pasted as without such images."""
    same_image: Share = 0.2
    """Share of the candidates in which the instances are pasted at new places in their own image."""
    flip: bool = True
    """Instances may be mirrored."""
    rotate: bool = False
    """Instances may be rotated by 90, 180 and 270 degrees, for objects without an upright pose. ``detloop init``
    measures whether they have one."""
    tries: int = Field(4, ge=1)
    """Orientations tried for each instance; the one whose surroundings match best is pasted."""
    max_overlap: Share = 0.15
    """Largest overlap of a pasted box and an existing one, as a share of the smaller of the two."""
    occlusion: ShareRange = (0.2, 0.5)
    """Mode occlusion: range of the share of the pasted box that an existing object covers."""

    @property
    @override
    def clean_share(self) -> float:
        return self.clean if set(self.modes) != {"occlusion"} else 0.0

    @property
    @override
    def hard_modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.modes))

    @override
    def build(
        self,
        real: Sequence[LabeledImage],
        classes: tuple[str, ...],
        fitted: str | None = None,
        clean: Sequence[LabeledImage] = (),
    ) -> "CopyPaste":
        return CopyPaste(self, real, clean)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    """A candidate on one target."""

    candidate: Candidate
    num_missing: int  # instances without a place
    seam: float  # mean over the pasted instances, grey levels

    @property
    def rank(self) -> tuple[int, float]:
        """Sort key; lower is better."""
        return self.num_missing, self.seam


class CopyPaste:
    """Pastes a lineage's mined instances into one real training image.

    The target is an image without objects for a share ``clean`` of the candidates, if there are any. Else it is another
    training image, or the instances' own image for a share ``same_image``. If it has no room for all instances, or no
    places with matching surroundings, other images are tried and the best is used. Pixels outside of the pasted cutouts
    do not change. The annotation holds the target's boxes, then one box for each pasted instance, flagged ``drawn``. An
    instance without a place is left out. A large one (more than a third of its image's longer side) is made smaller
    where it has no room else, and left out if no outline of it is found.
    """

    def __init__(
        self, config: CopyPasteConfig, real: Sequence[LabeledImage], clean: Sequence[LabeledImage] = ()
    ) -> None:
        self.config = config
        self.clean = sorted(clean, key=lambda image: image.id)
        self.images = {image.id: image for image in sorted(real, key=lambda image: image.id)}
        self.ids = list(self.images)
        self.extents = extents.by_class(real, upright=not config.rotate)
        self.read = lru_cache(maxsize=64)(read)
        self.cut = lru_cache(maxsize=1024)(self._cut)

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order. It is refused if no target has room for any of its instances.

        Raises ValueError if a lineage names an image or box that does not exist.
        """
        return [self._generate_one(lineage) for lineage in lineages]

    def _generate_one(self, lineage: Lineage) -> Candidate:
        source_of(self.images, lineage)  # raises if it does not exist
        if all(self.cut(lineage.image_id, index).shows_ground for index in lineage.box_indices):
            return self._refused(lineage, "no_outline")
        rng = np.random.default_rng(lineage.seed)
        best: _Attempt | None = None
        for tried, target in enumerate(self._targets(lineage, rng), start=1):
            attempt = self._attempt(lineage, target, rng)
            if best is None or attempt.rank < best.rank:
                best = attempt
            if best.num_missing == 0 and (best.seam <= _GOOD_SEAM or tried >= _NUM_SEAM_TARGETS):
                break
        if best is None or not best.candidate.drawn.any():
            return self._refused(lineage, "no_room")
        return best.candidate

    def _refused(self, lineage: Lineage, reason: str) -> Candidate:
        """The unchanged source image, marked as refused for a reason."""
        source = self.images[lineage.image_id]
        pixels, num_boxes = self.read(source.uri).copy(), len(source.annotation)
        return Candidate(
            pixels=pixels,
            annotation=source.annotation,
            drawn=np.zeros(num_boxes, np.bool_),
            painted=np.full(pixels.shape[:2], -1, np.int16),
            canvas=source.id,
            lineage=lineage,
            refused=f"generator: {reason}",
        )

    def _targets(self, lineage: Lineage, rng: np.random.Generator) -> list[LabeledImage]:
        """The images to try, in order."""
        own = self.images[lineage.image_id]
        others = [name for name in self.ids if name != own.id]
        at_home = rng.random() < self.config.same_image
        elsewhere = [self.images[others[index]] for index in rng.permutation(len(others))[:_NUM_TARGETS]]
        with_objects = [own, *elsewhere] if at_home else [*elsewhere, own]
        return [*drawn_clean(self.clean, self._clean_share(lineage), _NUM_TARGETS, lineage.seed), *with_objects]

    def _clean_share(self, lineage: Lineage) -> float:
        """Nothing can be hidden in an image without objects, which leaves none to mode occlusion alone."""
        return self.config.clean if set(requested_modes(self.config.modes, lineage)) != {"occlusion"} else 0.0

    def _attempt(self, lineage: Lineage, target: LabeledImage, rng: np.random.Generator) -> _Attempt:
        """Paste all instances that have a place in the target."""
        canvas = self.read(target.uri).copy()
        annotation, source = target.annotation, self.images[lineage.image_id]
        painted = np.full(canvas.shape[:2], -1, np.int16)
        seams, modes = [], self._modes(lineage, target)
        wanted = lineage.box_indices * (1 + self.config.further)
        for index in wanted:
            pasted = self._paste(canvas, painted, target, annotation, (source.id, index), modes, rng)
            if pasted:
                annotation = annotation.join(one_box(pasted[0], source.annotation.labels[index]))
                seams.append(pasted[1])
        drawn = np.arange(len(annotation)) >= len(target.annotation)
        candidate = Candidate(
            pixels=canvas,
            annotation=annotation,
            drawn=drawn,
            painted=painted,
            canvas=target.id,
            lineage=lineage,
            examples=tuple(np.where(drawn, source.id, "").tolist()),
        )
        return _Attempt(
            candidate=candidate, num_missing=len(wanted) - len(seams), seam=float(np.mean(seams)) if seams else np.inf
        )

    def _paste(
        self,
        canvas: Pixels,
        painted: NDArray[np.int16],
        target: LabeledImage,
        annotation: Annotation,
        key: tuple[str, int],
        modes: list[PasteMode],
        rng: np.random.Generator,
    ) -> tuple[Box, float] | None:
        """Paste an instance (image id, index) into the canvas; return its box and seam, None without place or outline.

        ``painted`` ``[H, W]`` is set to the position of the box at the pasted pixels.
        """
        original, label = self.cut(*key), int(self.images[key[0]].annotation.labels[key[1]])
        if original.shows_ground:
            return None
        hardened, overlap = self._harden(tight(original), modes, rng)
        search = positions.Search(canvas, annotation.boxes, overlap, self.extents.get(label))
        oriented = cache(lambda flip, quarter_turns: turned(hardened, flip=flip, quarter_turns=quarter_turns))
        rooms = [search.find(oriented(*self._orientation(rng)), rng) for _ in range(self.config.tries)]
        found = min(filter(None, rooms), key=lambda room: room[0].seam, default=None)
        if found is None:
            return None
        place, cutout = found
        above = self._above(canvas, target, annotation, place, cutout) if overlap.hidden else np.zeros_like(cutout.core)
        box = blend(canvas, cutout, place, above)
        if box is None:
            return None
        region = painted[place.y : place.y + cutout.height, place.x : place.x + cutout.width]
        region[cutout.alpha() > 0] = len(annotation)
        return box, place.seam

    def _cut(self, image_id: str, index: int) -> Cutout:
        image = self.images[image_id]
        return cut(self.read(image.uri), image.annotation.boxes[index], self.config.cutout)

    def _modes(self, lineage: Lineage, target: LabeledImage) -> list[PasteMode]:
        """The modes to draw from; no occlusion in images without objects, which hide nothing."""
        hides = target.id in self.images
        return [mode for mode in requested_modes(self.config.modes, lineage) if hides or mode != "occlusion"]

    def _harden(
        self, cutout: Cutout, modes: list[PasteMode], rng: np.random.Generator
    ) -> tuple[Cutout, positions.Overlap]:
        """The cutout after a random one of ``modes``, and the overlap with existing boxes that the mode allows."""
        mode = modes[rng.integers(len(modes))]
        if mode == "occlusion":
            least, most = self.config.occlusion
            return cutout, positions.Overlap(least=least, most=most, hidden=True)
        return self.config.harden(cutout, mode, rng), positions.Overlap(most=self.config.max_overlap)

    def _orientation(self, rng: np.random.Generator) -> tuple[bool, int]:
        """Whether to mirror a cutout, and its quarter turns."""
        flip, quarter_turns = bool(rng.integers(2)), int(rng.integers(4))
        return flip and self.config.flip, quarter_turns * self.config.rotate

    def _above(
        self,
        canvas: Pixels,
        target: LabeledImage,
        annotation: Annotation,
        place: positions.Place,
        cutout: Cutout,
    ) -> Mask:
        """Mask ``[h, w]`` of the cutout's pixels that existing objects cover."""
        corner = np.array([place.x, place.y] * 2, np.float32)
        area = np.array([[0, 0, cutout.width, cutout.height]], np.float32) + corner
        near = geometry.intersections(annotation.boxes, area)[:, 0] > 0
        above = np.zeros(canvas.shape[:2], np.bool_)
        for index in np.flatnonzero(near):
            own = index < len(target.annotation)  # the others were pasted just now
            box = annotation.boxes[index]
            there = self.cut(target.id, int(index)) if own else cut(canvas, box, self.config.cutout)
            above |= there.core_in_image(box, canvas.shape[:2])
        return above[place.y : place.y + cutout.height, place.x : place.x + cutout.width]


def blend(canvas: Pixels, cutout: Cutout, place: positions.Place, above: Mask) -> Box | None:
    """Blend a cutout into the canvas, in place, and return the box ``[4]`` of its visible object.

    ``above`` ``[h, w]`` masks the pixels that other objects cover. The cutout's colours are shifted by the median
    difference of the surroundings, those of a large object within a limit. The box keeps the margin that the annotator
    left around the object. If no part of the object is visible, nothing is blended and None is returned.
    """
    import cv2

    visible = cutout.core & ~above
    if not visible.any():
        return None
    region = canvas[place.y : place.y + cutout.height, place.x : place.x + cutout.width]
    pixels = cutout.pixels.astype(np.float32)
    around = ~cutout.core
    if around.any():
        most = _MAX_LARGE_SHIFT if cutout.large else np.inf
        pixels += np.clip(np.median(region[around].astype(np.float32) - pixels[around], axis=0), -most, most)
    below = 1.0 - cv2.GaussianBlur(above.astype(np.float32), (0, 0), 1.0)
    alpha = (cutout.alpha() * below)[..., None]
    region[:] = np.clip(np.rint(region * (1 - alpha) + pixels * alpha), 0, 255).astype(np.uint8)
    box = cutout.box + bounds(visible) - bounds(cutout.core) + np.array([place.x, place.y] * 2, np.float32)
    return geometry.clip(box, canvas.shape[1], canvas.shape[0])
