"""The callable of a Ray Data actor: a plain component, opened once and called batch by batch.

The in-process engine uses the same host, so that a debugger and the unit tests run the code of a cluster.
"""

import faulthandler
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from threading import Thread
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.rows import Row

log = logging.getLogger(__name__)

NUM_ATTEMPTS = 2
STDERR = 2  # the file descriptor; in an actor it is a log of Ray's
TIMED_OUT = "no answer within"
"""Part of the error of a row whose batch took too long."""
NOT_OPENED = "cannot be opened:"
"""Part of the error of every row that comes to an actor without a component."""


class Component(Protocol):
    """The work of one kind of actor on rows."""

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns that this stage adds to each row, in order."""
        ...

    def blank(self) -> Row:
        """The columns for a row that carries an error."""
        ...


OpenComponent = Callable[[], Component]


class Host:
    """Opens a component in its constructor and adds its columns to every row.

    A restarted actor is constructed again from the same arguments, so ``open_component`` must hold everything it needs:
    configs and URIs of checkpoints, no weights. A batch that raises is retried row by row. A row that still raises is
    passed on with its error and blank columns; the other rows are not affected.

    A batch that takes too long is left alone: its rows are passed on with ``TIMED_OUT`` in their errors, and a new
    component takes the next batch.
    """

    def __init__(
        self,
        stage: str,
        open_component: OpenComponent,
        forgets: Sequence[str] = (),
        *,
        timeout_s: float = 0.0,
        expendable: bool = False,
    ) -> None:
        """Open the component. Raises what ``open_component`` raises, unless ``expendable``.

        Args:
            stage: Name of the stage, for errors and timings.
            open_component: Opens the component.
            forgets: Columns to remove, so that pixels are not sent to stages that do not need them.
            timeout_s: Seconds that a row may take; a batch of n rows may take n times as long. 0: no limit.
            expendable: This process may be ended, since Ray starts it again. See ``within``.
        """
        self.stage = stage
        self.forgets = frozenset(forgets)
        self.open_component, self.timeout_s, self.expendable = open_component, timeout_s, expendable
        self.hangs, self.fault = False, ""
        self._open()

    def _open(self) -> None:
        """Open the component. An actor that cannot says so in its rows: Ray would wrap the error into its own."""
        try:
            self.component, self.hangs = self.open_component(), False
        except Exception as error:
            if not self.expendable:
                raise
            log.exception("%s: cannot be opened", self.stage)
            self.fault = f"{self.stage} {NOT_OPENED} {type(error).__name__}: {error}"

    def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch (columns of equal length) with the component's columns and its seconds per row added."""
        return join_rows(self.process(split_rows(batch)))

    def process(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with the component's columns added."""
        if self.hangs:
            self._open()
        if self.fault:
            return [{**row, "error": self.fault, f"{self.stage}_s": 0.0} for row in rows]
        start = time.perf_counter()
        healthy = [row for row in rows if not row["error"]]
        added = iter(self._attempt_in_time(healthy))
        results = [next(added) if not row["error"] else self.component.blank() for row in rows]
        share_s = (time.perf_counter() - start) / max(len(rows), 1)
        return [
            {
                name: value
                for name, value in {**row, **new, f"{self.stage}_s": share_s}.items()
                if name not in self.forgets
            }
            for row, new in zip(rows, results, strict=True)
        ]

    def _attempt_in_time(self, rows: list[Row]) -> list[Row]:
        try:
            return self._attempt(rows)
        except BatchTimeoutError as error:
            self.hangs = True
            log.warning("%s: %d rows: %s", self.stage, len(rows), error)
            return [{**self.component.blank(), "error": f"{self.stage}: {error}"} for _ in rows]

    def _attempt(self, rows: list[Row]) -> list[Row]:
        if not rows:
            return []
        try:
            return self._call(rows)
        except BatchTimeoutError:
            raise
        except Exception:
            if len(rows) == 1:
                return [self._attempt_alone(rows[0])]
            log.warning("%s: a batch of %d failed; retrying row by row", self.stage, len(rows), exc_info=True)
            return [self._attempt_alone(row) for row in rows]

    def _attempt_alone(self, row: Row) -> Row:
        message = ""
        for _ in range(NUM_ATTEMPTS):
            try:
                return self._call([row])[0]
            except BatchTimeoutError:
                raise
            except Exception as error:  # noqa: BLE001 - errors of single rows are recorded, and counted by the round
                message = f"{self.stage}: {type(error).__name__}: {error}"
                log.warning("%s: row %s: %s", self.stage, row["id"], message)
        return {**self.component.blank(), "error": message}

    def _call(self, rows: list[Row]) -> list[Row]:
        return within(self.timeout_s * len(rows), partial(self.component, rows), expendable=self.expendable)


class BatchTimeoutError(Exception):
    """Raised if a component takes longer than its time."""


def within(limit_s: float, compute: Callable[[], list[Row]], *, expendable: bool) -> list[Row]:
    """The result of ``compute``, in a thread of its own; 0: without a limit, in this thread.

    A thread cannot be ended: one that hangs is left behind. One that holds the interpreter's lock stops this thread
    too: an ``expendable`` process then ends after twice the time, with the stacks of its threads on stderr.

    Raises BatchTimeoutError after ``limit_s`` seconds, and what ``compute`` raises.
    """
    if not limit_s:
        return compute()
    answer = Future[list[Row]]()

    def work() -> None:
        try:
            answer.set_result(compute())
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            answer.set_exception(error)

    if expendable:
        faulthandler.dump_traceback_later(2 * limit_s, exit=True, file=STDERR)
    try:
        Thread(target=work, daemon=True).start()
        return answer.result(timeout=limit_s)
    except FutureTimeoutError:
        if answer.done():  # raised by the component
            raise
        raise BatchTimeoutError(f"{TIMED_OUT} {limit_s:g} s (timeout_s of its role, times rows)") from None
    finally:
        if expendable:
            faulthandler.cancel_dump_traceback_later()


def split_rows(batch: Mapping[str, Any]) -> list[Row]:
    """The rows of a batch of columns."""
    num_rows = len(next(iter(batch.values()), ()))
    return [{name: _item(column[index]) for name, column in batch.items()} for index in range(num_rows)]


def join_rows(rows: Sequence[Row]) -> Row:
    """The batch of columns of rows with the same keys; arrays of unequal shapes become object columns."""
    names = rows[0].keys() if rows else ()
    return {name: _column([row[name] for row in rows]) for name in names}


def _item(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _column(cells: list[Any]) -> NDArray[Any]:
    if not isinstance(cells[0], np.ndarray):
        return np.array(cells, dtype=object if isinstance(cells[0], str) else None)
    if all(cell.shape == cells[0].shape for cell in cells):
        return np.stack(cells)
    column = np.empty(len(cells), dtype=object)
    for index, cell in enumerate(cells):
        column[index] = cell
    return column
