"""Duplicate."""

from typing import Literal

from actors.config import Config


class DuplicateConfig(Config):
    """Duplicate."""

    kind: Literal["duplicate"] = "duplicate"
