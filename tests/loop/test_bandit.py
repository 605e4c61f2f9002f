"""The budget by utility: beliefs worked out by hand, the spread that follows, and a run that spreads by them."""

import json
from collections import Counter
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from actors.records import WHOLE_IMAGE, Annotation, Detections, Difficulty, Instance, Lineage, Sample, Verdict
from actors.storage import read_record
from loop.bandit import Belief, Reward, believe, choose, learn, mode_of, utility
from loop.check import describe
from loop.config import LoopConfig, MiningConfig
from loop.driver import run
from loop.keep import Fate
from loop.mining import plan, select
from loop.progress import Reporter
from loop.standalone import mine
from loop.state import Mined, RunFolder

EASY, HARD = Difficulty.EASY, Difficulty.HARD


def rewards(*values, weight=1.0):
    return [Reward(utility=value, weight=weight) for value in values]


def test_beliefs_have_the_mean_of_all_as_one_reward_more_and_a_common_spread():
    found = believe({"b": rewards(5.0), "a": rewards(1.0, 3.0), "c": []})
    assert list(found) == ["a", "b", "c"]
    spread = (8 / 3) ** 0.5  # of 1, 3 and 5 around 3
    assert [one.mean for one in found.values()] == pytest.approx([(3 + 1 + 3) / 3, (3 + 5) / 2, 3])
    assert [one.standard_error for one in found.values()] == pytest.approx([spread / 3**0.5, spread / 2**0.5, spread])
    assert [one.num_rewards for one in found.values()] == [2, 1, 0]


def test_a_reward_counts_by_its_weight():
    found = believe({"a": [*rewards(4.0, weight=0.5), *rewards(0.0)], "b": rewards(4.0, weight=0.5)})
    assert found["a"].mean == pytest.approx((2 + 2 + 0) / 2.5)  # all: (2 + 0 + 2) / 2 = 2
    assert found["b"].mean == pytest.approx((2 + 2) / 1.5)
    assert found["b"].standard_error == pytest.approx(2 / 1.5**0.5)


@pytest.mark.parametrize(("values", "prior"), [((), 0.0), ((0.3,), 0.3), ((0.1, 0.1, 0.1), 0.1)])
def test_until_two_rewards_differ_the_spread_is_one(values, prior):
    found = believe({"a": rewards(*values), "b": []})
    assert (found["b"].mean, found["b"].standard_error) == pytest.approx((prior, 1.0))
    assert found["a"].standard_error == pytest.approx(1 / (1 + len(values)) ** 0.5)


def instance(image_id, index, label=0, score=0.0):
    difficulty = EASY if score > 0.3 else HARD
    return Instance(image_id=image_id, index=index, label=label, difficulty=difficulty, best_score=score, best_iou=0.0)


def sample(value, indices=(0,), mode="", dropped="", image_id="a"):
    verdicts = [Verdict(filter="agreement", box=0, keep=True, score=9.0, threshold=0.0, reason="")]
    if value is not None:
        verdicts.append(
            Verdict(filter="utility", box=WHOLE_IMAGE, keep=not dropped, score=value, threshold=0.0, reason="")
        )
    return Sample(
        id="s",
        uri="",
        sha256="",
        as_drawn="",
        width=8,
        height=8,
        annotation=Annotation.empty(),
        proposed=Annotation.empty(),
        drawn=np.zeros(0, np.bool_),
        restored=np.zeros(0, np.bool_),
        seen=Detections.empty(),
        verdicts=tuple(verdicts),
        dropped=dropped,
        lineage=Lineage(round=1, image_id=image_id, box_indices=indices, generator="g", seed=0, mode=mode),
    )


def test_candidates_reward_the_strata_that_their_instances_had_in_their_round():
    now = [instance("a", 0, label=0, score=0.9), instance("a", 1, label=1)]
    then = [instance("a", 0, label=0), instance("a", 1, label=1), instance("a", 2, label=1, score=0.9)]
    kept, harmful = sample(0.6, (0, 1)), sample(-0.2, (1, 2), mode="blur", dropped="utility: harmful")
    useless = sample(None, (1,), mode="plain", dropped="agreement: not_detected")
    found = learn(now, ("plain", "blur"), [(then, [kept, harmful]), (then, [useless])])
    assert [(arm, one.num_rewards) for arm, one in found.strata] == [
        ((0, EASY), 0),  # among the instances of today alone
        ((0, HARD), 0.5),
        ((1, EASY), 0.5),
        ((1, HARD), 2),
    ]
    prior = (0.3 + 0.3 - 0.1 - 0.1 + 0) / 3
    means = [prior, (prior + 0.3) / 1.5, (prior - 0.1) / 1.5, (prior + 0.3 - 0.1 + 0) / 3]
    assert [one.mean for _, one in found.strata] == pytest.approx(means)
    assert [(arm, one.num_rewards) for arm, one in found.modes] == [("blur", 1), ("plain", 1)]
    assert [one.mean for _, one in found.modes] == pytest.approx([(-0.1 - 0.2) / 2, (-0.1 + 0) / 2])


def test_the_utility_is_the_score_of_that_filter_alone():
    assert utility(sample(0.25)) == 0.25
    assert utility(sample(None, dropped="agreement: not_detected")) == 0


def belief(mean, error):
    return Belief(mean=mean, standard_error=error, num_rewards=1)


FIELD = [instance(name, index, label, score=index / 100) for label, name in enumerate("abc") for index in range(30)]
BETTER = {(0, HARD): belief(0.1, 0.05), (1, HARD): belief(0.5, 0.05), (2, HARD): belief(0.1, 0.05)}


def test_a_clearly_better_stratum_gets_most_of_the_budget_hardest_first():
    taken = choose(FIELD, BETTER, 25, seed=1)
    assert Counter(one.image_id for one in taken)["b"] >= 24
    indices = [one.index for one in taken if one.image_id == "b"]
    assert indices == sorted(indices)


def test_when_the_best_are_used_up_the_others_follow_and_none_is_taken_twice():
    taken = choose(FIELD, BETTER, 1000, seed=1)
    assert len({(one.image_id, one.index) for one in taken}) == len(taken) == len(FIELD)


def test_a_stratum_that_was_never_tried_is_tried():
    strata = believe({(0, HARD): rewards(*[0.0, 0.2] * 20), (1, HARD): rewards(*[0.1, 0.3] * 20), (2, HARD): []})
    counts = Counter(one.image_id for one in choose(FIELD, strata, 25, seed=3))
    assert counts["c"] >= 5
    assert counts["b"] > counts["a"]


def test_without_rewards_the_budget_is_spread_over_all_strata():
    strata = dict(learn(FIELD, (), ()).strata)
    counts = Counter(one.image_id for one in choose(FIELD, strata, 60, seed=0))
    assert min(counts[name] for name in "abc") >= 10


def test_the_same_seed_gives_the_same_spread_whatever_the_order_of_the_instances():
    config, beliefs = MiningConfig(policy="utility", budget=12), learn(FIELD, (), ())
    first = select(FIELD, config, 5, beliefs)
    assert first == select(FIELD[::-1], config, 5, beliefs)
    assert len({select(FIELD, config, seed, beliefs) for seed in range(5)}) == 5


def planned(**changes):
    given = {"copies": 40, "generator": "copy_paste", "strategy": "origin", "round_index": 2, "seed": 7, "modes": {}}
    return plan([instance("a", 1), instance("b", 0)], **{**given, **changes})


def test_a_clearly_better_mode_is_requested_of_most_candidates():
    lineages = planned(modes={"plain": belief(0.0, 0.05), "blur": belief(0.4, 0.05), "scale": belief(0.3, 0.2)})
    counts = Counter(one.mode for one in lineages)
    assert counts["blur"] > counts["scale"] > 0 == counts["plain"]
    assert [one.seed for one in lineages] == [one.seed for one in planned()]
    assert {one.id for one in lineages}.isdisjoint(one.id for one in planned())


def test_a_mode_depends_on_the_seed_of_its_candidate_alone():
    modes = {"plain": belief(0.0, 1.0), "blur": belief(0.0, 1.0)}
    drawn = [mode_of(modes, seed) for seed in range(60)]
    assert drawn == [mode_of(modes, seed) for seed in range(60)]
    assert min(Counter(drawn).values()) >= 20
    assert mode_of({}, 3) == ""


def test_a_lineage_without_a_mode_has_the_id_that_it_always_had():
    lineage = Lineage(round=2, image_id="a.png", box_indices=(0, 3), generator="copy_paste", seed=5)
    assert lineage.id == "be9afc5614de9ea3"
    assert replace(lineage, strategy="hard").id == "266632a04191db0e"
    others = [replace(lineage, mode="hard"), replace(lineage, mode="blur"), replace(lineage, strategy="hard")]
    assert len({lineage.id, *(one.id for one in others)}) == 4


def tree(easy_config, root, **changes):
    filters = [{"kind": "agreement", "score_threshold": 0.001, "iou_threshold": 0.0}, {"kind": "utility", "folds": 2}]
    training = {**easy_config["training"], "steps": 4, "epoch_steps": 2}
    mining = {"policy": "utility", "budget": 10, "score_threshold": 0.1, "iou_threshold": 0.8}
    plain = {**easy_config, "root": str(root), "filters": filters, "training": training, "mining": mining}
    return {**plain, "generation": {"copies": 2}, "hosting": {"engine": "inline", "share_candidates": True}, **changes}


def test_the_policy_needs_the_filter(easy_config, tmp_path):
    with pytest.raises(ValidationError, match=r"mining\.policy: utility .* add \{kind: utility\} to filters"):
        LoopConfig.model_validate(tree(easy_config, tmp_path, filters=[{"kind": "blank"}]))


@pytest.mark.parametrize(("rounds", "said"), [(1, True), (2, False)])
def test_the_plan_says_that_one_round_learns_nothing(easy_config, tmp_path, rounds, said):
    text = describe(LoopConfig.model_validate(tree(easy_config, tmp_path, rounds=rounds)))
    assert ("learns from earlier rounds; with rounds: 1 it spreads the budget at random" in text) is said


@pytest.mark.slow
def test_a_run_spreads_its_second_budget_by_the_utility_of_its_first(easy_config, new_root):
    root, silent = new_root(), Reporter(Console(file=StringIO()))
    config = LoopConfig.model_validate(tree(easy_config, root))
    folder = RunFolder(run(config, silent))
    first, second = (read_record(folder.round(number) / "mine.json", Mined) for number in (1, 2))
    assert {(one.mean, one.standard_error) for _, one in (*first.beliefs.strata, *first.beliefs.modes)} == {(0, 1)}
    values = [utility(one) for one in folder.judged(1)]
    assert sum(value != 0 for value in values) >= 5
    for arms in (second.beliefs.strata, second.beliefs.modes):
        assert sum(one.num_rewards for _, one in arms) == pytest.approx(len(values))
    _has_training_images_alone(folder, second)
    _is_reported(folder, second)
    assert not (root / "mined").exists()  # what depends on a run's own rounds is not shared
    alone = mine(config, silent, folder.checkpoint(1), number=2)
    assert alone.taken == second.instances
    before = [folder.sample_ids(2, fate) for fate in Fate]
    _undo(folder)
    run(config, silent)
    again = read_record(folder.round(2) / "mine.json", Mined)
    assert replace(again, cost=second.cost) == second
    assert [folder.sample_ids(2, fate) for fate in Fate] == before


def _has_training_images_alone(folder, mined):
    train = {image["id"] for image in json.loads(folder.train_records.read_text())}
    assert {one.image_id for one in mined.found} <= train
    assert {one.lineage.image_id for one in folder.judged(2)} <= train


def _is_reported(folder, mined):
    page = (folder.path / "summary.html").read_text()
    assert "The budget, spread by utility" in page
    assert all(f"hard mode {mode}" in page for mode, _ in mined.beliefs.modes)
    budget = json.loads((folder.path / "summary.json").read_text())["rounds"][1]["budget"]
    given = {kind: sum(one["given"] for one in budget if one["kind"] == kind) for kind in ("instances", "mode")}
    assert given == {"instances": len(mined.instances), "mode": len(folder.judged(2))}


def _undo(folder):
    """As if the process had died before it mined in round 2."""
    for name in ("mine.json", "pool.json", "round.json"):
        (folder.round(2) / name).unlink()
    for fate in Fate:
        for file in (folder.round(2) / fate).glob("*"):
            file.unlink()
