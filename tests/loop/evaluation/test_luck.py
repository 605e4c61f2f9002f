"""The spread between training seeds, and the interval that covers it."""

import numpy as np
import pytest

from loop.evaluation.bootstrap import gain, sum_interval
from loop.evaluation.coco import Evaluation
from loop.evaluation.luck import PRIOR, Spread, estimate_prior, moderated


def measured(ap) -> Evaluation:
    """An evaluation without detections: no resampling of its images changes anything."""
    return Evaluation(metrics={"AP": ap}, curves={}, image_ids=("a", "b"), matches=())


def test_a_spread_is_the_mean_of_the_prior_and_the_runs_own_by_degrees_of_freedom():
    prior = Spread(sd=0.02, dof=6)
    found = moderated([[0.30, 0.34], [0.40, 0.41, 0.42]], prior)  # squares: 2 * 0.02^2 and 2 * 0.01^2
    assert found.dof == 6 + 1 + 2
    assert found.sd == pytest.approx(((6 * 0.02**2 + 0.0008 + 0.0002) / 9) ** 0.5)


def test_one_training_of_each_arm_leaves_the_prior_alone():
    assert moderated([[0.3], [0.4]]).sd == pytest.approx(PRIOR.sd)
    assert moderated([[0.3], [0.4]]).dof == PRIOR.dof


@pytest.mark.parametrize("true", [Spread(sd=0.015, dof=6), Spread(sd=0.03, dof=20)])
def test_the_prior_of_many_data_sets_is_the_one_that_they_were_drawn_from(true):
    rng = np.random.default_rng(0)
    sds = true.sd * np.sqrt(true.dof / rng.chisquare(true.dof, 4000))
    found = estimate_prior([rng.normal(0.3, sd, (2, rng.integers(2, 7))).tolist() for sd in sds])
    assert found.sd == pytest.approx(true.sd, rel=0.05)
    assert found.dof == pytest.approx(true.dof, rel=0.3)


def test_data_sets_with_one_spread_give_a_prior_that_outweighs_any_run():
    rng = np.random.default_rng(1)
    assert estimate_prior(rng.normal(0, 0.01, (5, 3, 40)).tolist()).dof > 30


def test_a_prior_of_one_data_set_is_refused():
    with pytest.raises(ValueError, match="two or more data sets"):
        estimate_prior([[[0.1, 0.2], [0.3]]])
    with pytest.raises(ValueError, match="two or more data sets"):
        estimate_prior([[[0.1, 0.2]], [[0.3], [0.4]]])


def test_the_interval_of_a_sum_is_that_of_its_parts_where_the_other_is_nothing():
    assert sum_interval(np.zeros(5), 2.0, 4) == pytest.approx((-2 * 2.776, 2 * 2.776), rel=1e-3)  # t table, 4 dof
    values = np.random.default_rng(0).normal(1, 3, 20000)
    assert sum_interval(values, 1e-3, 9) == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.01)
    assert sum_interval(np.array([-1e6, 1e6]), 1.0, 9) == pytest.approx((-1e6 - 1.833, 1e6 + 1.833), abs=0.01)


def test_trainings_of_one_method_are_called_a_gain_or_a_loss_about_one_time_in_twenty():
    rng, prior = np.random.default_rng(3), Spread(sd=0.015, dof=8)
    for num_seeds in (1, 3):
        called = 0
        for _ in range(400):
            sd = prior.sd * np.sqrt(prior.dof / rng.chisquare(prior.dof))
            arms = rng.normal(0.3, sd, (2, num_seeds))
            low, high = sum_interval(np.zeros(3), *scale_of(arms, prior))
            difference = arms[0].mean() - arms[1].mean()
            called += not low <= difference <= high
        assert 8 <= called <= 34  # 20 of 400, three sigma either way


def scale_of(arms, prior):
    spread = moderated(arms.tolist(), prior)
    return spread.sd * (2 / arms.shape[1]) ** 0.5, spread.dof


def test_more_seeds_narrow_the_interval_and_the_gain_is_a_difference_of_means(monkeypatch):
    monkeypatch.setattr(
        "loop.evaluation.bootstrap.average_precision", lambda one, times: np.full(len(times), one.metrics["AP"])
    )
    one = gain([measured(0.33)], [measured(0.30)], 100, 0)
    three = gain([measured(0.32), measured(0.33), measured(0.34)], [measured(0.30)] * 3, 100, 0)
    assert one.value == three.value == pytest.approx(0.03)
    assert (one.low + one.high) / 2 == pytest.approx(0.03)
    assert one.low < 0 < three.low
    assert one.training_sd == pytest.approx(PRIOR.sd)


def test_a_gain_refuses_trainings_measured_on_other_images():
    other = Evaluation(metrics={"AP": 0.3}, curves={}, image_ids=("a",), matches=())
    with pytest.raises(ValueError, match="different images"):
        gain([measured(0.3), other], [measured(0.3)], 100, 0)
