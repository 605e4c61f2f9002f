"""Fidelity of generated pictures: YOLO score (arXiv 2403.13304), FID (1706.08500), precision and recall (1904.06991).

All but the YOLO score compare features ``[n, d]`` of any network, one row per picture. A distance has no meaning by
itself: compare it with that of real pictures, with the same features and the same number of pictures.
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
COPY_QUANTILE = 0.01  # of the distances between real pictures; a picture nearer to a real one looks like a copy
MAX_DISTANCES = 10_000_000  # in memory at a time


def yolo_scores(
    samples: Sequence[Sample], classes: Sequence[str], groups: Mapping[str, str] | None = None
) -> dict[str, float]:
    """The metrics ``yolo_score`` (AP) and ``yolo_score_AP50``, and the same for drawn boxes as ``yolo_score_drawn``.

    ``groups`` maps sample ids to groups, for example to strategies. Each group has its own ``yolo_score/<group>``, and
    so on. A score without boxes that count is left out.
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
    """COCO metrics of the round's detector on its candidates, against the requested layouts.

    All candidates with a picture count, kept or dropped, with the detections of ``inspect``. Real boxes that were not
    redrawn raise the score; with ``drawn_only`` they are ignored like COCO's crowds. Unlike in the papers, boxes of all
    sizes count, and the detector is the round's own. None if no box counts.
    """
    drawn = [sample for sample in samples if sample.uri]
    layouts = [layout(sample, drawn_only=drawn_only) for sample in drawn]
    if all(one.annotation.ignore.all() for one in layouts):
        return None
    return evaluate(layouts, {sample.id: sample.seen for sample in drawn}, classes)


def layout(sample: Sample, *, drawn_only: bool = False) -> LabeledImage:
    """The picture as drawn and the requested layout as its ground truth.

    With ``drawn_only``, boxes that were not drawn are ignored.
    """
    proposed = sample.proposed
    ignore = proposed.ignore | ~sample.drawn if drawn_only else proposed.ignore
    annotation = Annotation(boxes=proposed.boxes, labels=proposed.labels, ignore=ignore)
    return LabeledImage(
        id=sample.id, uri=sample.as_drawn, width=sample.width, height=sample.height, annotation=annotation
    )


def frechet_distance(first: Features, second: Features) -> float:
    """Squared Frechet distance of two Gaussians with the means and covariances of ``[n, d]`` and ``[m, d]``.

    With features of InceptionV3's last pooling layer this is FID (arXiv 1706.08500, Eq. 6); do not call it FID with
    other features. The trace of the covariances' root is computed as a sum of singular values, without regularisation,
    and there may be fewer pictures than features. Few pictures bias the distance upwards (arXiv 1911.07023), so compare
    only distances of equal numbers of pictures. A single outlier can dominate it. Raises ValueError for fewer than two
    rows, or rows of different widths.
    """
    _check(first, second, 2)
    means = first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)
    roots = _root(first), _root(second)
    overlap = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum((root**2).sum() for root in roots)
    return max(float((means**2).sum() + spread - 2 * overlap), 0.0)


def _root(features: Features) -> Floats:
    """R ``[min(n, d), d]`` such that R^T R is the covariance."""
    rows = features.astype(np.float64)
    return np.asarray(np.linalg.qr((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1), mode="r"))


def precision_recall(real: Features, drawn: Features) -> tuple[float, float]:
    """Precision and recall of drawn pictures with respect to real ones (arXiv 1904.06991, Sec. 2).

    Precision is the share of drawn pictures in the manifold of the real ones, and recall the converse. A picture is in
    a manifold if its distance to one of the pictures there is at most that picture's distance to its third nearest
    neighbour. Use equal numbers of both: recall grows with the number of drawn ones. Raises ValueError for fewer than
    four of either.
    """
    _check(real, drawn, MIN_PICTURES)
    return _share_among(drawn, real), _share_among(real, drawn)


def _share_among(features: Features, others: Features) -> float:
    radii = _to_neighbour(others, NUM_NEIGHBOURS)
    inside = [(part <= radii).any(axis=1) for part in _distances(features, others)]
    return float(np.concatenate(inside).mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearness:
    """Distances from drawn pictures to real ones, and between real ones."""

    drawn: Floats  # [m] from each drawn picture to the nearest real one
    real: Floats  # [n] from each real picture to the nearest other one

    def figures(self) -> dict[str, float]:
        """``nearest_ratio``: median of drawn over median of real; ``copied_frac``: drawn ones that look like copies.

        Pictures of the same distribution as the real ones have a ratio of about 1 and a share of about 0.01. There is
        no ratio if most real pictures have an exact duplicate.
        """
        usual = float(np.median(self.real))
        ratio = {"nearest_ratio": float(np.median(self.drawn)) / usual} if usual > 0 else {}
        return {**ratio, "copied_frac": float((self.drawn < np.quantile(self.real, COPY_QUANTILE)).mean())}


def nearness(real: Features, drawn: Features) -> Nearness:
    """Distances to the nearest real picture; copies of a real one have 0.

    Raises ValueError for fewer than two real pictures, or no drawn one.
    """
    _check(real, drawn, 1)
    if len(real) < 2:
        raise ValueError("nearness needs at least two real pictures, not one")
    nearest = [part.min(axis=1) for part in _distances(drawn, real)]
    return Nearness(drawn=np.concatenate(nearest), real=_to_neighbour(real, 1))


def _to_neighbour(features: Features, number: int) -> Floats:
    """The distance ``[n]`` of each row to its ``number``-th nearest other row, from 1."""
    return np.concatenate([np.partition(part, number, axis=1)[:, number] for part in _distances(features, features)])


def _distances(features: Features, others: Features) -> Iterator[Floats]:
    """Euclidean distances ``[n, m]``, in blocks of rows; exactly 0 between equal rows."""
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
            raise ValueError("features are not finite; check the network that computes them")


def some(features: Features, num_wanted: int, seed: int) -> Features:
    """``num_wanted`` of the rows ``[n, d]``, chosen by ``seed``; all of them if there are no more."""
    if len(features) <= num_wanted:
        return features
    chosen = np.random.default_rng(seed).choice(len(features), num_wanted, replace=False)
    return features[np.sort(chosen)]


def compare(real: Features, held_out: Features, drawn: Features, seed: int) -> dict[str, float]:
    """Compare drawn pictures with the real ones ``[n, d]`` behind them; held-out real pictures are the reference.

    The features are a detector's, hence the name ``frechet_detector``. Precision and recall use equal numbers of drawn
    and real pictures, chosen by ``seed``. Raises ValueError for fewer than four of a kind.
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
    """The Frechet distances of drawn and of held-out pictures to the real ones, in equal numbers chosen by ``seed``."""
    num_compared = min(len(drawn), len(held_out))
    of_drawn, of_held_out = (frechet_distance(real, some(one, num_compared, seed)) for one in (drawn, held_out))
    return of_drawn, of_held_out
