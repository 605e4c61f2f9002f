"""The spread of a round's budget by utility (``mining.policy: utility``), for the report."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from actors.records import Sample
from loop.bandit import Belief, stratum
from loop.state import Mined


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A part of the budget: what was known of its use before the round, and what it got in the round."""

    kind: Literal["instances", "mode"]  # the instances of a class and difficulty, or a hard mode
    name: str  # "class/difficulty", or the mode
    num_candidates: float  # of earlier rounds; one with instances of several kinds counts in part
    mean_utility: float  # as believed, see ``loop.bandit.believe``
    standard_error: float
    given: int  # instances selected in this round, or candidates that this mode was requested of


def spent(mined: Mined, samples: Iterable[Sample]) -> tuple[Spent, ...]:
    """The parts of a round's budget; ``samples`` are all that it judged. () unless it was spread by utility."""
    instances = Counter(stratum(one) for one in mined.instances)
    modes = Counter(sample.lineage.mode for sample in samples)
    classes = [share.name for share in mined.shares]
    of_instances = [
        _spent("instances", f"{classes[label]}/{difficulty}", belief, instances[label, difficulty])
        for (label, difficulty), belief in mined.beliefs.strata
    ]
    return (*of_instances, *(_spent("mode", mode, belief, modes[mode]) for mode, belief in mined.beliefs.modes))


def _spent(kind: Literal["instances", "mode"], name: str, belief: Belief, given: int) -> Spent:
    return Spent(
        kind=kind,
        name=name,
        num_candidates=belief.num_rewards,
        mean_utility=belief.mean,
        standard_error=belief.standard_error,
        given=given,
    )


def budget_metrics(budget: Iterable[Spent]) -> dict[str, float]:
    """The mean utilities by their names in MLflow; none of a part that no candidate told of."""
    prefixes = {"instances": "utility/", "mode": "utility_of_mode/"}
    return {f"{prefixes[one.kind]}{one.name}": one.mean_utility for one in budget if one.num_candidates}


def budget_rows(budget: Sequence[Spent]) -> list[tuple[str, ...]]:
    """The rows of the table on the page."""
    return [
        (
            ", ".join(one.name.rsplit("/", 1)) if one.kind == "instances" else f"hard mode {one.name}",
            f"{one.num_candidates:.1f}".removesuffix(".0"),
            f"{one.mean_utility:.3f} \N{PLUS-MINUS SIGN} {one.standard_error:.3f}".replace("-", "\N{MINUS SIGN}"),
            f"{one.given} {'instance' if one.kind == 'instances' else 'candidate'}{'s' * (one.given != 1)}",
        )
        for one in budget
    ]
