"""Paired bootstrap of the gain over the validation images.

Both arms are measured on the same resampled images, so that the difficulty of an image cancels out. Percentile
interval: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loop.evaluation.coco import RECALLS, ClassMatches, Evaluation

EPSILON = np.spacing(1)  # pycocotools adds it to the denominator of precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """AP of the loop minus AP of the control, as a fraction, with its 95 % percentile interval."""

    value: float
    low: float
    high: float


def gain(loop: Evaluation, control: Evaluation, draws: int, seed: int) -> Gain:
    """The gain in AP, with an interval from ``draws`` resamplings of the images, the same for both arms.

    A class without ground truth in a resampling is excluded from its mean, as in COCO. A resampling without any ground
    truth is excluded from the interval. The interval covers the choice of validation images, not that of training
    seeds. Raises ValueError if the arms were measured on different images.
    """
    if loop.image_ids != control.image_ids:
        raise ValueError("loop and control were evaluated on different images; evaluate both on the same ones")
    num_images = len(loop.image_ids)
    times = np.random.default_rng(seed).multinomial(num_images, [1 / num_images] * num_images, size=draws)
    differences = average_precision(loop, times) - average_precision(control, times)
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    return Gain(value=loop.metrics["AP"] - control.metrics["AP"], low=float(low), high=float(high))


def average_precision(evaluation: Evaluation, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP ``[draws]`` of pycocotools for sets that contain image i ``times[draw, i]`` times.

    NaN for a draw without ground truth. The order of detections with equal scores in one image may differ.
    """
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
