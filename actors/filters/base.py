"""What the loop asks of a filter."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.images import Pixels
from actors.records import Inspected, Verdict

State = Mapping[str, Any]
"""What a filter learnt from the real images: plain JSON values, so that it can lie on disk beside the run.

A filter that measures the real images first has a static method ``fit(config, train, held_out)`` that returns it;
``held_out`` (val and test) is for refusing leaks, nothing else. The state of the others is empty. What a user should
know of the real images goes under ``remarks``, a list of sentences; the run says them.
"""

Embed = Callable[[Sequence[Pixels]], NDArray[np.float32]]
"""One feature vector for each picture: ``[n, d]``. A picture's vector does not depend on the others."""

OpenEmbed = Callable[[int], Embed]
"""Opens the current detector as an ``Embed`` that resizes pictures to this many px on their longer side."""


class Filter(Protocol):
    """Judges candidates. Built from its config and what was fitted for it, the same on every actor."""

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """The verdicts on each candidate, in order: one on the whole image, or one for each box it speaks about.

        A candidate's verdicts do not depend on the others in the batch.
        """
        ...
