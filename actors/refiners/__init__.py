"""The refiners of detloop: the union of their configs."""

from typing import Annotated

from actors.custom import Open
from actors.refiners.base import RefinerBase
from actors.refiners.identity import IdentityConfig

RefinerConfig = Annotated[IdentityConfig, Open(RefinerBase, "detloop.refiners")]
"""The config of any refiner."""
