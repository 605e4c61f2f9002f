"""How a command ends that cannot finish: one sentence for what a user can mend, and a line on how to go on."""

import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest
import typer

from loop.endings import explain, resumable

FULL = "the disk is full"


def write_to_a_full_disk():
    with Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


def fill_a_database():
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA max_page_count = 1")
    database.execute("CREATE TABLE notes (text)")


def fail_in_the_clean_up():
    try:
        write_to_a_full_disk()
    finally:
        [].pop()


@pytest.mark.parametrize("call", [write_to_a_full_disk, fill_a_database, fail_in_the_clean_up])
def test_a_full_disk_is_named_wherever_it_was_noticed(call):
    with pytest.raises((OSError, sqlite3.OperationalError, IndexError)) as caught:
        call()
    said = explain(caught.value)
    assert said.startswith(FULL)
    assert "the same command continues" in said


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (OSError(28, "No space left on device", "/runs/a.png"), f"{FULL} (/runs/a.png)"),
        (ValueError("no box"), "no box"),
    ],
)
def test_an_error_of_a_worker_is_explained_by_its_cause(cause, said):
    from ray.exceptions import RayTaskError

    error = RayTaskError("work", "a traceback\n" * 300, cause).as_instanceof_cause()
    assert explain(error).startswith(said)
    assert "traceback" not in explain(error)


def test_faults_of_the_program_keep_their_traceback():
    assert explain(TypeError("f() takes 1 argument")) is None
    assert explain(KeyError("box")) is None


def stopped_by(number):
    with resumable():
        os.kill(os.getpid(), number)
        threading.Event().wait(10)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_how_to_go_on(number, status, capsys):
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(typer.Exit) as end:
            stopped_by(number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert end.value.exit_code == status
    assert capsys.readouterr().err == "\ndetloop: stopped. The same command continues where this one stopped.\n"
