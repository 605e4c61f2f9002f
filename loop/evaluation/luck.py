"""Training luck: how far the AP of one method moves from training seed to training seed.

A run has too few trainings to estimate this spread alone. Its variance is therefore moderated: combined with one that
was measured on other data sets, each weighted by its degrees of freedom (Smyth, Linear models and empirical Bayes
methods, Statistical Applications in Genetics and Molecular Biology 3(1), 2004, Sec. 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The standard deviation of AP between trainings that differ in their seed alone."""

    sd: float  # of AP as a fraction
    dof: float  # degrees of freedom of the estimate


MAX_DOF = 1000.0  # of a prior: groups that differ no more than by chance
PRIOR = Spread(sd=0.0131, dof=13.9)
"""Measured by ``tests/bench/aa.py prior`` on other data sets than those of a run."""


def moderated(groups: Sequence[Sequence[float]], prior: Spread = PRIOR) -> Spread:
    """The spread behind ``groups``, each of which holds the APs of one method's trainings with different seeds.

    Groups of one training say nothing about it; with these alone, the result is ``prior``.
    """
    squares, dof = within(groups)
    total = prior.dof + dof
    return Spread(sd=((prior.dof * prior.sd**2 + squares) / total) ** 0.5, dof=total)


def estimate_prior(data_sets: Sequence[Sequence[Sequence[float]]]) -> Spread:
    """The prior from ``data_sets``, each with the groups of several methods, which share their spread.

    The variances of the data sets follow ``sd**2`` times an F distribution (Smyth 2004, Sec. 4), here by maximum
    likelihood. ``dof`` is the larger, the less they differ. Raises ValueError for fewer than two data sets.
    """
    from scipy.optimize import minimize
    from scipy.stats import f

    found = [(squares, dof) for squares, dof in map(within, data_sets) if dof]
    if len(found) < 2:
        raise ValueError(f"a prior needs two or more data sets with repeated trainings, not {len(found)}")
    squares, dofs = np.array(found).T
    variances = squares / dofs

    def surprise(logs: NDArray[np.float64]) -> float:
        variance, dof = np.exp(logs)
        return -float(f.logpdf(variances / variance, dofs, dof).sum() - len(found) * logs[0])

    start, bounds = [np.log(variances.mean()), np.log(10)], [(None, None), (0, np.log(MAX_DOF))]
    variance, dof = np.exp(minimize(surprise, start, bounds=bounds).x)
    return Spread(sd=float(variance**0.5), dof=float(dof))


def within(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The sum of squares around the means of the groups, and its degrees of freedom."""
    values = [np.asarray(group, np.float64) for group in groups]
    return sum(float(((one - one.mean()) ** 2).sum()) for one in values), sum(len(one) - 1 for one in values)
