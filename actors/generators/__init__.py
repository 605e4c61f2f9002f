"""The generators of detloop: the union of their configs."""

from typing import Annotated

from pydantic import Field

from actors.custom import Open
from actors.generators.base import GeneratorBase
from actors.generators.copy_paste import CopyPasteConfig
from actors.generators.inpaint.component import InpaintConfig
from actors.generators.insertion_gan.component import InsertionGANConfig
from actors.generators.layout.component import LayoutConfig

GeneratorConfig = Annotated[
    CopyPasteConfig | InpaintConfig | InsertionGANConfig | LayoutConfig,
    Field(discriminator="kind"),
    Open(GeneratorBase, "detloop.generators"),
]
