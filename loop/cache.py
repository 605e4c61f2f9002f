"""Cache of mined instances and candidates, shared by the runs below one root and keyed by everything they depend on."""

import hashlib
from collections.abc import Sequence
from functools import cached_property

from upath import UPath

from actors.hosting import Component, OpenComponent
from actors.rows import Row
from actors.storage import exclusive, read_arrays, write_arrays
from loop.config import LoopConfig


def shared_place(
    kind: str, config: LoopConfig, sections: Sequence[str], files: Sequence[str | UPath | None]
) -> UPath | None:
    """The folder of ``kind`` below the root for results that depend on these sections of ``config`` and these files.

    None if ``config`` does not share.
    """
    if not config.hosting.share_candidates:
        return None
    parts = [config.fingerprint(*sections)]
    parts += [hashlib.sha256(UPath(file).read_bytes()).hexdigest() if file else "" for file in files]
    return UPath(config.root) / kind / hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


class Remembered:
    """A component whose columns are cached on disk by row id.

    The columns of a row must depend only on its id and the folder. The component is opened when it is first needed.
    """

    def __init__(self, open_component: OpenComponent, folder: str) -> None:
        """``folder`` is a path or an fsspec URI."""
        self.open_component = open_component
        self.folder = UPath(folder)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The component's columns, from the cache or computed and cached."""
        if missing := self._missing(batch):
            with exclusive(self._file(missing[0])):
                self._compute(self._missing(missing))
        return [read_arrays(self._file(row)) for row in batch]

    def blank(self) -> Row:
        """The component's blank row."""
        return self._component.blank()

    @cached_property
    def _component(self) -> Component:
        return self.open_component()

    def _compute(self, batch: Sequence[Row]) -> None:
        columns = self._component(batch) if batch else []
        for row, added in zip(batch, columns, strict=True):
            write_arrays(self._file(row), added)

    def _missing(self, batch: Sequence[Row]) -> list[Row]:
        return [row for row in batch if not self._file(row).exists()]

    def _file(self, row: Row) -> UPath:
        return self.folder / f"{row['id']}.npz"
