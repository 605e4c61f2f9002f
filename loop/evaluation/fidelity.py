"""Fidelity of drawn pictures: YOLO score (arXiv 2403.13304), FID (1706.08500), precision and recall (1904.06991).

All but the YOLO score compare features ``[n, d]``, a row a picture, of any network. Distances say nothing by
themselves: hold them against those of real pictures, in the same features and at the same numbers of pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.records import Annotation, LabeledImage, Sample
from loop.evaluation.coco import Evaluation, evaluate

Floats = NDArray[np.float64]
Features = NDArray[np.floating[Any]]

NUM_NEIGHBOURS = 3  # k of the manifolds (arXiv 1904.06991, Sec. 2.1)
MIN_PICTURES = NUM_NEIGHBOURS + 1  # of each kind
COPY_QUANTILE = 0.01  # of the distances of real pictures to each other: what is nearer than that looks like a copy
MAX_DISTANCES = 10_000_000  # in memory at a time


def yolo_scores(
    samples: Sequence[Sample], classes: Sequence[str], groups: Mapping[str, str] | None = None
) -> dict[str, float]:
    """The YOLO score in figures: ``yolo_score`` (AP), ``yolo_score_AP50``, both again as ``yolo_score_drawn``.

    ``groups`` names the group of a sample by its id, its strategy, say: each group has its own
    ``yolo_score/<group>``, and so on. A score that nothing counts for is left out.
    """
    groups = groups or {}
    names = sorted({groups[sample.id] for sample in samples if sample.id in groups})
    parts = {f"/{name}": [sample for sample in samples if groups.get(sample.id) == name] for name in names}
    whole = _scores(samples, classes)
    figures = dict(whole)
    for suffix, members in parts.items():
        scores = whole if len(members) == len(samples) else _scores(members, classes)  # most rounds have one group
        figures |= {f"{key}{suffix}": score for key, score in scores.items()}
    return figures


def _scores(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for key, drawn_only in (("yolo_score", False), ("yolo_score_drawn", True)):
        measured = yolo_score(samples, classes, drawn_only=drawn_only)
        if measured is not None:
            figures |= {key: measured.metrics["AP"], f"{key}_AP50": measured.metrics["AP50"]}
    return figures


def yolo_score(samples: Sequence[Sample], classes: Sequence[str], *, drawn_only: bool = False) -> Evaluation | None:
    """COCO metrics of the detector of the round on its candidates against the layouts that were asked for.

    All candidates that became a picture count, whatever the filters said of them, with what ``inspect`` saw. Where
    real boxes were left as they were, these flatter: with ``drawn_only`` they are ignored like COCO's crowds. Unlike in
    the papers, boxes of all sizes count, and the detector is the round's own. None where there is no box that counts.
    """
    drawn = [sample for sample in samples if sample.uri]
    layouts = [layout(sample, drawn_only=drawn_only) for sample in drawn]
    if all(one.annotation.ignore.all() for one in layouts):
        return None
    return evaluate(layouts, {sample.id: sample.seen for sample in drawn}, classes)


def layout(sample: Sample, *, drawn_only: bool = False) -> LabeledImage:
    """The layout that was asked for, as ground truth; with ``drawn_only``, boxes that were not drawn are ignored."""
    proposed = sample.proposed
    ignore = proposed.ignore | ~sample.drawn if drawn_only else proposed.ignore
    annotation = Annotation(boxes=proposed.boxes, labels=proposed.labels, ignore=ignore)
    return LabeledImage(id=sample.id, uri=sample.uri, width=sample.width, height=sample.height, annotation=annotation)


def frechet_distance(first: Features, second: Features) -> float:
    """Squared Frechet distance of two Gaussians that have the means and covariances of ``[n, d]`` and ``[m, d]``.

    With features of InceptionV3's last pooling layer this is FID (arXiv 1706.08500, Eq. 6); with others, never call it
    so. The trace of the covariances' root is a sum of singular values, so nothing is regularised, and covariances of
    fewer pictures than features will do. But few pictures bias it upwards (arXiv 1911.07023), so compare distances at
    equal numbers only, and one picture that is far from all others can outweigh the rest. Raises ValueError on fewer
    than two rows, or rows that do not go together.
    """
    _check(first, second, 2)
    means = first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)
    roots = _root(first), _root(second)
    overlap = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum((root**2).sum() for root in roots)
    return max(float((means**2).sum() + spread - 2 * overlap), 0.0)


def _root(features: Features) -> Floats:
    """R ``[min(n, d), d]``, for which R^T R is the covariance."""
    rows = features.astype(np.float64)
    return np.asarray(np.linalg.qr((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1), mode="r"))


def precision_recall(real: Features, drawn: Features) -> tuple[float, float]:
    """The share of drawn pictures among the real ones, and of real ones among the drawn (arXiv 1904.06991, Sec. 2).

    A picture is among others if it lies within the distance that one of them has to its third nearest. Give equal
    numbers of both: recall grows with the number of drawn ones. Raises ValueError on fewer than four of either.
    """
    _check(real, drawn, MIN_PICTURES)
    return _share_among(drawn, real), _share_among(real, drawn)


def _share_among(features: Features, others: Features) -> float:
    radii = _to_neighbour(others, NUM_NEIGHBOURS)
    inside = [(part <= radii).any(axis=1) for part in _distances(features, others)]
    return float(np.concatenate(inside).mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearness:
    """How near drawn pictures come to the real ones, and those to each other."""

    drawn: Floats  # [m] distance of each drawn picture to the nearest real one
    real: Floats  # [n] distance of each real picture to the nearest other one

    def figures(self) -> dict[str, float]:
        """``nearest_ratio``: of the medians, drawn to real; ``copied_frac``: drawn ones as near as hardly any real one.

        Pictures from where the real ones come from have a ratio of about 1 and a fraction of about 0.01. There is no
        ratio where most real pictures have an exact double.
        """
        usual = float(np.median(self.real))
        ratio = {"nearest_ratio": float(np.median(self.drawn)) / usual} if usual > 0 else {}
        return {**ratio, "copied_frac": float((self.drawn < np.quantile(self.real, COPY_QUANTILE)).mean())}


def nearness(real: Features, drawn: Features) -> Nearness:
    """Distances to the nearest real picture; copies of a real one have 0.

    Raises ValueError on fewer than two real ones or none that is drawn.
    """
    _check(real, drawn, 1)
    if len(real) < 2:
        raise ValueError("nearness: one real picture has no other to be near to; at least two are needed")
    nearest = [part.min(axis=1) for part in _distances(drawn, real)]
    return Nearness(drawn=np.concatenate(nearest), real=_to_neighbour(real, 1))


def _to_neighbour(features: Features, number: int) -> Floats:
    """``[n]``: the distance of each row to its nearest other row, its second nearest, ..."""
    return np.concatenate([np.partition(part, number, axis=1)[:, number] for part in _distances(features, features)])


def _distances(features: Features, others: Features) -> Iterator[Floats]:
    """Euclidean distances ``[n, m]``, some rows at a time; exactly 0 between equal rows."""
    from scipy.spatial.distance import cdist

    num_rows = max(MAX_DISTANCES // len(others), 1)
    for start in range(0, len(features), num_rows):
        yield np.asarray(cdist(features[start : start + num_rows], others))


def _check(first: Features, second: Features, num_needed: int) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features must be [n, d] and [m, d], not {first.shape} and {second.shape}")
    if min(len(first), len(second)) < num_needed:
        raise ValueError(f"{len(first)} and {len(second)} pictures to compare; at least {num_needed} each are needed")
    for features in (first, second):
        if not np.isfinite(features).all():
            raise ValueError("features hold numbers that are not finite; the network that gave them is broken")


def some(features: Features, num_wanted: int, seed: int) -> Features:
    """``num_wanted`` of the rows ``[n, d]``, chosen by ``seed``; all of them where there are no more."""
    if len(features) <= num_wanted:
        return features
    chosen = np.random.default_rng(seed).choice(len(features), num_wanted, replace=False)
    return features[np.sort(chosen)]


def compare(real: Features, held_out: Features, drawn: Features, seed: int) -> dict[str, float]:
    """Drawn pictures against the real ones ``[n, d]`` they were drawn after; held-out real ones give the yardstick.

    Features are a detector's, and ``frechet_detector`` is named after that. Precision and recall are measured with as
    many drawn as real pictures; ``seed`` chooses which. Raises ValueError on fewer than four of a kind.
    """
    num_each = min(len(drawn), len(real))
    precision, recall = precision_recall(some(real, num_each, seed), some(drawn, num_each, seed))
    of_drawn, of_held_out = frechet(real, held_out, drawn, seed)
    return {
        "frechet_detector": of_drawn,
        "frechet_detector_val": of_held_out,
        "precision": precision,
        "recall": recall,
        **nearness(real, drawn).figures(),
        "num_real": len(real),
        "num_drawn": len(drawn),
        "num_compared": min(len(drawn), len(held_out)),  # with the real ones, by Frechet distance
    }


def frechet(real: Features, held_out: Features, drawn: Features, seed: int) -> tuple[float, float]:
    """The distances from the real pictures of those drawn, and of as many held-out ones; ``seed`` chooses which."""
    num_compared = min(len(drawn), len(held_out))
    of_drawn, of_held_out = (frechet_distance(real, some(one, num_compared, seed)) for one in (drawn, held_out))
    return of_drawn, of_held_out
