"""What becomes of a drawn box that a filter rejects: Gen2Det's policy (arXiv 2312.04566, Sec. 3.2, 3.3) and two more.

* ignore (the paper's): its label goes and its pixels stay, so training has to ignore the background.
* restore (ours): it is undone. The canvas's pixels come back wherever it was the last to paint; a box of the canvas's
  own keeps its label, one that was added loses it. What is in the picture is then labelled as well as in the canvas.
* drop_image (ours): the whole image goes with it.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actors.images import Pixels
from actors.records import WHOLE_IMAGE, Candidate, Judged, LabeledImage, Verdict

RejectedBoxes = Literal["ignore", "restore", "drop_image"]


def drops_image(verdict: Verdict, drawn: NDArray[np.bool_], policy: RejectedBoxes) -> bool:
    """Whether a verdict takes the whole image away; ``drawn`` ``[n]`` are the flags of the candidate's boxes."""
    if verdict.keep:
        return False
    return verdict.box == WHOLE_IMAGE or (policy == "drop_image" and bool(drawn[verdict.box]))


def restore(judged: Judged, candidate: Candidate, canvas: LabeledImage, pixels: Pixels) -> Judged:
    """What was judged of ``candidate`` with its rejected drawn boxes undone; ``pixels`` ``[H, W, 3]`` are the canvas's.

    An image that is dropped stays as it was drawn. Raises ValueError where ``pixels`` are of another size.
    """
    rejected = _rejected(judged)
    if judged.dropped or not rejected.any():
        return judged
    if pixels.shape != candidate.pixels.shape:
        raise ValueError(f"{canvas.uri} is {pixels.shape}, a candidate drawn into it {candidate.pixels.shape}")
    undone = rejected & candidate.drawn
    own = np.arange(len(rejected)) < len(canvas.annotation)
    where = np.isin(candidate.painted, np.flatnonzero(undone))
    return replace(
        judged,
        pixels=np.where(where[..., None], pixels, candidate.pixels),
        annotation=candidate.annotation.take(~rejected | own),
        restored=undone,
    )


def _rejected(judged: Judged) -> NDArray[np.bool_]:
    """Which of the candidate's boxes ``[n]`` a verdict speaks against."""
    rejected = np.zeros(len(judged.proposed), np.bool_)
    rejected[[verdict.box for verdict in judged.verdicts if not verdict.keep and verdict.box != WHOLE_IMAGE]] = True
    return rejected
