"""Mining: counts of easy and hard instances, and the selection of those that a round spends its budget on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actors.records import Difficulty, Instance, Lineage
from actors.seeds import derive_seed
from loop import bandit
from loop.bandit import UNKNOWN, Belief, Beliefs
from loop.config import MiningConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifficulty:
    """Counts of the easy and hard instances of one class."""

    name: str
    num_easy: int
    num_hard: int

    @property
    def hard_share(self) -> float:
        """Share of hard instances in [0, 1]; 0 for a class without instances."""
        return self.num_hard / max(self.num_easy + self.num_hard, 1)


def difficulty_shares(instances: Iterable[Instance], classes: Sequence[str]) -> tuple[ClassDifficulty, ...]:
    """Easy and hard counts, one entry per class in the order of ``classes``; an absent class has zeros."""
    easy, hard = [0] * len(classes), [0] * len(classes)
    for instance in instances:
        (easy if instance.difficulty is Difficulty.EASY else hard)[instance.label] += 1
    counts = zip(classes, easy, hard, strict=True)
    return tuple(ClassDifficulty(name=name, num_easy=found, num_hard=missed) for name, found, missed in counts)


def warnings(shares: Iterable[ClassDifficulty], config: MiningConfig) -> list[str]:
    """One line for each class whose instances are all hard or all easy: the attribute carries no information."""
    remedy = "raise mining.score_threshold"
    if not config.cross_fit:
        remedy = f"a detector finds most of what it was trained on; set mining.cross_fit, or {remedy}"
    all_hard = [
        f"class {share.name!r}: {_all(share.num_hard)} hard; the detector has not learnt it yet "
        "(train longer, or lower mining.score_threshold)"
        for share in shares
        if share.num_hard and not share.num_easy
    ]
    all_easy = [
        f"class {share.name!r}: {_all(share.num_easy)} easy ({remedy})"
        for share in shares
        if share.num_easy and not share.num_hard
    ]
    return [*all_hard, *all_easy]


def _all(number: int) -> str:
    return "its only instance is" if number == 1 else f"all {number} instances are"


def select(
    instances: Iterable[Instance], config: MiningConfig, seed: int, beliefs: Beliefs = UNKNOWN
) -> tuple[Instance, ...]:
    """The instances on which the budget is spent, in the order of selection.

    * hardest: hard ones by rising best_score, then by rising best_iou, then by image id and index.
    * balanced: hard ones in turns over the classes (by class index), hardest first within each class.
    * ranked: as balanced, and then the easy ones in the same order.
    * random: easy and hard ones in an order that depends on ``seed`` alone (give each round its own).
    * utility: easy and hard ones, those of the most useful strata by ``beliefs`` first (see ``bandit.choose``).

    No instance is selected twice. If there are fewer instances than budget (with policies hardest and balanced: hard
    ones), all of them are selected and the rest of the budget is not spent.
    """
    everything = sorted(instances, key=_identity)
    if config.policy == "random":
        order = np.random.default_rng(derive_seed(seed, "mining")).permutation(len(everything))
        return tuple(everything[position] for position in order[: config.budget])
    if config.policy == "utility":
        return bandit.choose(sorted(everything, key=_hardness), dict(beliefs.strata), config.budget, seed)
    hard, easy = (
        sorted((one for one in everything if one.difficulty is difficulty), key=_hardness)
        for difficulty in (Difficulty.HARD, Difficulty.EASY)
    )
    if config.policy == "balanced":
        hard = _in_turns(hard)
    if config.policy == "ranked":
        hard = [*_in_turns(hard), *_in_turns(easy)]
    return tuple(hard[: config.budget])


def plan(
    selected: Sequence[Instance],
    *,
    copies: int,
    generator: str,
    strategy: str,
    round_index: int,
    seed: int,
    modes: Mapping[str, Belief],
) -> tuple[Lineage, ...]:
    """The lineages of the candidates: ``copies`` for each image with selected instances, each with all of these.

    Images are in the order of their first selected instance. ``seed`` is the run's. The seed of a candidate depends on
    it, the round, the image and the copy only, so the candidates of one image do not depend on other images. Each
    candidate requests one of ``modes``, see ``bandit.mode_of``; without modes, none.
    """
    by_image: dict[str, list[int]] = {}
    for instance in selected:
        by_image.setdefault(instance.image_id, []).append(instance.index)
    drawn = [
        (image_id, tuple(sorted(indices)), derive_seed(seed, round_index, image_id, copy))
        for image_id, indices in by_image.items()
        for copy in range(copies)
    ]
    return tuple(
        Lineage(
            round=round_index,
            image_id=image_id,
            box_indices=indices,
            generator=generator,
            seed=own,
            strategy=strategy,
            mode=bandit.mode_of(modes, own),
        )
        for image_id, indices, own in drawn
    )


def _identity(instance: Instance) -> tuple[str, int]:
    return instance.image_id, instance.index


def _hardness(instance: Instance) -> tuple[float, float, str, int]:
    return instance.best_score, instance.best_iou, *_identity(instance)


def _in_turns(hardest_first: Sequence[Instance]) -> list[Instance]:
    """The first of every class, then the second of every class, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for instance in hardest_first:
        turn = seen[instance.label] = seen.get(instance.label, -1) + 1
        turns.append((turn, instance.label, instance))
    return [instance for _, _, instance in sorted(turns, key=lambda entry: entry[:2])]
