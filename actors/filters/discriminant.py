"""Class Gaussians with one covariance (arXiv 1807.03888, Sec. 2.1): how well each class explains a feature vector."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

NUM_FOLDS = 5
SHRINKAGE = 0.03 / 1.03  # as if 3 % of the mean variance were added to each: features outnumber examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Discriminant:
    """Affine scores: the log-likelihood of each class's Gaussian, less what they have in common.

    The covariance is that within the classes, of standardised features, shrunk. Classes count alike, however many
    examples they have. The difference of two scores is the log of how much likelier one class is than the other.
    """

    weights: Floats  # [num_classes, d]
    bias: Floats  # [num_classes]; -inf for a class without examples

    @classmethod
    def fitted(cls, features: Floats, labels: Labels, num_classes: int) -> "Discriminant":
        """Fit rows ``[n, d]`` and their labels ``[n]`` in [0, num_classes); n is at least 1.

        Classes that occur score alike where there is only one of them, or no class has two examples.
        """
        present = np.unique(labels)
        weights, bias = np.zeros((num_classes, features.shape[1])), np.full(num_classes, -np.inf)
        bias[present] = 0.0
        if 1 < len(present) < len(features):
            weights[present], bias[present] = _fit(features, labels)
        return cls(weights=weights, bias=bias)

    def scores(self, features: Floats) -> Floats:
        """``[n, num_classes]`` of rows ``[n, d]``; a row's scores do not depend, to the last bit, on the others."""
        rows = [self.weights @ row + self.bias for row in features]
        return np.stack(rows) if rows else np.zeros((0, len(self.bias)))


def cross_fitted(features: Floats, labels: Labels, groups: Sequence[str], num_classes: int) -> Floats:
    """Scores ``[n, num_classes]`` of each row by a discriminant that was fitted without its group.

    Groups, such as the images that crops come from, are dealt out to ``NUM_FOLDS`` folds in the order of their names.
    A class that occurs in one fold alone has the score -inf there.
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
    """``[n]``: each row's score for its own label, less its best score for another; -inf where its own is -inf."""
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -np.inf
    own, best = scores[rows, labels], others.max(axis=1, initial=-np.inf)
    return np.where(np.isneginf(own), -np.inf, own - best)


def _fit(features: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Weights ``[k, d]`` and bias ``[k]`` of the ``k`` classes that occur, at least two."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Only one sample")  # such a class adds nothing to the spread of all
        lda.fit(scaler.transform(features), labels)
    weights, bias = lda.coef_ / scaler.scale_, lda.intercept_
    if len(weights) == 1:  # of two classes, scikit-learn gives the second's lead over the first
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return weights, bias - np.log(lda.priors_) - weights @ scaler.mean_
