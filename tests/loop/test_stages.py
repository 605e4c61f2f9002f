"""Streams of rows through small real components: in this process, on Ray, and on Ray with actors that die."""

import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from loop.hosting.config import HostingConfig, RoleConfig
from loop.hosting.engine import engine
from loop.hosting.records import ActorFailedError
from loop.stages import Stage, Stream, collect

NUM_ROWS = 23


class Paint:
    """Draws a picture and boxes whose sizes differ from row to row, all from the row's number."""

    def __call__(self, batch):
        return [self.paint(row["number"]) for row in batch]

    def paint(self, number):
        rng = np.random.default_rng(number)
        return {
            "pixels": rng.integers(0, 256, (3 + number % 3, 4, 3), np.uint8),
            "boxes": rng.random((number % 4, 4)).astype(np.float32),
        }

    def blank(self):
        return {"pixels": np.zeros((1, 1, 3), np.uint8), "boxes": np.zeros((0, 4), np.float32)}


class Measure:
    """Measures what was painted, and says who did it."""

    def __call__(self, batch):
        return [self.measure(row["pixels"], row["boxes"].reshape(-1, 4)) for row in batch]

    def measure(self, pixels, boxes):
        assert pixels.dtype == np.uint8
        return {"brightness": int(pixels.sum()), "corner": boxes.sum(axis=0), "num_boxes": len(boxes)}

    def blank(self):
        return {"brightness": -1, "corner": np.zeros(4, np.float32), "num_boxes": 0}


class Fragile(Measure):
    """Raises on one row, every time."""

    def __init__(self, bad):
        self.bad = bad

    def __call__(self, batch):
        if any(row["number"] == self.bad for row in batch):
            raise RuntimeError("this one is bad")
        return super().__call__(batch)


class Deadly(Measure):
    """Kills its own process on one row; with a marker file, only the first time."""

    def __init__(self, bad, marker=None):
        self.bad, self.marker = bad, marker

    def __call__(self, batch):
        if any(row["number"] == self.bad for row in batch) and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


class Hanging(Measure):
    """Does not answer for one row: waits, or holds the interpreter's lock."""

    def __init__(self, bad, *, locked=False):
        self.bad, self.locked = bad, locked

    def __call__(self, batch):
        if any(row["number"] == self.bad for row in batch):
            if self.locked:
                re.match("(a+)+b", "a" * 60)
            time.sleep(600)
        return super().__call__(batch)


class Closed(Measure):
    """Cannot be opened."""

    def __init__(self):
        raise FileNotFoundError("there is no such checkpoint")


@pytest.fixture(scope="module")
def ray_engine():
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    hosting = HostingConfig(engine="ray", num_cpus=4)
    with engine(hosting):
        yield hosting


INLINE = HostingConfig(engine="inline")


def stream(measure=Measure, *, batch_size=4, num_actors=1, num_rows=NUM_ROWS, timeout_s=60.0):
    rows = tuple({"id": f"row{number:03d}", "number": number, "error": ""} for number in range(num_rows))
    role = RoleConfig(num_actors=num_actors, num_cpus=0.25, batch_size=batch_size, timeout_s=timeout_s)
    paint = Stage(name="paint", open_component=Paint, role=role)
    return (
        Stream(rows=rows)
        .then(paint)
        .then(Stage(name="measure", open_component=measure, role=role, forgets=("pixels",)))
    )


def run(stream, hosting):
    seen = []
    collected = collect(stream, hosting, lambda row: seen.append(row["id"]))
    assert sorted(seen) == [row["id"] for row in collected.rows]  # each row is announced once
    return collected


def plain(collected):
    """The rows without their timings, as values that compare."""
    return [
        {
            name: value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
            for name, value in row.items()
            if not name.endswith("_s")
        }
        for row in collected.rows
    ]


@pytest.fixture(scope="module")
def expected():
    return plain(run(stream(), INLINE))


def test_inline_gives_every_row_by_id(expected):
    assert [row["id"] for row in expected] == [f"row{number:03d}" for number in range(NUM_ROWS)]
    assert all("pixels" not in row and row["error"] == "" for row in expected)
    first = Paint().paint(5)
    assert expected[5]["brightness"] == int(first["pixels"].sum())
    assert expected[5]["boxes"] == first["boxes"].reshape(-1).tolist()


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_inline_batch_sizes_change_nothing(expected, batch_size):
    assert plain(run(stream(batch_size=batch_size), INLINE)) == expected


def test_inline_a_bad_row_harms_no_other(expected):
    collected = run(stream(partial(Fragile, 7)), INLINE)
    assert_one_failed(plain(collected), expected, 7, "measure: RuntimeError: this one is bad")


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_row_that_hangs_is_tried_once_more_and_dropped_and_harms_no_other(engine, request, expected, capfd):
    hosting = request.getfixturevalue("ray_engine") if engine == "ray" else INLINE
    collected = run(stream(partial(Hanging, 7), timeout_s=0.3), hosting)
    assert_one_failed(
        plain(collected), expected, 7, "measure: no answer within 0.3 s (timeout_s of its role, times rows)"
    )
    assert capfd.readouterr() == ("", "")


def test_ray_a_row_that_cannot_be_interrupted_ends_its_process_and_is_dropped(ray_engine, expected, capfd):
    rows = plain(run(stream(partial(Hanging, 7, locked=True), timeout_s=0.3, num_rows=8), ray_engine))
    assert [row for row in rows if row["number"] != 7] == expected[:7]
    assert "died" in rows[7]["error"]
    assert capfd.readouterr() == ("", "")  # Ray's remarks on the dead process stay in its logs


class Count:
    """Counts the rows that it was given at once, at most so far."""

    def __call__(self, batch):
        return [{"batch": len(batch)} for _ in batch]

    def blank(self):
        return {"batch": 0}


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_rows_do_not_wait_for_those_that_the_stage_before_has_not_finished(engine, request):
    hosting = request.getfixturevalue("ray_engine") if engine == "ray" else INLINE
    seen, rows = [], tuple({"id": f"row{number:03d}", "number": number, "error": ""} for number in range(NUM_ROWS))
    small, large = (RoleConfig(num_cpus=0.25, batch_size=size) for size in (2, 16))
    chain = Stream(rows=rows).then(Stage(name="first", open_component=Paint, role=small))
    collect(chain.then(Stage(name="then", open_component=Count, role=large)), hosting, seen.append)
    assert {row["batch"] for row in seen} <= {1, 2}


class Killed(Paint):
    """Kills its process at one row."""

    def paint(self, number):
        if number == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().paint(number)


class Write:
    """Writes a file for each row."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, batch):
        for row in batch:
            (self.folder / row["id"]).touch()
        return [{} for _ in batch]

    def blank(self):
        return {}


def test_a_kill_in_mid_generation_loses_one_batch(tmp_path):
    rows = tuple({"id": f"row{number:03d}", "number": number, "error": ""} for number in range(NUM_ROWS))
    roles = HostingConfig(engine="inline")
    chain = Stream(rows=rows).then(Stage(name="generate", open_component=Killed, role=roles.generate))
    chain = chain.then(Stage(name="keep", open_component=partial(Write, tmp_path), role=roles.keep))
    child = multiprocessing.get_context("fork").Process(target=collect, args=(chain, roles, lambda _: None))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 8


def test_no_rows_give_no_rows():
    assert run(stream(num_rows=0), INLINE).rows == ()


def test_ray_gives_what_inline_gives(ray_engine, expected, capfd):
    collected = run(stream(), ray_engine)
    assert plain(collected) == expected
    assert collected.cost.seconds.keys() == {"paint", "measure"}
    assert collected.cost.num_items == NUM_ROWS
    assert 0 < collected.cost.engine_s <= collected.cost.wall_s
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_ray_batch_sizes_and_actors_change_nothing(ray_engine, expected):
    assert plain(run(stream(batch_size=1, num_actors=2), ray_engine)) == expected


def test_ray_a_bad_row_in_a_large_batch_harms_no_other(ray_engine, expected):
    collected = run(stream(partial(Fragile, 7), batch_size=50), ray_engine)
    assert_one_failed(plain(collected), expected, 7, "measure: RuntimeError: this one is bad")


def test_ray_an_actor_that_dies_costs_nothing(ray_engine, expected, tmp_path, capfd):
    marker = tmp_path / "died"
    collected = run(stream(partial(Deadly, 7, str(marker)), num_actors=2), ray_engine)
    assert marker.exists()
    assert plain(collected) == expected
    assert capfd.readouterr() == ("", "")


def test_ray_a_row_that_kills_its_process_comes_back_with_an_error(ray_engine, expected, caplog):
    with caplog.at_level(logging.WARNING, "loop"):
        rows = plain(run(stream(partial(Deadly, 7)), ray_engine))
    assert [row for row in rows if row["number"] != 7] == [row for row in expected if row["number"] != 7]
    assert "died" in rows[7]["error"]
    assert "did not come back" in caplog.text


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_component_that_cannot_be_opened_ends_the_stream(engine, request):
    hosting = request.getfixturevalue("ray_engine") if engine == "ray" else INLINE
    with pytest.raises((FileNotFoundError, ActorFailedError), match="there is no such checkpoint") as raised:
        run(stream(Closed), hosting)
    assert len(str(raised.value).splitlines()) == 1
    assert engine == "inline" or str(raised.value).startswith("measure cannot be opened: FileNotFoundError")


def test_ray_no_rows_start_nothing(ray_engine):
    assert run(stream(num_rows=0), ray_engine).rows == ()


def assert_one_failed(rows, expected, number, error):
    assert [row for row in rows if row["number"] != number] == [row for row in expected if row["number"] != number]
    assert rows[number]["error"] == error
    assert rows[number]["brightness"] == -1
