"""Painters fill the windows of the inpainting generator; the union of their configs."""

from typing import Annotated

from pydantic import Field

from actors.generators.inpaint.painters.base import Painter
from actors.generators.inpaint.painters.crop import CropConfig
from actors.generators.inpaint.painters.diffusers_inpaint import DiffusersConfig
from actors.generators.inpaint.painters.gligen import GligenConfig

PainterConfig = Annotated[CropConfig | DiffusersConfig | GligenConfig, Field(discriminator="kind")]


def build_painter(config: PainterConfig, classes: tuple[str, ...], fitted: str | None) -> Painter:
    """The painter of ``config``; ``fitted`` is the URI of its checkpoint where it is one that learns."""
    match config:
        case CropConfig():
            from actors.generators.inpaint.painters.crop import load_painter

            return load_painter(config, classes, fitted)
        case DiffusersConfig():
            from actors.generators.inpaint.painters.diffusers_inpaint import DiffusersPainter

            return DiffusersPainter(config, classes)
        case GligenConfig():
            from actors.generators.inpaint.painters.gligen import GligenPainter

            return GligenPainter(config, classes)
