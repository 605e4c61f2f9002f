"""What MLflow could not be given yet, as files in the run's folder."""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from upath import UPath

from actors.storage import is_local, read_record, write_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Metrics and files for one MLflow run."""

    round: int  # from 1; 0 is the loop itself
    figures: dict[str, float]
    files: dict[str, str]  # base64, by name

    @classmethod
    def of(cls, number: int, figures: Mapping[str, float], files: Mapping[str, bytes]) -> Self:
        """The entry of a round, or of the loop if ``number`` is 0."""
        encoded = {name: b64encode(data).decode() for name, data in files.items()}
        return cls(round=number, figures={key: float(value) for key, value in figures.items()}, files=encoded)

    def contents(self) -> dict[str, bytes]:
        """The files by name."""
        return {name: b64decode(text) for name, text in self.files.items()}


@dataclass(frozen=True, slots=True)
class Outbox:
    """Entries that wait in ``folder``: one for each round, and one for the loop, of which the last one counts."""

    folder: UPath

    def waiting(self) -> list[UPath]:
        """The files of the entries, that of the loop first."""
        return sorted(self.folder.glob("[0-9]*.json"), key=lambda file: file.name)

    def put(self, entry: Entry) -> None:
        """Keep an entry. It replaces an earlier one of the same round."""
        write_record(self.folder / f"{entry.round:03d}.json", entry)

    def take(self) -> Iterator[Entry]:
        """The entries in order. Each is removed when the next one is asked for."""
        for file in self.waiting():
            yield read_record(file, Entry)
            file.unlink()
        if is_local(self.folder):
            with suppress(OSError):  # there is no folder, or a half-written file in it
                self.folder.rmdir()
