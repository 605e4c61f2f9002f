"""Agreement."""

from typing import Literal

from actors.config import Config


class AgreementConfig(Config):
    """Agreement."""

    kind: Literal["agreement"] = "agreement"
