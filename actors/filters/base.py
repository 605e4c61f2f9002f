"""What the loop asks of a filter."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from actors.records import Inspected, LabeledImage, Verdict

State = Mapping[str, Any]
"""What a filter learnt from the real images: plain JSON values, so that it can lie on disk beside the run."""


class Filter(Protocol):
    """Judges candidates. Built from its config and the state that its ``fit`` returned, the same on every actor."""

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """The verdicts on each candidate, in order: one on the whole image, or one for each box it speaks about.

        A candidate's verdicts do not depend on the others in the batch.
        """
        ...


class Fitted(Protocol):
    """A filter that measures the real images first; the others have an empty state."""

    def fit(self, train: Sequence[LabeledImage], held_out: Sequence[LabeledImage]) -> State:
        """The state from the real training images. ``held_out`` (val and test) is for refusing leaks, nothing else."""
        ...
