"""Selection: which of the pictures that the filters keep join the pool, if a round draws more than it is to keep."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from actors.records import Sample
from actors.seeds import derive_seed

RANDOM: Final = "random"
NOT_SELECTED: Final = "generation: not_selected"
"""Reason for dropping a picture that the filters kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A picture that may join the pool."""

    id: str
    score: float  # the higher, the better
    label: int  # class index
    origins: tuple[str, ...]  # ids of its canvas and of the image with its mined instances


def entrants(samples: Iterable[Sample], by: str) -> list[Entrant]:
    """The samples that the filters kept, with their scores by the filter ``by``, or random ones.

    The score is the mean over the filter's verdicts; a picture that it did not judge ranks last. A picture with drawn
    boxes of several classes counts for the one that is rarest among all.
    """
    kept = [sample for sample in samples if sample.dropped in {"", NOT_SELECTED}]
    labels = {sample.id: sample.proposed.labels[sample.drawn].tolist() for sample in kept}
    frequency = Counter(label for found in labels.values() for label in found)
    return [
        Entrant(
            id=sample.id,
            score=score(sample, by),
            label=min(labels[sample.id], key=lambda label: (frequency[label], label), default=-1),
            origins=tuple(sorted({sample.canvas, sample.lineage.image_id} - {""})),
        )
        for sample in kept
    ]


def score(sample: Sample, by: str) -> float:
    """The mean score of a sample by a filter; minus infinity without a verdict. For ``RANDOM``, a random number."""
    if by == RANDOM:
        return float(derive_seed("select", sample.id))
    scores = [verdict.score for verdict in sample.verdicts if verdict.filter == by]
    return fmean(scores) if scores else float("-inf")


def select(found: Sequence[Entrant], number: int) -> frozenset[str]:
    """The ids of the ``number`` pictures that join the pool; of all if there are no more.

    Each class keeps its share of the pictures. Within a class the best are taken in turns: in turn t, those whose
    canvas and source have been taken fewer than t times, so that one easy place does not fill the pool.
    """
    if len(found) <= number:
        return frozenset(one.id for one in found)
    by_class: defaultdict[int, list[Entrant]] = defaultdict(list)
    for one in found:
        by_class[one.label].append(one)
    quotas = _quotas({label: len(group) for label, group in by_class.items()}, number)
    return frozenset(name for label, group in by_class.items() for name in _in_turns(group, quotas[label]))


def _quotas(sizes: Mapping[int, int], number: int) -> dict[int, int]:
    """``number`` in proportion to ``sizes``, by largest remainder."""
    exact = {label: number * size / sum(sizes.values()) for label, size in sizes.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], label))
    for label in by_remainder[: number - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _in_turns(group: Iterable[Entrant], number: int) -> list[str]:
    """The ids of at most ``number`` of a class's pictures, in the order in which they are taken."""
    left, taken, uses, turn = sorted(group, key=lambda one: (-one.score, one.id)), list[str](), Counter[str](), 0
    while left and len(taken) < number:
        turn, later = turn + 1, list[Entrant]()
        for one in left:
            if any(uses[origin] >= turn for origin in one.origins):
                later.append(one)
                continue
            uses.update(one.origins)
            taken.append(one.id)
        left = later
    return taken[:number]
