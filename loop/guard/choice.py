"""The rule of the guard: take what is better than the control on images that none of the detectors has seen.

A detector is taken if its AP exceeds the control's by more than one standard error of the difference. Among several,
that with the highest AP is taken; if there is none, the control. The control is also taken if the pool does harm, that
is if the 95 % interval of the loop's own detector lies below it. Averaging weights often helps by itself, so that a
blend may exceed the control even then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.records import Detections, LabeledImage
from loop.evaluation.bootstrap import CONFIDENCE, average_precision, resamplings
from loop.evaluation.coco import evaluate

CONTROL, LOOP = 0.0, 1.0
"""The loop's share in the weights of the control and of the loop's own detector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A detector that the guard can choose, and its AP on the held-back training images."""

    name: str  # control, loop, or blend and the loop's share
    share: float  # of the loop's detector in its weights
    ap: float
    difference: float  # ap minus that of the control
    difference_ci95: tuple[float, float]  # 95 % interval over the choice of images
    standard_error: float  # of the difference, likewise


def name_of(share: float) -> str:
    """The name of the detector with this share of the loop's weights."""
    return {CONTROL: "control", LOOP: "loop"}.get(share, f"blend {share:g}")


def compare(
    truth: Sequence[LabeledImage],
    seen: Mapping[float, Mapping[str, Detections]],
    classes: Sequence[str],
    draws: int,
    seed: int,
) -> tuple[Tried, ...]:
    """Measure detectors on the same images, by paired bootstrap over the images. The control comes first.

    ``seen`` holds the detections by image id for each share of the loop's weights, that of ``CONTROL`` included.
    """
    times = resamplings(len(truth), draws, seed)
    found = {share: evaluate(truth, detections, classes) for share, detections in seen.items()}
    each = {share: (one.metrics["AP"], average_precision(one, times)) for share, one in found.items()}
    return tuple(_tried(share, each[share], each[CONTROL]) for share in sorted(each))


def _tried(share: float, own: tuple[float, NDArray[np.float64]], control: tuple[float, NDArray[np.float64]]) -> Tried:
    differences = own[1] - control[1]
    known = differences[~np.isnan(differences)]  # a resampling without any box tells nothing
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Tried(
        name=name_of(share),
        share=share,
        ap=own[0],
        difference=own[0] - control[0],
        difference_ci95=(float(low), float(high)),
        standard_error=float(known.std()),
    )


def choose(tried: Sequence[Tried]) -> Tried:
    """The detector to take, see the top of this file. The first of ``tried`` is the control, the last the loop's."""
    control, *others = tried
    if does_harm(tried):
        return control
    better = [one for one in others if one.difference > one.standard_error]
    return max(better, key=lambda one: one.ap, default=control)


def does_harm(tried: Sequence[Tried]) -> bool:
    """Whether the pool makes the detector worse: the 95 % interval of the loop's own one lies below the control."""
    return tried[-1].difference_ci95[1] < 0
