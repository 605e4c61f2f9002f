"""The time of a run, estimated before it starts."""

import json
import re

import pytest

from loop import duration
from loop.config import LoopConfig


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (10, r"about 1 min of training .* \(under 2 min"),
        (100_000, r"about \d+ h of training on an idle machine, .* \(\d+ h to \d+ h, by processor\)"),
    ],
)
def test_long_runs_are_told_in_hours(tmp_path, steps, told):
    training = {"steps": steps, "epoch_steps": 10}
    tree = {"name": "x", "root": str(tmp_path), "rounds": 0, "data": {"format": "world"}, "training": training}
    assert re.match(told, duration.told(LoopConfig.model_validate(tree), steps, 0))


def test_a_stored_run_that_is_refused_today_does_not_stop_a_plan(tmp_path):
    config = LoopConfig.model_validate({"name": "x", "root": str(tmp_path), "rounds": 1, "data": {"format": "world"}})
    before = duration.told(config, 1, 10)
    for name, section in (("other", {"kind": "of another time"}), ("same", config.science()["detector"])):
        (tmp_path / name / "rounds" / "001").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps({"schema": 0, "detector": section}))
    assert duration.told(config, 1, 10) == before
