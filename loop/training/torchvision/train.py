"""The trainer of torchvision's detectors, as ``loop.training.base`` asks for it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.detectors.base import Setting
from loop.hosting.launch import OnProgress
from loop.hosting.records import Place
from loop.hosting.resume import Memory
from loop.training.base import Trained
from loop.training.job import TrainJob
from loop.training.torchvision.settings import read_settings

if TYPE_CHECKING:
    from torch import nn


def check_settings(overrides: Mapping[str, Setting]) -> None:
    """Raise ValueError where ``training.overrides`` has an unknown setting or a bad value."""
    read_settings(overrides)


def train(job: TrainJob, network: "nn.Module", place: Place, memory: Memory, progress: OnProgress) -> Trained:
    """Train ``network`` (see ``loop.training.base.Trainer``); the weights are their exponential moving average."""
    import torch

    from loop.training.torchvision.training import Training

    training = Training(job, network, place, memory, progress)
    try:
        training.run()
    except torch.OutOfMemoryError as error:
        size = f"training.batch_size ({job.training.batch_size}) or detector.image_size_px"
        raise ValueError(f"out of memory: lower {size}") from error
    return Trained(
        network=training.average.module,
        losses=tuple(training.losses),
        seconds=training.seconds,
        images=training.done * job.training.batch_size,
        precision=str(training.dtype).removeprefix("torch."),
    )
