"""How a command ends that did not finish: one sentence for what a user can mend, and how to go on after a stop."""

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded", "os error 28", "OutOfDiskError")
"""What libraries say about a full disk."""

FULL_CODES = {errno.ENOSPC, errno.EDQUOT}


def explain(error: BaseException) -> str | None:
    """What a user is told of an error; None if it is a fault of the program, which needs its traceback.

    Errors of Ray's workers are explained by their causes.
    """
    if full := next((one for one in _causes(error) if _is_full(one)), None):
        file = getattr(full, "filename", None)
        place = f" ({file})" if file else ""
        return f"the disk is full{place}: free some space; the same command continues where this one stopped"
    while isinstance(cause := getattr(error, "cause", None), BaseException):  # in an error of Ray's
        error = cause
    return str(error) or type(error).__name__ if isinstance(error, ValueError | OSError) else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it wraps, and what was being handled when it was raised."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        wrapped = getattr(error, "cause", None)
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in FULL_CODES or any(text in str(error) for text in FULL)


class Stopped(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def resumable() -> Iterator[None]:
    """Ends the command at Ctrl-C or SIGTERM with a line that says how to go on, and status 130 or 143."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except KeyboardInterrupt as stop:
        number = signal.SIGTERM if isinstance(stop, Stopped) else signal.SIGINT
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do takes a moment
        typer.echo("\ndetloop: stopped. The same command continues where this one stopped.", err=True)
        sys.stderr.flush()
        raise typer.Exit(128 + number) from None


def _stop(_: int, __: FrameType | None) -> None:
    raise Stopped
