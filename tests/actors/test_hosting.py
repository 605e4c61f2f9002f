"""The host of a component: rows in, columns added; one row's fault stays its own."""

import logging
import threading
import time

import numpy as np
import pytest

from actors.hosting import TIMED_OUT, Host, join_rows, split_rows


class Square:
    """Adds the square of a number; raises on those in ``bad``, as often as it says."""

    def __init__(self, bad):
        self.bad = dict(bad)
        self.calls = []

    def __call__(self, batch):
        self.calls.append([row["number"] for row in batch])
        for row in batch:
            if self.bad.get(row["number"], 0) > 0:
                self.bad[row["number"]] -= 1
                raise ArithmeticError(f"{row['number']} is bad")
        return [{"square": row["number"] ** 2, "trace": np.arange(row["number"])} for row in batch]

    def blank(self):
        return {"square": -1, "trace": np.zeros(0, np.int64)}


def rows(*numbers):
    return [{"id": f"row{number}", "number": number, "error": ""} for number in numbers]


def host(bad=(), forgets=()):
    return Host("square", lambda: Square(bad), forgets)


def test_columns_are_added_to_every_row_in_order():
    done = host().process(rows(3, 1, 2))
    assert [(row["id"], row["square"], row["error"]) for row in done] == [
        ("row3", 9, ""),
        ("row1", 1, ""),
        ("row2", 4, ""),
    ]
    assert all(row["square_s"] >= 0 for row in done)


def test_a_row_that_raises_does_no_harm_to_the_others(caplog):
    always = 99
    served = host({2: always})
    with caplog.at_level(logging.WARNING):
        done = served.process(rows(1, 2, 3))
    assert [row["square"] for row in done] == [1, -1, 9]
    assert [row["error"] for row in done] == ["", "square: ArithmeticError: 2 is bad", ""]
    assert served.component.calls == [[1, 2, 3], [1], [2], [2], [3]]  # together, then alone, the bad one twice
    assert "row2" in caplog.text


def test_a_fault_that_passes_is_no_error():
    done = host({2: 2}).process(rows(1, 2, 3))
    assert [(row["square"], row["error"]) for row in done] == [(1, ""), (4, ""), (9, "")]


def test_a_lone_row_is_tried_again_too():
    assert [row["error"] for row in host({2: 1}).process(rows(2))] == [""]


def test_a_row_with_an_error_passes_by():
    served = host()
    failed = {"id": "rowX", "number": 7, "error": "generate: it failed"}
    done = served.process([*rows(1), failed, *rows(2)])
    assert served.component.calls == [[1, 2]]
    assert [(row["id"], row["square"], row["error"]) for row in done] == [
        ("row1", 1, ""),
        ("rowX", -1, "generate: it failed"),
        ("row2", 4, ""),
    ]


def test_a_batch_of_errors_alone_does_not_wake_the_component():
    served = host()
    served.process([{"id": "rowX", "number": 7, "error": "generate: it failed"}])
    assert served.component.calls == []


class Hanging(Square):
    """Waits on one number until ``released``."""

    released = threading.Event()

    def __call__(self, batch):
        if any(row["number"] == 2 for row in batch):
            self.released.wait(30)
        return super().__call__(batch)


def test_a_batch_that_hangs_is_left_behind_and_a_new_component_takes_the_next():
    served = Host("square", lambda: Hanging({}), timeout_s=0.1)
    first, start = served.component, time.monotonic()
    done = served.process(rows(1, 2, 3))
    assert 0.3 <= time.monotonic() - start < 5
    assert [row["error"] for row in done] == ["square: no answer within 0.3 s (timeout_s of its role, times rows)"] * 3
    assert all(TIMED_OUT in row["error"] and row["square"] == -1 for row in done)
    assert [row["square"] for row in served.process(rows(1, 3))] == [1, 9]
    assert served.component is not first
    Hanging.released.set()


def test_a_component_within_its_time_is_not_limited_by_a_timeout_that_it_raises_itself():
    class Raises(Square):
        def __call__(self, _batch):
            raise TimeoutError("the server is slow")

    (row,) = Host("square", lambda: Raises({}), timeout_s=5.0).process(rows(1))
    assert row["error"] == "square: TimeoutError: the server is slow"


def test_columns_that_nobody_needs_any_more_are_forgotten():
    done = host(forgets=("number", "trace")).process(rows(1, 2))
    assert [set(row) for row in done] == [{"id", "error", "square", "square_s"}] * 2


def test_batches_of_columns_go_in_and_out():
    batch = join_rows(rows(0, 3, 1))
    done = host({3: 99})(batch)
    assert done["id"].tolist() == ["row0", "row3", "row1"]
    assert done["square"].tolist() == [0, -1, 1]
    assert [len(trace) for trace in done["trace"]] == [0, 0, 1]


@pytest.mark.parametrize(
    "cells",
    [
        [np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32)],
        [np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)],
        [np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)],
        [np.zeros((5, 6, 3), np.uint8), np.ones((6, 5, 3), np.uint8)],
        [np.array([True, False]), np.array([], np.bool_)],
        ["", "a much longer text"],
        [1, 2**62],
        [0.5, 1e-300],
        [True, False],
    ],
    ids=str,
)
def test_columns_split_into_the_cells_that_were_joined(cells):
    back = [row["cell"] for row in split_rows(join_rows([{"cell": cell} for cell in cells]))]
    for ours, theirs in zip(back, cells, strict=True):
        assert type(ours) is type(theirs)
        assert np.array_equal(ours, theirs)
        if isinstance(theirs, np.ndarray):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)


def test_no_rows_are_no_columns():
    assert join_rows([]) == {}
    assert split_rows({}) == []
    assert host().process([]) == []
