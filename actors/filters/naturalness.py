"""Naturalness."""

from typing import Literal

from actors.config import Config


class NaturalnessConfig(Config):
    """Naturalness."""

    kind: Literal["naturalness"] = "naturalness"
