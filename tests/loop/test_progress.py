"""What a run says while it runs: elsewhere than on a terminal, a line from time to time."""

from io import StringIO
from time import sleep

import pytest
from rich.console import Console

from loop.progress import Reporter, speed


def lines(every_s, wait_s):
    said = StringIO()
    with Reporter(Console(file=said, width=200), every_s).stage("train control 0", 600) as progress:
        progress.reach(25, "loss 1.50")
        sleep(wait_s)
    return said.getvalue().splitlines()


def test_a_stage_that_stands_still_is_heard_of():
    *running, end = lines(0.05, 0.5)
    assert len(running) >= 2
    assert all(line.startswith("train control 0       25 of 600, 0.0 min, ") for line in running)
    assert all(line.endswith("/s  loss 1.50") for line in [*running, end])
    assert end.startswith("train control 0       25 in 0.5")


def test_a_short_stage_has_one_line():
    assert len(lines(60.0, 0.0)) == 1


@pytest.mark.parametrize(
    ("done", "elapsed_s", "told"),
    [(100, 4.0, "25.0/s"), (2, 57.8, "28.9 s each"), (0, 57.8, "0.0/s"), (1, 20.0, "0.1/s")],
)
def test_slow_items_are_told_in_seconds(done, elapsed_s, told):
    assert speed(done, elapsed_s) == told
