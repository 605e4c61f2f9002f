"""Refiners move boxes to the objects that they are drawn around: the protocol, and the base class of their configs."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from pydantic import Field

from actors.config import Share
from actors.fitting import Learner, LossSource
from actors.images import Pixels
from actors.records import Annotation, Refinement


class Refiner(Protocol):
    """Refines the boxes of pictures; built from its config, the detector's config and its fitted checkpoint."""

    def refine(self, pictures: Sequence[Pixels], annotations: Sequence[Annotation]) -> list[Refinement]:
        """The refined boxes of each picture ``[H, W, 3]`` uint8 RGB, in the order of its annotation.

        Boxes flagged ignore stay as they are. A picture's result does not depend, to the last bit on one kind of
        hardware, on the pictures that it is batched with.
        """
        ...


class RefinerBase(Learner):
    """The base of every refiner's config."""

    not_in_fit: ClassVar[frozenset[str]] = frozenset({"min_confidence", "min_agreement"})

    min_confidence: Share = 0.0
    """A drawn box becomes ignore if the refiner is less sure of its refined box than this."""
    min_agreement: float = Field(0.3, ge=0.0, le=1.0)
    """A drawn box becomes ignore unless a detection of its class with a score of 0.1 or more, made before refinement,
    has at least this IoU with it or with its refined box."""

    @abstractmethod
    def build(self, detector: LossSource, checkpoint: str | None = None) -> Refiner:
        """The refiner; ``checkpoint`` is that of its fit if it learns, ``detector`` the config of the run's detector.

        Raises ValueError or FileNotFoundError if the checkpoint is missing or belongs to another refiner or detector.
        """
