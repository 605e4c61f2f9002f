"""Policies for rejected boxes: that of Gen2Det (arXiv 2312.04566, Sec. 3.2, 3.3) and two more.

* ignore (the paper's): the label is removed and the pixels stay, so training has to ignore the background.
* restore (ours): the box is undone. The canvas's pixels come back wherever this box was painted last. A box of the
  canvas keeps its label; an added box loses it. The result is labelled as completely as the canvas.
* drop_image (ours): the whole image is dropped.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actors.images import Pixels
from actors.records import WHOLE_IMAGE, Candidate, Judged, LabeledImage, Verdict

RejectedBoxes = Literal["ignore", "restore", "drop_image"]


def drops_image(verdict: Verdict, drawn: NDArray[np.bool_], policy: RejectedBoxes) -> bool:
    """True if a verdict drops the whole image; ``drawn`` ``[n]`` are the flags of the candidate's boxes."""
    if verdict.keep:
        return False
    return verdict.box == WHOLE_IMAGE or (policy == "drop_image" and bool(drawn[verdict.box]))


def restore(judged: Judged, candidate: Candidate, canvas: LabeledImage, pixels: Pixels) -> Judged:
    """The judged ``candidate`` with its rejected generated boxes undone; ``pixels`` ``[H, W, 3]`` are the canvas's.

    A dropped image is returned unchanged. Raises ValueError if ``pixels`` have another size.
    """
    rejected = judged.rejected
    if judged.dropped or not rejected.any():
        return judged
    if pixels.shape != candidate.pixels.shape:
        raise ValueError(f"{canvas.uri} has shape {pixels.shape}, its candidate has {candidate.pixels.shape}")
    undone = rejected & candidate.drawn
    own = np.arange(len(rejected)) < len(canvas.annotation)
    where = np.isin(candidate.painted, np.flatnonzero(undone))
    return replace(
        judged,
        pixels=np.where(where[..., None], pixels, candidate.pixels),
        annotation=candidate.annotation.take(~rejected | own),
        restored=undone,
    )
