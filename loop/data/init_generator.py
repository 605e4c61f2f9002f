"""The generator section that ``detloop init`` writes, decided by measures on the training images.

The comments of the written file state these rules:

* Copy-paste: it needs no fit, and its objects are real pixels. With a painter, gains were level (docs/evidence.md).
* Turns and mirroring: quarter turns are on where turned crops certainly look like real ones (see ``pose``), mirroring
  is off where mirrored crops certainly look different.
* Cutouts: along the outline. Where outlines are rarely found and boxes are small, as with defects of a surface, whole
  boxes are cut out.
* Images without objects, if there are any, are the only canvases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.counted import counted
from actors.generators.cutouts.cutout import cut
from actors.images import read
from actors.records import LabeledImage
from loop.data.pose import Poses, Told, measure
from loop.data.survey import Found

_SECTION = """\
generator:
  kind: copy_paste ## pastes mined objects into other images
  modes: [plain, scale] ## as they are, or at another size
  cutout: {cutout} ## {outlined}
  # A linear classifier was asked to tell crops of the objects from the same crops turned by quarter turns, or mirrored:
  rotate: {rotate} ## {turned}
  flip: {flip} ## {mirrored}
{clean}  # further: 1 ## each object is pasted once more, where there is room"""

_CLEAN = "  clean: 1.0 ## objects are only pasted into the images without objects; 0.5: half of the candidates\n"

_MOST_IMAGES, _MOST_CUTS = 40, 6  # some seconds
_LEAST_CUTS = 10
_LEAST_SHARE = 0.5  # of objects with an outline: DeepPCB has 0.06, BCCD 0.88, photographs of animals 0.83
_SMALL = 0.15  # longer side of the median box, as a share of its image's


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """How many objects have an outline."""

    share: float
    num_objects: int
    size: float  # median of the boxes' longer sides, as a share of the images' longer side

    @property
    def as_boxes(self) -> bool:
        """Whether objects are better cut out as whole boxes."""
        return self.num_objects >= _LEAST_CUTS and self.share < _LEAST_SHARE and self.size < _SMALL

    def __str__(self) -> str:
        if self.num_objects < _LEAST_CUTS:
            return f"along the outline; {counted(self.num_objects, 'object is', 'objects are')} too few to measure"
        found = f"an outline is found for {self.share:.0%} of {self.num_objects} objects"
        if self.as_boxes:
            return f"{found}: marks on a surface, cut out as whole boxes"
        return f"{found}; large ones without are not pasted{', so expect few candidates' * (self.share < _LEAST_SHARE)}"


def generator_section(found: Found) -> str:
    """The lines of the section generator; comments follow ``##``."""
    images = found.dataset.splits["train"]
    outlines = measure_outlines(images)
    return _SECTION.format(
        cutout="box" if outlines.as_boxes else "object",
        outlined=outlines,
        clean=_CLEAN if found.dataset.clean else "",
        **_pose(measure(images)),
    )


def measure_outlines(images: Sequence[LabeledImage], seed: int = 0) -> Outlines:
    """Cut out at most 6 objects of each of at most 40 images. Pictures that cannot be read are passed over."""
    outlined, sizes = list[bool](), list[float]()
    for index in np.random.default_rng(seed).permutation(len(images))[:_MOST_IMAGES]:
        image = images[index]
        boxes = image.annotation.boxes[~image.annotation.ignore][:_MOST_CUTS]
        try:
            pixels = read(image.uri)
        except (ValueError, OSError):  # `data validate` reports it
            continue
        for box in boxes:
            outlined.append(cut(pixels, box, "object").outlined)
            sizes.append(float((box[2:] - box[:2]).max()) / max(image.width, image.height))
    if not outlined:
        return Outlines(share=0.0, num_objects=0, size=0.0)
    return Outlines(share=float(np.mean(outlined)), num_objects=len(outlined), size=float(np.median(sizes)))


def _pose(poses: Poses) -> dict[str, str]:
    """The fields of the template that say whether instances are turned and mirrored, and why."""
    turned, mirrored = poses.turned, poses.mirrored
    return {
        "rotate": str(turned.alike).lower(),
        "turned": _told(turned, "turned", otherwise="off"),
        "flip": str(not mirrored.different).lower(),
        "mirrored": _told(mirrored, "mirrored", otherwise="on"),
    }


def _told(told: Told, changed: str, otherwise: str) -> str:
    """What was measured, and what follows from it."""
    if told.different:
        return f"{changed} objects look different ({told})"
    if told.alike:
        return f"{changed} objects look like real ones ({told})"
    return f"undecided, so {otherwise} ({told})"
