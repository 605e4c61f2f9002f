"""The evidence for the verdict: the pairs of controls, the table, and the constant that the measured spread became."""

import json
from itertools import islice

import aa
import pytest
from evidence import DOCUMENT
from evidence_tables import between_marks

from loop.evaluation.luck import PRIOR, estimate_prior


def test_the_document_shows_the_stored_verdicts():
    assert between_marks(DOCUMENT.read_text(), "aa") == aa.section(json.loads(aa.FILE.read_text()))


def test_the_prior_in_use_is_that_of_the_stored_rows():
    found = estimate_prior(list(aa.recorded().values()))
    assert PRIOR.sd == pytest.approx(found.sd, abs=5e-5)
    assert PRIOR.dof == pytest.approx(found.dof, abs=0.05)


@pytest.mark.parametrize("num_seeds", aa.SEEDS)
def test_pairs_are_disjoint_and_use_every_control_before_any_is_used_again(num_seeds):
    pairs = list(islice(aa.pairs(range(12), num_seeds), aa.NUM_PAIRS))
    assert len(pairs) == aa.NUM_PAIRS
    for first, second in pairs:
        assert len(first) == len(second) == num_seeds
        assert not set(first) & set(second)
    once = 12 // (2 * num_seeds)
    assert len({seed for pair in pairs[:once] for group in pair for seed in group}) == 12


def test_a_verdict_is_counted_where_its_interval_leaves_out_zero():
    rows = [
        {"seeds": 1, "pair": [[0], [1]], "gain": 0.02, "ci95": [-0.01, 0.05], "of_images": [0.01, 0.03]},
        {"seeds": 1, "pair": [[0], [2]], "gain": -0.06, "ci95": [-0.09, -0.03], "of_images": [-0.07, -0.05]},
    ]
    found = {"controls": {"0": 0.2, "1": 0.18, "2": 0.26}, "setting": ["quickstart.yaml", "x"], "pairs": rows}
    assert "| world | 1 | 2 | 1 | 2 | 3.0 |" in aa.section({"world": found})
