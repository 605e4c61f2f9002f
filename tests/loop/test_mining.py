from actors.records import Difficulty, Instance
from loop.config import MiningConfig
from loop.mining import difficulty_shares, plan, select, warnings


def instance(image_id, index, label=0, score=0.0, iou=0.0):
    difficulty = Difficulty.EASY if score > 0.3 else Difficulty.HARD
    return Instance(image_id=image_id, index=index, label=label, difficulty=difficulty, best_score=score, best_iou=iou)


FIELD = (
    instance("b", 0, 0, score=0.2),
    instance("a", 1, 0, score=0.1, iou=0.4),
    instance("a", 0, 0, score=0.1, iou=0.2),
    instance("c", 0, 1, score=0.25),
    instance("c", 1, 2, score=0.9),
    instance("a", 2, 1, score=0.29),
)


def names(taken):
    return [f"{one.image_id}{one.index}" for one in taken]


def test_hardest_first_by_score_then_overlap():
    assert names(select(FIELD, MiningConfig(budget=3), seed=0)) == ["a0", "a1", "b0"]


def test_ties_go_by_identity_and_input_order_does_not_matter():
    tied = (instance("b", 0), instance("a", 10), instance("a", 9))
    assert names(select(tied, MiningConfig(), seed=0)) == ["a9", "a10", "b0"]
    assert select(FIELD[::-1], MiningConfig(), seed=1) == select(FIELD, MiningConfig(), seed=0)


def test_fewer_hard_ones_than_budget_are_all_taken_and_nothing_fills_up():
    taken = select(FIELD, MiningConfig(budget=100), seed=0)
    assert names(taken) == ["a0", "a1", "b0", "c0", "a2"]


def test_balanced_takes_in_turns_over_the_classes():
    taken = select(FIELD, MiningConfig(policy="balanced", budget=4), seed=0)
    assert names(taken) == ["a0", "c0", "a1", "a2"]


def test_ranked_goes_on_with_the_least_sure_of_the_easy_ones():
    sure = (*FIELD, instance("d", 0, 0, score=0.5), instance("d", 1, 0, score=0.4))
    taken = select(sure, MiningConfig(policy="ranked", budget=7), seed=0)
    assert names(taken) == ["a0", "c0", "a1", "a2", "b0", "d1", "c1"]


def test_random_is_blind_to_difficulty_and_depends_on_the_seed_alone():
    config = MiningConfig(policy="random", budget=3)
    field = [instance("a", index, score=index / 20) for index in range(20)]
    assert select(field, config, seed=1) == select(field[::-1], config, seed=1)
    draws = [select(field, config, seed=seed) for seed in range(40)]
    assert all(len(set(names(draw))) == 3 for draw in draws)
    assert {name for draw in draws for name in names(draw)} == set(names(field))


def test_shares_count_every_class_and_all_hard_or_all_easy_is_warned_of():
    shares = difficulty_shares(FIELD, ["scratch", "dent", "stain", "crack"])
    assert [(share.name, share.num_easy, share.num_hard) for share in shares] == [
        ("scratch", 0, 3), ("dent", 0, 2), ("stain", 1, 0), ("crack", 0, 0),
    ]  # fmt: skip
    assert [share.hard_share for share in shares] == [1.0, 1.0, 0.0, 0.0]
    scratch, dent, stain = warnings(shares, MiningConfig())
    assert "'scratch': all 3 instances are hard" in scratch
    assert "'dent': all 2 instances are hard" in dent
    assert "'stain': its only instance is easy (a detector finds most of what it was trained on" in stain
    assert warnings(shares, MiningConfig(cross_fit=2))[2].endswith("is easy (raise mining.score_threshold)")
    assert not warnings(
        difficulty_shares([instance("a", 0, score=0.1), instance("a", 1, score=0.9)], ["scratch"]), MiningConfig()
    )


def planned(taken, **changes):
    given = {"copies": 2, "generator": "layout", "strategy": "origin", "round_index": 1, "seed": 7, "modes": {}}
    return plan(taken, **{**given, **changes})


def test_plan_draws_copies_of_each_image_with_all_its_selected_boxes():
    lineages = planned([instance("b", 3), instance("a", 1), instance("b", 0)])
    assert [(one.image_id, one.box_indices) for one in lineages] == [("b", (0, 3))] * 2 + [("a", (1,))] * 2
    assert {(one.round, one.generator) for one in lineages} == {(1, "layout")}
    assert len({one.seed for one in lineages}) == len({one.id for one in lineages}) == 4


def test_plan_seeds_do_not_change_when_other_images_come_or_go():
    alone = planned([instance("a", 1)])
    assert alone == planned([instance("b", 3), instance("a", 1)])[2:]
    assert alone == planned([instance("a", 1)])
    assert {one.seed for one in alone}.isdisjoint(one.seed for one in planned([instance("a", 1)], round_index=2))
    assert {one.seed for one in alone}.isdisjoint(one.seed for one in planned([instance("a", 1)], seed=8))


def test_a_strategy_makes_other_candidates_of_the_same_chances():
    taken = [instance("a", 1)]
    origin, hard = planned(taken), planned(taken, strategy="hard")
    assert {one.strategy for one in hard} == {"hard"}
    assert [one.seed for one in hard] == [one.seed for one in origin]
    assert {one.id for one in hard}.isdisjoint(one.id for one in origin)
