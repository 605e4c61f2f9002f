"""Class-conditional Gaussians with a shared covariance (arXiv 1807.03888, Sec. 2.1), as scores of feature vectors."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

NUM_FOLDS = 5
SHRINKAGE = 0.03 / 1.03  # as if 3 % of the mean variance were added to each variance: features outnumber examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Discriminant:
    """Affine scores: the log-likelihood of each class's Gaussian, up to a term common to all classes.

    The covariance is the shrunk within-class covariance of standardised features. All classes have the same prior,
    however many examples they have. The difference of two scores is the log-likelihood ratio of the two classes.
    """

    weights: Floats  # [num_classes, d]
    bias: Floats  # [num_classes]; -inf for a class without examples

    @classmethod
    def fitted(cls, features: Floats, labels: Labels, num_classes: int) -> "Discriminant":
        """Fit on rows ``[n, d]`` with labels ``[n]`` in [0, num_classes); n is at least 1.

        All classes that occur score 0 if there is only one of them, or if no class has two examples.
        """
        present = np.unique(labels)
        weights, bias = np.zeros((num_classes, features.shape[1])), np.full(num_classes, -np.inf)
        bias[present] = 0.0
        if 1 < len(present) < len(features):
            weights[present], bias[present] = _fit(features, labels)
        return cls(weights=weights, bias=bias)

    def scores(self, features: Floats) -> Floats:
        """Scores ``[n, num_classes]`` of rows ``[n, d]``; those of a row do not depend, to the last bit, on others."""
        rows = [self.weights @ row + self.bias for row in features]
        return np.stack(rows) if rows else np.zeros((0, len(self.bias)))


def cross_fitted(features: Floats, labels: Labels, groups: Sequence[str], num_classes: int) -> Floats:
    """Scores ``[n, num_classes]`` of each row from a discriminant that was fitted without its group.

    Groups, such as the images that crops come from, are assigned in turn to ``NUM_FOLDS`` folds, in the order of their
    names. A class that occurs in one fold only has the score -inf there.
    """
    names, position = np.unique(np.asarray(groups), return_inverse=True)
    folds = position % NUM_FOLDS
    scores = np.full((len(features), num_classes), -np.inf)
    for fold in range(min(NUM_FOLDS, len(names))):
        left_out = folds == fold
        if not left_out.all():
            fitted = Discriminant.fitted(features[~left_out], labels[~left_out], num_classes)
            scores[left_out] = fitted.scores(features[left_out])
    return scores


def margins(scores: Floats, labels: Labels) -> Floats:
    """Margins ``[n]``: each row's score for its own label minus the best other score; -inf where its own is -inf."""
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -np.inf
    own, best = scores[rows, labels], others.max(axis=1, initial=-np.inf)
    return np.where(np.isneginf(own), -np.inf, own - best)


def _fit(features: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Weights ``[k, d]`` and bias ``[k]`` of the ``k`` classes that occur; k is at least 2."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Only one sample")  # such a class does not contribute to the covariance
        lda.fit(scaler.transform(features), labels)
    weights, bias = lda.coef_ / scaler.scale_, lda.intercept_
    if len(weights) == 1:  # for two classes, scikit-learn gives only the difference of the second to the first
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return weights, bias - np.log(lda.priors_) - weights @ scaler.mean_
