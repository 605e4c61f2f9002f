"""The gain of the loop over its control, and its interval.

The interval covers two choices. That of the validation images: both arms are measured on the same resampled images, so
that the difficulty of an image cancels out (percentile bootstrap: Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13). And that of the training seeds: the spread between trainings with different seeds, see
``loop.evaluation.luck``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loop.evaluation.coco import RECALLS, ClassMatches, Evaluation
from loop.evaluation.luck import PRIOR, Spread, moderated

EPSILON = np.spacing(1)  # pycocotools adds it to the denominator of precision


CONFIDENCE = 0.95
MAX_CELLS = 4_000_000  # of an array: resamplings are computed in blocks of at most 32 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """AP of the loop minus AP of the control, as a fraction, with its 95 % interval."""

    value: float  # both APs are means over the training seeds
    low: float
    high: float
    training_sd: float  # estimated spread of AP between trainings with different seeds

    def of_control(self) -> "Gain":
        """The gain where both arms are the same detectors: exactly zero, and so is its interval."""
        return replace(self, value=0.0, low=0.0, high=0.0)


def gain(
    loop: Sequence[Evaluation], control: Sequence[Evaluation], draws: int, seed: int, prior: Spread = PRIOR
) -> Gain:
    """The gain in AP of the trainings of the loop over those of the control, one for each training seed.

    The interval is that of the sum of two independent errors: the bootstrap distribution of the mean difference over
    ``draws`` resamplings of the images, and Student's t with the moderated spread between seeds. The part of the spread
    that depends on the images is in both, so the interval is rather too wide than too narrow.

    A class without ground truth in a resampling is excluded from its mean, as in COCO. A resampling without any ground
    truth is excluded. Raises ValueError if the trainings were measured on different images.
    """
    image_ids = loop[0].image_ids
    if any(one.image_ids != image_ids for one in (*loop, *control)):
        raise ValueError("loop and control were evaluated on different images; evaluate both on the same ones")
    times = resamplings(len(image_ids), draws, seed)
    arms = [[(one.metrics["AP"], average_precision(one, times)) for one in arm] for arm in (loop, control)]
    return gain_of(arms[0], arms[1], prior)


def resamplings(num_images: int, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each resampling contains each image, ``[draws, num_images]``."""
    return np.random.default_rng(seed).multinomial(num_images, [1 / num_images] * num_images, size=draws)


Measurement = tuple[float, NDArray[np.float64]]
"""AP of a training, and its AP in each resampling ``[draws]``."""


def gain_of(loop: Sequence[Measurement], control: Sequence[Measurement], prior: Spread = PRIOR) -> Gain:
    """See ``gain``."""
    spread = moderated([[ap for ap, _ in arm] for arm in (loop, control)], prior)
    scale = spread.sd * (1 / len(loop) + 1 / len(control)) ** 0.5
    value = np.mean([ap for ap, _ in loop]) - np.mean([ap for ap, _ in control])
    differences = np.mean([draws for _, draws in loop], axis=0) - np.mean([draws for _, draws in control], axis=0)
    low, high = sum_interval(differences[~np.isnan(differences)], scale, spread.dof)
    return Gain(value=float(value), low=low, high=high, training_sd=spread.sd)


def sum_interval(values: NDArray[np.float64], scale: float, dof: float) -> tuple[float, float]:
    """95 % interval of a value drawn from ``values`` ``[n]`` plus ``scale`` times Student's t."""
    from scipy.optimize import brentq
    from scipy.stats import t

    def quantile(share: float) -> float:
        middle = scale * t.ppf(share, dof)
        ends = (values.min() + middle - scale, values.max() + middle + scale)
        return float(brentq(lambda x: t.cdf((x - values) / scale, dof).mean() - share, *ends))

    return quantile((1 - CONFIDENCE) / 2), quantile((1 + CONFIDENCE) / 2)


def average_precision(evaluation: Evaluation, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP ``[draws]`` of pycocotools for sets that contain image i ``times[draw, i]`` times.

    NaN for a draw without ground truth. The order of detections with equal scores in one image may differ.
    """
    num_columns = max(times.shape[1], *(int(one.hit.sum(axis=1).max(initial=0)) for one in evaluation.matches), 1)
    num_rows = max(MAX_CELLS // num_columns, 2)  # numpy sums the columns of a single row in another order
    blocks = np.array_split(times, max(len(times) // num_rows, 1))
    return np.concatenate([_of_draws(evaluation, block) for block in blocks])


def _of_draws(evaluation: Evaluation, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """See ``average_precision``."""
    weights = times.astype(np.float64)
    classes = np.stack([_of_class(matches, weights) for matches in evaluation.matches])  # [classes, draws]
    present = ~np.isnan(classes)
    total, count = np.where(present, classes, 0.0).sum(axis=0), present.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(len(times), np.nan), where=count > 0))


def _of_class(matches: ClassMatches, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """AP ``[draws]`` of one class, averaged over the IoU thresholds; NaN for a draw without boxes of the class."""
    positives = weights @ matches.positives.astype(np.float64)
    known = positives > 0
    values = np.full(len(weights), np.nan)
    at_thresholds = [
        _at_threshold(matches.image, hit, counted, weights[known], positives[known])
        for hit, counted in zip(matches.hit, matches.counted, strict=True)
    ]
    values[known] = np.mean(at_thresholds, axis=0)
    return values


def _at_threshold(
    image: NDArray[np.int64],
    hit: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    weights: NDArray[np.float64],
    positives: NDArray[np.float64],
) -> NDArray[np.float64]:
    """AP ``[draws]`` interpolated at 101 recalls, from detections ``[m]`` and image weights ``[draws, images]``.

    Only the precision at hits matters: between hits it falls, and interpolation takes the maximum to the right. So
    false alarms are summed from hit to hit, and the arrays have a column per hit rather than per detection.
    """
    from scipy.sparse import coo_array

    num_hits = int(hit.sum())
    if num_hits == 0:
        return np.zeros(len(weights))
    next_hit = np.concatenate([[0], np.cumsum(hit)[:-1]])  # index of the hit at or after each detection
    useful = counted & (next_hit < num_hits)
    cells = (np.ones(useful.sum()), (image[useful], next_hit[useful]))
    between = weights @ coo_array(cells, shape=(weights.shape[1], num_hits)).tocsr()
    hits = np.cumsum(weights[:, image[hit]], axis=1)
    precision = hits / (np.cumsum(between, axis=1) + EPSILON)
    best_to_the_right = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, hits / positives[:, None], side="right")  # recall points up to each hit
    return np.asarray((best_to_the_right * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS))
