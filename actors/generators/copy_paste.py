"""Copy-paste."""

from typing import Literal

from actors.config import Config


class CopyPasteConfig(Config):
    """Copy-paste."""

    kind: Literal["copy_paste"] = "copy_paste"
