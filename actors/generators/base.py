"""What the loop asks of a generator."""

from collections.abc import Sequence
from typing import Protocol

from actors.records import Candidate, Lineage


class Generator(Protocol):
    """Draws variants of mined instances. Built from its config and the real training images.

    All randomness of a candidate comes from its lineage's seed (``numpy.random.default_rng(lineage.seed)``; noise
    for a GPU is drawn on the CPU), so that its picture does not depend on batch size or on who draws it.
    """

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order.

        Raises ValueError where a lineage names an image or box that is not there.
        """
        ...
