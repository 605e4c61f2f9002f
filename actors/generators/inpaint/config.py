"""Config keys of the inpainting generator; see ``component`` for the component itself."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from actors.config import Share
from actors.generators.cutouts.cutout import Shape
from actors.generators.cutouts.hardening import HardeningConfig, Mode, Range
from actors.generators.inpaint.painters import PainterConfig
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.records import Strategy


class InpaintSettings(HardeningConfig):
    """Boxes, places and painter of the inpainting generator."""

    not_in_fit: ClassVar = HardeningConfig.not_in_fit | {
        *("difficulty", "examples", "insert", "clean", "further", "turn_deg", "cutout", "feather_px"),
    }

    painter: PainterConfig = CropConfig()
    """crop: fitted on the run's images; diffusers: any inpainting pipeline; gligen: grounded by boxes (the paper)."""
    difficulty: Strategy = "hard"
    """Difficulty requested from a painter conditioned on it (DetDiffusion, arXiv 2403.13304, Fig. 3): origin, as
    measured for the mined instance, or the same for all."""
    examples: Literal["any", "told"] = "any"
    """Real instances that a painter with a strength below 1 starts from (ours): any of the class, or (told) only those
    of the requested ``difficulty``. An instance without such an example starts from itself."""
    cutout: Shape = "object"
    """Pixels that a painter with a strength below 1 starts from. object: an instance along its outline, for objects on
    a background; box: its whole box, for marks that are part of a surface."""
    flip: bool = True
    """Instances may be mirrored, in examples and in the fit of a painter that learns."""
    rotate: bool = False
    """Instances may be rotated by 90, 180 and 270 degrees, for objects without an upright pose. ``detloop init``
    measures whether they have one."""
    insert: Share = 0.0
    """Share of the instances painted at a new place of their image, as an additional box; 0 as in the paper. Above 0,
    instances that neighbours or the image's border cut off, or that cannot be removed without a visible seam, are
    painted there too."""
    clean: Share = 0.5
    """Share of the candidates in which all instances are painted into an image without objects (``data.clean``), if
    there are any, at places with matching surroundings. The others are painted as without such images."""
    further: int = Field(0, ge=0)
    """Additional new places at which each instance is painted, where there is room, so that a training step has more
    of them. As with ``insert``, an instance that is cut off is replaced by a similar one."""
    turn_deg: float = Field(0.0, ge=0.0, le=180.0)
    """Inserted instances are rotated by up to this angle either way, in addition to quarter turns. Only for ``cutout``
    object: a rotated box is no box any more."""
    modes: tuple[Mode, ...] = Field(("plain", "scale"), min_length=1)
    """Hard modes of the examples that a painter starts from; one is chosen at random for each (repeat a mode to choose
    it more often). In its own box, an instance keeps its scale."""
    scale: Range = (0.64, 1.56)
    """Mode scale: range of the factor between an inserted box and the mined one."""
    context: float = Field(1.5, ge=1.0)
    """Side of the window relative to the box's longer side; larger than the hole's, to show its surroundings."""
    margin: float = Field(0.1, ge=0.0, le=1.0)
    """The hole reaches beyond the box by this share of its sides, for shadows and seams."""
    feather_px: float = Field(2.0, ge=0.0)
    """Width over which the painted pixels fade in, inside the hole."""

    @model_validator(mode="after")
    def _boxes_stay_boxes(self) -> Self:
        if self.turn_deg and self.cutout == "box":
            raise ValueError(
                f"turn_deg {self.turn_deg:g}: cutout: box cannot be rotated by any angle; use cutout: object"
            )
        return self

    @model_validator(mode="after")
    def _painter_knows_difficulties(self) -> Self:
        if self.asks_what_was_hard and not self.painter.varies_instances:
            raise ValueError(
                "difficulty: origin and examples: told need a painter that is fitted on the real instances, knows "
                "their difficulties and starts from them: use painter.kind crop with a strength below 1"
            )
        return self

    @property
    def asks_what_was_hard(self) -> bool:
        """Whether the difficulties of the real instances are used."""
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
