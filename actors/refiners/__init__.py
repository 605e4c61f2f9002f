"""The refiners of detloop: the union of their configs."""

from typing import Annotated

from pydantic import Field

from actors.custom import Open
from actors.refiners.base import RefinerBase
from actors.refiners.identity import IdentityConfig
from actors.refiners.ssddet.component import SSDDetConfig

RefinerConfig = Annotated[
    IdentityConfig | SSDDetConfig,
    Field(discriminator="kind"),
    Open(RefinerBase, "detloop.refiners"),
]
"""The config of any refiner."""
