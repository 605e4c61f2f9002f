"""What one training worker does: build the detector, train it, keep the state of a long training, write the result."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.seeds import derive_seed
from loop.hosting.records import Outcome, Place, Progress
from loop.hosting.resume import Memory
from loop.training.job import TrainJob

if TYPE_CHECKING:
    from torch import nn


def run_training(
    job: TrainJob, place: Place, memory: Memory, progress: Callable[[Progress], None], num_threads: int
) -> Outcome:
    """Train one job and, as the first worker, write its checkpoint.

    Raises ValueError or FileNotFoundError where the job cannot be done as it is.
    """
    from actors.detectors.ultralytics.weights import import_ultralytics, save_checkpoint

    import_ultralytics()
    import torch

    from loop.training.ultralytics.trainer import Training

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

    from actors.detectors.ultralytics.weights import architecture, load_checkpoint, load_weights

    if job.start is not None:
        known: Any = load_checkpoint(job.detector, job.start)
        if (classes := tuple(known.names.values())) != job.classes:
            raise ValueError(f"{job.start}: finds {classes}, but the data set has {job.classes}")
        return known, {}
    torch.manual_seed(derive_seed(job.seed, "weights"))
    model: Any = architecture(job.detector, len(job.classes))
    model.names = dict(enumerate(job.classes))
    return model, load_weights(model, job.detector).counts if job.training.start == "weights" else {}
