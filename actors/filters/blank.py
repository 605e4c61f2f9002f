"""Blank."""

from typing import Literal

from actors.config import Config


class BlankConfig(Config):
    """Blank."""

    kind: Literal["blank"] = "blank"
