"""The callable of a Ray Data actor: a plain component, opened once and called batch by batch.

The in-process engine uses the same host, so that a debugger and the unit tests run the code of a cluster.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.rows import Row

log = logging.getLogger(__name__)

NUM_ATTEMPTS = 2


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
    """

    def __init__(self, stage: str, open_component: OpenComponent, forgets: Sequence[str] = ()) -> None:
        """``forgets`` names columns to remove, so that pixels are not sent to stages that do not need them."""
        self.stage = stage
        self.forgets = frozenset(forgets)
        self.component = open_component()

    def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch (columns of equal length) with the component's columns and its seconds per row added."""
        return join_rows(self.process(split_rows(batch)))

    def process(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with the component's columns added."""
        start = time.perf_counter()
        healthy = [row for row in rows if not row["error"]]
        added = iter(self._attempt(healthy))
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

    def _attempt(self, rows: list[Row]) -> list[Row]:
        if not rows:
            return []
        try:
            return self.component(rows)
        except Exception:
            if len(rows) == 1:
                return [self._attempt_alone(rows[0])]
            log.warning("%s: a batch of %d failed; retrying row by row", self.stage, len(rows), exc_info=True)
            return [self._attempt_alone(row) for row in rows]

    def _attempt_alone(self, row: Row) -> Row:
        message = ""
        for _ in range(NUM_ATTEMPTS):
            try:
                return self.component([row])[0]
            except Exception as error:  # noqa: BLE001 - errors of single rows are recorded, and counted by the round
                message = f"{self.stage}: {type(error).__name__}: {error}"
                log.warning("%s: row %s: %s", self.stage, row["id"], message)
        return {**self.component.blank(), "error": message}


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
