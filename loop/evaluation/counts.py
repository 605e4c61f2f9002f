"""Losses between mining and the pool: counts by reason, and warnings if little is left."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean
from textwrap import shorten

from actors.counted import counted
from actors.records import WHOLE_IMAGE, Sample
from loop.training.job import TrainResult

LEAST_KEPT = 0.1  # share of the candidates
NUM_REASONS, MAX_REASON_CHARS = 3, 100  # in a warning; a failed candidate's reason is its error
MAX_ERROR_CHARS = 300
MOST_CHANCE = 0.05  # that no candidate was to be drawn into an image without objects


def count_drawn(samples: Sequence[Sample]) -> tuple[int, int]:
    """The number of requested instances over all candidates, and the number of these that were drawn.

    A candidate counts for at most the instances in its lineage, so that extra ones in one candidate do not make up for
    missing ones in another.
    """
    requested = [len(sample.lineage.box_indices) for sample in samples]
    drawn = [min(int(sample.drawn.sum()), number) for sample, number in zip(samples, requested, strict=True)]
    return sum(requested), sum(drawn)


def count_dropped(samples: Iterable[Sample]) -> tuple[dict[str, int], dict[str, int]]:
    """Counts of dropped candidates, and of rejected boxes in all candidates, by "filter: reason"."""
    images: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    for sample in samples:
        images.update([sample.dropped] if sample.dropped else [])
        boxes.update(f"{v.filter}: {v.reason}" for v in sample.verdicts if v.box != WHOLE_IMAGE and not v.keep)
    return dict(sorted(images.items())), dict(sorted(boxes.items()))


def count_refined(samples: Iterable[Sample], min_confidence: float) -> dict[str, float] | None:
    """What refinement did with drawn boxes; None if none was refined.

    Numbers of boxes ``moved``, ``kept`` and ``ignored``, and ``unsure``: ignored ones with a confidence below
    ``min_confidence``. Means over all boxes: ``prompt_iou``, ``seen_before``, ``seen_after`` (see ``Refined``), and
    ``iou_shift``, the difference of the last two.
    """
    found = [one for sample in samples for one in sample.refined]
    if not found:
        return None
    fates = Counter(one.fate for one in found)
    means = {name: fmean(getattr(one, name) for one in found) for name in ("prompt_iou", "seen_before", "seen_after")}
    shift = {"iou_shift": means["seen_after"] - means["seen_before"]}
    unsure = sum(one.fate == "ignored" and one.confidence < min_confidence for one in found)
    numbers = {fate: float(fates[fate]) for fate in ("moved", "kept", "ignored")} | {"unsure": float(unsure)}
    return numbers | means | shift


def warnings(samples: Sequence[Sample]) -> list[str]:
    """One line each if few instances were drawn, few candidates were kept, or no refined box of ``samples`` counts."""
    return [*_few_drawn(samples), *_few_kept(samples), *_all_ignored(samples)]


def failures(errors: Sequence[str], num_candidates: int) -> list[str]:
    """One line if candidates could not be drawn or judged, with the most frequent of their ``errors``."""
    if not errors:
        return []
    reason, num = Counter(errors).most_common(1)[0]
    lost = f"{len(errors)} of {counted(num_candidates, 'candidate')} could not be drawn or judged: dropped"
    return [f"{lost}; {num} of them for {shorten(reason, MAX_ERROR_CHARS)}"]


def _few_drawn(samples: Sequence[Sample]) -> list[str]:
    requested, drawn = count_drawn(samples)
    warning = (
        f"only {drawn} of {counted(requested, 'mined instance')} drawn; for the others the generator found no "
        "room, or no outline (large objects)"
    )
    return [warning] if 2 * drawn < requested else []


def _few_kept(samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return ["nothing was mined, so there are no candidates, and the pool does not change"]
    reasons = Counter(sample.dropped.removeprefix("chain: ") for sample in samples if sample.dropped)
    num_kept = len(samples) - reasons.total()
    main = ", ".join(f"{shorten(reason, MAX_REASON_CHARS)} ({num})" for reason, num in reasons.most_common(NUM_REASONS))
    kept = f"{num_kept} of {counted(len(samples), 'candidate')} kept"
    warning = f"{kept}; dropped for {main}; the round's contact sheet shows some"
    return [warning] if num_kept < LEAST_KEPT * len(samples) else []


def _all_ignored(samples: Sequence[Sample]) -> list[str]:
    warning = (
        "no refined box counts. If the detector is too weak to confirm them, train it longer or set "
        "refiner.min_agreement: 0; if the refiner is unsure, lower refiner.min_confidence or raise refiner.fit.steps"
    )
    fates = {one.fate for sample in samples for one in sample.refined}
    return [warning] if fates == {"ignored"} else []


def none_clean(samples: Sequence[Sample], clean: Collection[str], share: float) -> list[str]:
    """One line if none of ``samples`` was drawn into an image of ``clean`` (ids), though a ``share`` should have been.

    Few candidates may all belong to the others by chance.
    """
    warning = (
        f"no candidate was drawn into an image without objects, as a share of {share:g} should be (generator.clean): "
        "the pictures of data.clean are too small for the objects, or have no place with matching surroundings. Give "
        "pictures of the same scene and size as the training images, or set generator.clean: 0"
    )
    by_chance = (1 - share) ** len(samples) > MOST_CHANCE
    return [] if by_chance or any(sample.canvas in clean for sample in samples) else [warning]


def count_clean(
    samples: Sequence[Sample], clean: Collection[str], trained: TrainResult, control: TrainResult
) -> dict[str, int] | None:
    """The use of a round's images without objects, whose ids are ``clean``; None if there are none.

    * ``candidates``, ``kept``: those that were drawn into such images;
    * ``shown``, ``control_shown``: such images among those that a training of loop and control shows, repetitions
      counted.
    """
    if not clean:
        return None
    into = [sample for sample in samples if sample.canvas in clean]
    return {
        "candidates": len(into),
        "kept": sum(not sample.dropped for sample in into),
        "shown": trained.num_clean_shown,
        "control_shown": control.num_clean_shown,
    }
