"""The trainer of ultralytics' detectors; see ``loop.training.base``."""

from typing import TYPE_CHECKING

from loop.hosting.launch import OnProgress
from loop.hosting.records import Place
from loop.hosting.resume import Memory
from loop.training.base import Trained
from loop.training.job import TrainJob
from loop.training.ultralytics.settings import check_settings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_settings", "train"]


def train(job: TrainJob, network: "nn.Module", place: Place, memory: Memory, progress: OnProgress) -> Trained:
    """Train by ultralytics' own trainer; the weights are its exponential moving average."""
    from actors.detectors.ultralytics.weights import import_ultralytics

    import_ultralytics()
    from loop.training.ultralytics.trainer import Training

    training = Training(job, network, place, memory, progress)
    training.train()
    return Trained(
        network=training.ema.ema,
        losses=tuple(training.losses),
        seconds=training.seconds,
        images=training.done * job.training.batch_size,
        precision=str(training.dtype).removeprefix("torch."),
    )
