"""The budget by utility: Thompson sampling with Gaussian priors (Agrawal and Goyal, arXiv 1209.3353).

Thompson sampling (Thompson 1933) draws a value from the belief of each arm and takes the arm with the highest one. An
arm is thus taken as often as it is believed to be the best. There are two kinds of arms: strata, which are the
instances of a class and a difficulty, and the generator's hard modes. The reward of an arm is the utility of the
candidates that it led to in earlier rounds of the run, as the filter ``utility`` measured it, and 0 for those that
another filter dropped before: they brought nothing.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import TypeVar

import numpy as np

from actors.records import Difficulty, Instance, Sample
from actors.seeds import derive_seed
from loop.selection import score

FILTER = "utility"
"""Kind of the filter whose scores are the rewards."""

Stratum = tuple[int, Difficulty]
"""Class index and difficulty."""

Arm = TypeVar("Arm", Stratum, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What one candidate says of one of its arms."""

    utility: float
    weight: float  # share of the candidate's instances that belong to the arm, in (0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """The normal distribution that stands for the mean utility of an arm's candidates."""

    mean: float
    standard_error: float
    num_rewards: float  # candidates; one that shows instances of several strata counts in part for each


@dataclass(frozen=True, slots=True, kw_only=True)
class Beliefs:
    """What is believed of all arms at the start of a round, in the order of the arms."""

    strata: tuple[tuple[Stratum, Belief], ...] = ()
    modes: tuple[tuple[str, Belief], ...] = ()


UNKNOWN = Beliefs()
"""No arms: the budget is not spread by utility."""

Past = Iterable[tuple[Sequence[Instance], Sequence[Sample]]]
"""The mined instances and all judged samples of earlier rounds."""


def learn(found: Iterable[Instance], modes: Iterable[str], past: Past) -> Beliefs:
    """The beliefs from the rounds ``past``, on the strata of ``found`` and on ``modes``.

    A candidate counts for the difficulties that its instances had in its own round. One for which no mode was requested
    counts for no mode.
    """
    strata: dict[Stratum, list[Reward]] = {stratum(one): [] for one in found}
    by_mode: dict[str, list[Reward]] = {mode: [] for mode in modes}
    for mined, samples in past:
        known = {(one.image_id, one.index): stratum(one) for one in mined}
        for sample in samples:
            lineage, reached = sample.lineage, utility(sample)
            weight = 1 / len(lineage.box_indices)
            for index in lineage.box_indices:
                reward = Reward(utility=reached, weight=weight)
                strata.setdefault(known[lineage.image_id, index], []).append(reward)
            if lineage.mode:
                by_mode.setdefault(lineage.mode, []).append(Reward(utility=reached, weight=1.0))
    return Beliefs(strata=tuple(believe(strata).items()), modes=tuple(believe(by_mode).items()))


def stratum(instance: Instance) -> Stratum:
    """The stratum of a mined instance."""
    return instance.label, instance.difficulty


def utility(sample: Sample) -> float:
    """The score of ``sample`` by the filter ``utility``, whether kept or dropped; 0 if it was dropped before."""
    found = score(sample, FILTER)
    return found if isfinite(found) else 0.0


def believe(rewards: Mapping[Arm, Sequence[Reward]]) -> dict[Arm, Belief]:
    """The beliefs from the rewards of each arm, in the order of the arms.

    The prior counts as one reward: its value is the mean of all rewards, and its spread their standard deviation around
    it, which all arms share. After rewards of weight k, the standard error is the spread / sqrt(k + 1). An arm without
    rewards keeps the prior. Until two rewards differ, the spread is 1, the utility of a step on the real images.
    """
    every = [(one.utility, one.weight) for found in rewards.values() for one in found]
    values, weights = np.array(every, np.float64).reshape(-1, 2).T
    prior = float(np.average(values, weights=weights)) if every else 0.0
    differs = len(set(values.tolist())) > 1
    spread = float(np.sqrt(np.average((values - prior) ** 2, weights=weights))) if differs else 1.0
    return {arm: _belief(rewards[arm], prior, spread) for arm in sorted(rewards)}


def _belief(rewards: Sequence[Reward], prior: float, spread: float) -> Belief:
    num = sum(one.weight for one in rewards)
    return Belief(
        mean=(prior + sum(one.utility * one.weight for one in rewards)) / (1 + num),
        standard_error=spread / float(np.sqrt(1 + num)),
        num_rewards=num,
    )


def choose(
    hardest_first: Iterable[Instance], strata: Mapping[Stratum, Belief], budget: int, seed: int
) -> tuple[Instance, ...]:
    """At most ``budget`` instances: for each, the strata that have instances left draw; the hardest of the best goes.

    Depends on ``seed`` alone for its draws. Raises KeyError if an instance belongs to none of ``strata``.
    """
    left: defaultdict[Stratum, deque[Instance]] = defaultdict(deque)
    for one in hardest_first:
        left[stratum(one)].append(one)
    rng, taken = np.random.default_rng(derive_seed(seed, "budget")), list[Instance]()
    while left and len(taken) < budget:
        best = draw({arm: strata[arm] for arm in sorted(left)}, rng)
        taken.append(left[best].popleft())
        if not left[best]:
            del left[best]
    return tuple(taken)


def mode_of(modes: Mapping[str, Belief], seed: int) -> str:
    """The mode that is requested of the candidate with this ``seed``; empty if the generator has none."""
    return draw(modes, np.random.default_rng(derive_seed(seed, "mode"))) if modes else ""


def draw(beliefs: Mapping[Arm, Belief], rng: np.random.Generator) -> Arm:
    """The arm with the highest of the values that are drawn, one from each belief. There has to be an arm."""
    means, errors = ([getattr(one, name) for one in beliefs.values()] for name in ("mean", "standard_error"))
    best = int(rng.normal(means, errors).argmax())
    return next(islice(beliefs, best, None))
