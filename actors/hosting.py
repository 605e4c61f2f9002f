"""The callable that Ray Data makes an actor of: a plain component, opened once, fed batch by batch.

The same host serves the in-process engine, so that a debugger and a unit test see what a cluster runs.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from actors.rows import Row

log = logging.getLogger(__name__)

NUM_ATTEMPTS = 2


class Component(Protocol):
    """What one kind of actor does with rows."""

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns that this stage adds to each row, in order."""
        ...

    def blank(self) -> Row:
        """The columns that it adds to a row which carries an error."""
        ...


OpenComponent = Callable[[], Component]


class Host:
    """Opens a component in its constructor and adds its columns to every row that passes.

    A restarted actor is its constructor's arguments again, so ``open_component`` must hold everything: configs and the
    URIs of checkpoints, no weights. A batch that raises is tried again row by row; a row that still raises goes on
    with its error and blank columns, and the others are not harmed.
    """

    def __init__(self, stage: str, open_component: OpenComponent, forgets: Sequence[str] = ()) -> None:
        """``forgets`` names the columns that no later stage needs, so that pixels do not travel to the driver."""
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
            log.warning("%s: a batch of %d failed, going on row by row", self.stage, len(rows), exc_info=True)
            return [self._attempt_alone(row) for row in rows]

    def _attempt_alone(self, row: Row) -> Row:
        message = ""
        for _ in range(NUM_ATTEMPTS):
            try:
                return self.component([row])[0]
            except Exception as error:  # noqa: BLE001 - any fault of one row is survived, recorded, and counted by the round
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


def _item(value: Any) -> Any:  # noqa: ANN401 - a cell of any column
    return value.item() if isinstance(value, np.generic) else value


def _column(cells: list[Any]) -> Any:  # noqa: ANN401 - an array column of any type
    if not isinstance(cells[0], np.ndarray):
        return np.array(cells, dtype=object if isinstance(cells[0], str) else None)
    if all(cell.shape == cells[0].shape for cell in cells):
        return np.stack(cells)
    column = np.empty(len(cells), dtype=object)
    for index, cell in enumerate(cells):
        column[index] = cell
    return column
