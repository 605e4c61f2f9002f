"""The painters of the inpainting generator: the union of their configs."""

from typing import Annotated

from pydantic import Field

from actors.custom import Open
from actors.generators.inpaint.painters.base import PainterBase
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.generators.inpaint.painters.diffusers_inpaint import DiffusersConfig
from actors.generators.inpaint.painters.gligen import GligenConfig

PainterConfig = Annotated[
    CropConfig | DiffusersConfig | GligenConfig,
    Field(discriminator="kind"),
    Open(PainterBase, "detloop.painters"),
]
