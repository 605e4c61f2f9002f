"""What Ray does to the process that starts it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.ray

STOPPED = """\
import os, signal, threading
from loop.endings import resumable
from loop.hosting.engine import started_ray

with resumable(), started_ray(1):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(30)
"""


def test_a_stop_by_sigterm_prints_one_line_and_no_stack_of_ray():
    done = subprocess.run([sys.executable, "-c", STOPPED], check=False, capture_output=True, text=True)  # noqa: S603 - our own
    said = [line for line in done.stderr.splitlines() if line]
    assert said[0] == "detloop: stopped. The same command continues where this one stopped."
    assert not [line for line in said if "SIGTERM received" in line or line.startswith("    @")]
