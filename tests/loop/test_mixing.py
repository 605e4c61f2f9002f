from collections import Counter
from typing import Any

import numpy as np
import pytest

from loop.config import MixingConfig
from loop.mixing import Draw, Mixture


def mixture(
    p: float = 0.2, mode: str = "batch", max_repeats: float | None = None, until: float = 1.0, **changes: Any
) -> Mixture:
    settings = {"num_real": 10, "num_synthetic": 7, "num_steps": 50, "batch_size": 8, "seed": 3} | changes
    return Mixture(mixing=MixingConfig(p=p, mode=mode, max_repeats=max_repeats, until=until), **settings)


def flat(plan: Mixture) -> list[Draw]:
    return [draw for batch in plan.steps(0) for draw in batch]


def test_batch_mode_keeps_p_within_three_sigma_over_ten_thousand_batches_gen2det_table_6b():
    plan = mixture(p=0.2, num_steps=10_000)
    sigma = (0.2 * 0.8 / 10_000) ** 0.5
    assert abs(plan.realised_p - 0.2) < 3 * sigma
    assert set(plan.counts.tolist()) == {0, 8}
    assert plan.num_synthetic_draws == sum(draw.synthetic for draw in flat(plan))


def test_share_mode_counts_exactly():
    # 0.3 * 8 = 2.4 a batch, so the sums 2.4, 4.8, 7.2, 9.6, 12 are rounded to 2, 5, 7, 10, 12
    plan = mixture(p=0.3, mode="share", num_steps=5)
    assert plan.counts.tolist() == [2, 3, 2, 3, 2]
    assert [sum(draw.synthetic for draw in batch) for batch in plan.steps(0)] == [2, 3, 2, 3, 2]
    assert plan.realised_p == pytest.approx(12 / 40)


@pytest.mark.parametrize("mode", ["batch", "share"])
def test_p_of_one_is_all_synthetic_and_p_of_zero_all_real(mode):
    assert all(draw.synthetic for draw in flat(mixture(p=1.0, mode=mode)))
    assert not any(draw.synthetic for draw in flat(mixture(p=0.0, mode=mode)))


@pytest.mark.parametrize("mode", ["batch", "share"])
def test_p_of_zero_with_a_pool_is_the_real_only_training(mode):
    assert flat(mixture(p=0.0, mode=mode)) == flat(mixture(p=0.0, mode=mode, num_synthetic=0))


def test_real_images_come_in_the_same_order_whatever_p_is():
    real_only = [draw.image for draw in flat(mixture(p=0.0))]
    mixed = [draw.image for draw in flat(mixture(p=0.5)) if not draw.synthetic]
    assert mixed == real_only[: len(mixed)]


def test_every_pass_shows_every_image_once_in_a_new_order():
    indices = [draw.image for draw in flat(mixture(p=0.0))]
    first, second = indices[:10], indices[10:20]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_without_clean_images_their_share_changes_no_draw():
    settings = {"num_real": 10, "num_synthetic": 7, "num_steps": 50, "batch_size": 8, "seed": 3}
    plans = [Mixture(mixing=MixingConfig(p=0.3, clean=share), **settings) for share in (0.0, 0.5)]
    none = Mixture(mixing=MixingConfig(p=0.3, clean=0.0), num_clean=4, **settings)
    assert flat(plans[0]) == flat(plans[1]) == flat(none)
    assert plans[0].warnings() == plans[1].warnings()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.75])
def test_the_share_of_clean_images_holds_after_any_number_of_steps(share):
    plan = Mixture(
        num_real=10, num_clean=4, num_synthetic=0, num_steps=50, batch_size=8, seed=3, mixing=MixingConfig(clean=share)
    )
    kinds = [draw.kind == "clean" for draw in flat(plan)]
    so_far = np.cumsum(kinds) - share * np.arange(1, 401)
    assert np.abs(so_far).max() <= 1
    assert plan.num_clean_draws == sum(kinds)
    assert plan.num_real_draws == 400


def test_clean_images_take_turns_and_leave_the_order_of_the_others():
    without, plan = mixture(p=0.0), mixture(p=0.0, num_clean=4, num_steps=100)
    draws = flat(plan)
    clean = [draw.image for draw in draws if draw.kind == "clean"]
    real = [draw.image for draw in draws if draw.kind == "real"]
    assert [sorted(clean[i : i + 4]) for i in range(0, 80, 4)] == [[0, 1, 2, 3]] * 20
    assert len({tuple(clean[i : i + 4]) for i in range(0, 80, 4)}) > 1
    assert real[:400] == [draw.image for draw in flat(without)]


@pytest.mark.parametrize("mode", ["batch", "share"])
def test_loop_and_control_show_the_same_real_and_clean_images_in_the_same_order(mode):
    control, loop = (
        [draw[:2] for draw in flat(mixture(p=p, mode=mode, num_clean=4)) if not draw.synthetic] for p in (0.0, 0.5)
    )
    assert len(loop) < len(control)
    assert loop == control[: len(loop)]


def test_clean_images_are_at_other_places_for_another_seed_and_reach_every_worker():
    plans = [mixture(p=0.0, num_clean=4, num_steps=200, seed=seed) for seed in (3, 4)]
    first, second = ([draw.kind for draw in flat(plan)] for plan in plans)
    assert first != second
    for rank in range(2):
        kinds = [draw.kind for batch in plans[0].steps(0, rank, 2) for draw in batch]
        assert kinds.count("clean") / len(kinds) == pytest.approx(0.1, abs=0.03)


def test_the_dose_follows_how_often_the_control_shows_an_image_with_objects():
    # Of 400 draws, 0.9 are of the 10 real images: each 36 times; 2 synthetic images as often are 72 of 400 draws.
    plan = mixture(p=1.0, max_repeats=1.0, num_synthetic=2, num_clean=5)
    assert plan.p == pytest.approx(0.18)
    assert plan.num_synthetic_draws <= 72
    assert "the control shows each real image 36 times" in plan.warnings()[0]


@pytest.mark.parametrize("mode", ["batch", "share"])
def test_two_workers_share_one_batch_between_them(mode):
    plan, other = mixture(p=0.4, mode=mode), mixture(p=0.4, mode=mode)
    for step in range(50):
        halves = plan.batch(step, 0, 2) + other.batch(step, 1, 2)
        assert Counter(halves) == Counter(plan.batch(step))


def test_workers_get_their_fair_part_of_the_synthetic_images():
    plan = mixture(p=0.5, mode="share")
    parts = [sum(draw.synthetic for draw in plan.batch(0, rank, 2)) for rank in range(2)]
    assert parts == [2, 2]


def test_a_resumed_training_goes_on_exactly():
    plan = mixture(p=0.4)
    assert list(plan.steps(20)) == list(plan.steps(0))[20:]


def test_a_longer_training_begins_like_a_shorter_one():
    assert flat(mixture(num_steps=80))[: 50 * 8] == flat(mixture(num_steps=50))


def test_seeds_of_augmentation_belong_to_step_and_place():
    seeds = [draw.seed for draw in flat(mixture())]
    assert len(set(seeds)) == len(seeds)
    assert flat(mixture(seed=3)) == flat(mixture(seed=3))
    assert flat(mixture(seed=3)) != flat(mixture(seed=4))


def test_an_empty_pool_gives_real_images_and_says_so():
    plan = mixture(p=0.5, num_synthetic=0)
    assert plan.realised_p == 0.0
    assert plan.num_real_draws == 50 * 8


def test_no_real_image_is_an_error():
    with pytest.raises(ValueError, match="no real training image"):
        mixture(num_real=0)


@pytest.mark.parametrize(("num_synthetic", "warned"), [(4, True), (5, False), (0, False)])
def test_synthetic_images_that_are_shown_more_often_than_the_controls_are_told(num_synthetic, warned):
    said = mixture(p=0.5, mode="share", num_synthetic=num_synthetic).warnings()
    told = "4 synthetic images, 50% of the training: it shows each 50 times, and the control shows each real image"
    assert [line.startswith(told) for line in said] == [True] * warned


def test_synthetic_images_alone_are_told_by_their_number_as_well():
    assert not mixture(p=1.0, num_synthetic=10).warnings()
    assert mixture(p=1.0, num_synthetic=9).warnings()


@pytest.mark.parametrize("mode", ["batch", "share"])
@pytest.mark.parametrize(("num_synthetic", "max_repeats"), [(1, 1.0), (3, 1.0), (4, 0.5), (3, 1.5)])
def test_no_synthetic_image_is_shown_more_often_than_the_control_shows_a_real_one(mode, num_synthetic, max_repeats):
    plan = mixture(p=0.5, mode=mode, num_synthetic=num_synthetic, max_repeats=max_repeats)
    shown = Counter(draw.image for draw in flat(plan) if draw.synthetic)
    of_control = max(Counter(draw.image for draw in flat(mixture(p=0.0))).values())
    assert max(shown.values()) <= max_repeats * of_control
    assert plan.p == pytest.approx(max_repeats * num_synthetic / 10)
    assert abs(plan.realised_p - plan.p) < 0.11  # share mode: half an image; batch mode: the luck of 50 draws


def test_share_mode_realises_the_lowered_p():
    plan = mixture(p=0.5, mode="share", num_synthetic=3, max_repeats=1.0)
    assert plan.num_synthetic_draws == 0.3 * 50 * 8


@pytest.mark.parametrize("mode", ["batch", "share"])
def test_a_pool_that_is_large_enough_is_mixed_as_without_a_limit(mode):
    assert flat(mixture(p=0.5, mode=mode, max_repeats=1.0)) == flat(mixture(p=0.5, mode=mode))


def test_a_lowered_p_is_told_with_both_numbers_of_times():
    (said,) = mixture(p=0.5, mode="share", num_synthetic=2, max_repeats=1.0).warnings()
    assert said.startswith(
        "mixing.p is lowered from 0.5 to 0.2: it would show 2 synthetic images each 100 times, and the"
    )
    assert "the control shows each real image 40 times" in said
    assert mixture(p=0.2, num_synthetic=2, max_repeats=1.0).warnings() == []


@pytest.mark.parametrize("mode", ["batch", "share"])
def test_after_until_all_images_are_real_and_before_it_p_holds(mode):
    plan = mixture(p=0.4, mode=mode, num_steps=1000, until=0.7)
    assert plan.counts[:700].sum() == pytest.approx(0.4 * 700 * 8, rel=0.15)
    assert not plan.counts[700:].any()
    assert plan.realised_p == pytest.approx(0.28, rel=0.15)


def test_a_training_that_ends_on_real_images_may_show_as_many_synthetic_ones():
    whole, first_half = (mixture(p=1.0, mode="share", num_synthetic=4, max_repeats=1.0, until=u) for u in (1.0, 0.5))
    assert first_half.num_synthetic_draws == whole.num_synthetic_draws == 0.4 * 50 * 8
    assert first_half.p == pytest.approx(2 * whole.p)
    assert mixture(p=0.5, mode="share", num_synthetic=3, max_repeats=1.0, until=0.6).warnings() == []
