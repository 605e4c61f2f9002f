"""The keys of the inpainting generator; ``component`` makes a component of them."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from actors.config import Share
from actors.generators.cutouts.cutout import Shape
from actors.generators.cutouts.hardening import HardeningConfig, Mode, Range
from actors.generators.inpaint.painters import PainterConfig
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.records import Strategy


class InpaintSettings(HardeningConfig):
    """Which boxes are painted, where, and by which painter."""

    not_in_fit: ClassVar = HardeningConfig.not_in_fit | {
        *("difficulty", "examples", "insert", "further", "turn_deg", "cutout", "feather_px"),
    }

    painter: PainterConfig = CropConfig()
    """crop: fitted on the run's images; diffusers: any inpainting pipeline; gligen: grounded by boxes, as the paper."""
    difficulty: Strategy = "hard"
    """The variant that a painter which knows the attribute is asked for (DetDiffusion, arXiv 2403.13304, Fig. 3):
    origin, as hard as the detector found the mined instance, or the same for all."""
    examples: Literal["any", "told"] = "any"
    """The real instances that a painter with a strength below 1 starts from (ours): any of the class, or those alone
    that the detector found as easy or hard as ``difficulty`` asks; one without such an example starts from itself."""
    cutout: Shape = "object"
    """What is set into the hole for a painter to start from (those with a strength below 1): an instance along its
    outline, for things that lie on a background; or its whole box, for marks that belong to what they are on."""
    flip: bool = True
    """Instances may be mirrored, in examples and in the fit of a painter that learns."""
    rotate: bool = True
    """Instances may be turned by 90, 180 and 270 degrees: right for things that are looked at from above."""
    insert: Share = 0.0
    """Share of the instances painted at a new place of their image, as a further box; 0 is the paper. Above 0, those
    that neighbours or the image's border cut into, or that cannot be taken away unseen, go there too."""
    further: int = Field(0, ge=0)
    """New places at which each instance is painted besides, where there is room: a fuller picture teaches more in one
    step. As with ``insert``, an instance that is cut into has one of its like painted in its stead."""
    turn_deg: float = Field(0.0, ge=0.0, le=180.0)
    """Inserted instances are turned by up to this angle either way, beside the quarter turns. For cutouts along the
    outline: a box that is turned is no box any more."""
    modes: tuple[Mode, ...] = Field(("plain", "scale"), min_length=1)
    """What may be done to an example before a painter starts from it; one is drawn for each (name one twice to have it
    twice as often). In its own box an instance keeps its scale."""
    scale: Range = (0.64, 1.56)
    """Mode scale: range of the factor between an inserted box and the mined one."""
    context: float = Field(1.5, ge=1.0)
    """Side of the window over the box's longer side; more than the hole's, which a painter is to fill from around it.
    """
    margin: float = Field(0.1, ge=0.0, le=1.0)
    """The hole reaches beyond the box by this share of its sides, for shadows and seams."""
    feather_px: float = Field(2.0, ge=0.0)
    """Width over which the painted pixels fade in, inside the hole."""

    @model_validator(mode="after")
    def _boxes_stay_boxes(self) -> Self:
        if self.turn_deg and self.cutout == "box":
            raise ValueError(
                f"turn_deg {self.turn_deg:g}: cutout: box cannot be turned by any angle; use cutout: object"
            )
        return self

    @model_validator(mode="after")
    def _knows_what_is_hard(self) -> Self:
        if self.asks_what_was_hard and not self.painter.varies_instances:
            raise ValueError(
                "difficulty: origin and examples: told are for a painter that is fitted on the real instances, and so "
                "knows how hard each was found, and that starts from them: painter.kind crop, its strength below 1"
            )
        return self

    @property
    def asks_what_was_hard(self) -> bool:
        """Whether it matters how hard each real instance was found."""
        return self.difficulty == "origin" or self.examples == "told"

    @model_validator(mode="after")
    def _holes_have_surroundings(self) -> Self:
        side = 1 + 2 * self.margin
        if self.context <= side:
            raise ValueError(
                f"context {self.context:g}: with margin {self.margin:g} the hole is {side:g} times the box's side and "
                "leaves nothing of the window around it; raise context or lower margin"
            )
        return self
