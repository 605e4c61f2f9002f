"""The candidates that a contact sheet shows."""

from collections import defaultdict
from collections.abc import Sequence

from actors.records import Sample
from loop.selection import score


def choose(samples: Sequence[Sample], max_rows: int) -> list[Sample]:
    """The samples to show: equal numbers of kept and dropped ones if there are enough, kept ones first.

    They are in the order of their ids, which do not depend on their content. Dropped ones are taken in turns over the
    reasons, so that each reason is shown. Candidates that failed without a picture are left out.
    """
    pictured = sorted((sample for sample in samples if sample.uri), key=lambda sample: sample.id)
    kept = [sample for sample in pictured if not sample.dropped]
    dropped = _in_turns([sample for sample in pictured if sample.dropped])
    num_dropped = max(min(len(dropped), max_rows // 2), max_rows - len(kept))
    return kept[: max_rows - min(num_dropped, len(dropped))] + dropped[:num_dropped]


def extremes(samples: Sequence[Sample], by: str, max_rows: int) -> list[Sample]:
    """The samples with the highest scores by the filter ``by``, then those with the lowest; falling throughout."""
    judged = [sample for sample in samples if any(verdict.filter == by for verdict in sample.verdicts)]
    ranked = sorted(judged, key=lambda sample: (-score(sample, by), sample.id))
    if len(ranked) <= max_rows:
        return ranked
    return [*ranked[: max_rows - max_rows // 2], *ranked[len(ranked) - max_rows // 2 :]]


def _in_turns(dropped: Sequence[Sample]) -> list[Sample]:
    turn: defaultdict[str, int] = defaultdict(int)
    turns = []
    for sample in dropped:
        turns.append((turn[sample.dropped], sample.dropped, sample.id, sample))
        turn[sample.dropped] += 1
    return [entry[-1] for entry in sorted(turns, key=lambda entry: entry[:3])]
