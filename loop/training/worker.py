"""One training worker: build the detector, train it, write the result."""

from typing import TYPE_CHECKING

from actors.seeds import derive_seed
from loop.hosting.launch import OnProgress
from loop.hosting.platform import this_platform
from loop.hosting.records import Outcome, Place
from loop.hosting.resume import Memory
from loop.training.base import trainer_of
from loop.training.job import TrainJob

if TYPE_CHECKING:
    from torch import nn


def run_training(job: TrainJob, place: Place, memory: Memory, progress: OnProgress, num_threads: int) -> Outcome:
    """Train one job and, as the first worker, write its checkpoint.

    Raises ValueError or FileNotFoundError where the job cannot be done as it is.
    """
    import torch

    torch.set_num_threads(num_threads)
    network, weights = start_network(job)
    trained = trainer_of(job.detector).train(job, network, place, memory, progress)
    if place.rank == 0:
        job.detector.save_checkpoint(trained.network, job.classes, job.checkpoint)
    return Outcome(
        losses=trained.losses,
        seconds=trained.seconds,
        images=trained.images,
        precision=trained.precision,
        platform=this_platform("cpu" if place.device == "cpu" else "cuda", job.detector.libraries),
        weights=weights,
    )


def start_network(job: TrainJob) -> tuple["nn.Module", dict[str, int]]:
    """The detector before its first step, and the number of its tensors by what foreign weights did to them.

    Raises ValueError or FileNotFoundError where what it is to start from is missing or does not fit.
    """
    import torch

    if job.start is not None:
        network, classes = job.detector.load_checkpoint(job.start)
        if classes != job.classes:
            raise ValueError(f"{job.start}: detects {classes}, but the data set has {job.classes}")
        return network, {}
    torch.manual_seed(derive_seed(job.seed, "weights"))
    network = job.detector.architecture(len(job.classes))
    if job.training.start != "weights":
        return network, {}
    return network, job.detector.load_weights(network, job.classes).counts
