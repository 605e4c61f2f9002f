"""The state of an unfinished training, saved at intervals, so that a lost worker costs little."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from loop.hosting.records import Place

State = dict[str, Any]
STATE_FILE = "state.pt"


class Memory(Protocol):
    """Stores the state of an unfinished training."""

    def recall(self) -> State | None:
        """The state to resume from, if there is one."""
        ...

    def keep(self, snapshot: Callable[[], State]) -> None:
        """Save the state at the end of an epoch if it is due; ``snapshot`` returns it."""
        ...


class NoMemory:
    """Stores nothing, for trainings in this process: an interrupted one starts again, with the same result."""

    def recall(self) -> State | None:
        """None."""
        return None

    def keep(self, snapshot: Callable[[], State]) -> None:
        """Do nothing."""


class RayMemory:
    """Stores the state in Ray Train's storage. The first worker writes it every ``every_s`` seconds at most."""

    def __init__(self, place: Place, fingerprint: str, every_s: float) -> None:
        self.place, self.fingerprint, self.every_s = place, fingerprint, every_s
        self.kept = time.perf_counter()

    def recall(self) -> State | None:
        """The last state of the training of this name. Raises ValueError if it belongs to another job."""
        import ray.train
        import torch

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            state: State = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
        if state["job"] != self.fingerprint:
            raise ValueError(f"{checkpoint.path} holds the state of another training; give this one another name")
        return state

    def keep(self, snapshot: Callable[[], State]) -> None:
        """Write the state if it is due by the first worker's clock. Every worker must call this."""
        import ray.train
        import torch

        if not self._due():
            return
        checkpoint = None
        if self.place.rank == 0:
            folder = Path(self.place.folder) / "state"
            folder.mkdir(exist_ok=True)
            torch.save({**snapshot(), "job": self.fingerprint}, folder / STATE_FILE)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({}, checkpoint=checkpoint)
        self.kept = time.perf_counter()

    def _due(self) -> bool:
        due = [time.perf_counter() - self.kept >= self.every_s]
        if self.place.num_workers > 1:
            from torch import distributed

            distributed.broadcast_object_list(due, src=0)
        return due[0]
