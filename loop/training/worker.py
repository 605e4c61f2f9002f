"""What one training worker does: build the detector, train it, keep the state of a long training, write the result."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.seeds import derive_seed
from loop.training.job import Outcome, Place, Progress, TrainJob

if TYPE_CHECKING:
    from torch import nn

    from loop.training.ultralytics import Memory

State = dict[str, Any]
STATE_FILE = "state.pt"


class NoMemory:
    """For trainings in this process: an interrupted one starts again from its beginning, and ends the same."""

    def recall(self) -> State | None:
        """Nothing."""
        return None

    def keep(self, snapshot: Callable[[], State]) -> None:
        """Not kept."""


class RayMemory:
    """The state in Ray Train's own storage, written by the first worker when the last one is ``every_s`` old."""

    def __init__(self, place: Place, fingerprint: str, every_s: float) -> None:
        self.place, self.fingerprint, self.every_s = place, fingerprint, every_s
        self.kept = time.perf_counter()

    def recall(self) -> State | None:
        """The last state of the training of this name. Raises ValueError where that was another job."""
        import ray.train
        import torch

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            state: State = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
        if state["job"] != self.fingerprint:
            raise ValueError(f"{checkpoint.path} holds the state of another training; give this one a name of its own")
        return state

    def keep(self, snapshot: Callable[[], State]) -> None:
        """Write the state if it is time; every worker must call this, and the first one's clock counts."""
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


def run_training(
    job: TrainJob, place: Place, memory: "Memory", progress: Callable[[Progress], None], num_threads: int
) -> Outcome:
    """Train one job and, as the first worker, write its checkpoint.

    Raises ValueError or FileNotFoundError where the job cannot be done as it is.
    """
    from actors.detectors.ultralytics import import_ultralytics, save_checkpoint

    import_ultralytics()
    import torch

    from loop.training.ultralytics import Training

    torch.set_num_threads(num_threads)
    model, weights = start_model(job)
    training = Training(job, model, place, memory, progress)
    training.train()
    if place.rank == 0:
        save_checkpoint(training.ema.ema, job.detector, job.classes, job.checkpoint)
    return Outcome(
        losses=tuple(training.losses),
        seconds=training.seconds,
        images=training.done * job.training.batch_size,
        precision=str(training.dtype).removeprefix("torch."),
        weights=weights,
    )


def start_model(job: TrainJob) -> tuple["nn.Module", dict[str, int]]:
    """The detector before its first step, and what became of its tensors where it was given foreign weights.

    Raises ValueError or FileNotFoundError where what it is to start from is missing or does not fit.
    """
    import torch

    from actors.detectors.ultralytics import architecture, load_checkpoint, load_weights

    if job.start is not None:
        known: Any = load_checkpoint(job.detector, job.start)
        if (classes := tuple(known.names.values())) != job.classes:
            raise ValueError(f"{job.start}: finds {classes}, but the data set has {job.classes}")
        return known, {}
    torch.manual_seed(derive_seed(job.seed, "weights"))
    model: Any = architecture(job.detector, len(job.classes))
    model.names = dict(enumerate(job.classes))
    return model, load_weights(model, job.detector).counts if job.training.start == "weights" else {}
