"""The refiner that leaves every box where it is, with which refinement is off."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from typing_extensions import override

from actors.fitting import LossSource
from actors.images import Pixels
from actors.records import Annotation, Refinement
from actors.refiners.base import Refiner, RefinerBase


class IdentityConfig(RefinerBase):
    """Leaves every box where it is."""

    kind: Literal["identity"] = "identity"

    @override
    def build(self, detector: LossSource, checkpoint: str | None = None) -> Refiner:
        return Identity()


class Identity:
    """See ``actors.refiners.base.Refiner``."""

    def refine(self, pictures: Sequence[Pixels], annotations: Sequence[Annotation]) -> list[Refinement]:
        """The boxes as they are, with confidence 1."""
        del pictures
        return [Refinement(boxes=one.boxes, confidence=(~one.ignore).astype(np.float32)) for one in annotations]
