"""The loop's side of a detector family: the module that trains it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from actors.detectors.base import DetectorBase, Setting
from loop.hosting.launch import OnProgress
from loop.hosting.records import Place
from loop.hosting.resume import Memory
from loop.training.job import TrainJob

if TYPE_CHECKING:
    from torch import nn

PROGRESS_S = 2.0  # between two reports of a training's progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network after its last step, and how that was reached."""

    network: "nn.Module"  # with the weights to keep: the moving average, where the family has one
    losses: tuple[dict[str, float], ...]  # one entry an epoch: steps so far, learning rate, each loss
    seconds: float  # in the training loop, this attempt
    images: int  # shown in the training loop, this attempt, all workers
    precision: str  # of the forward pass: float32, bfloat16 or float16


class Trainer(Protocol):
    """The module that ``DetectorBase.trainer`` names. Importing it loads nothing heavy."""

    def check_settings(self, overrides: Mapping[str, Setting]) -> None:
        """Raise ValueError where ``training.overrides`` has a setting that the family does not know or allow."""
        ...

    def train(self, job: TrainJob, network: "nn.Module", place: Place, memory: Memory, progress: OnProgress) -> Trained:
        """Train ``network`` on the batches of ``job.mixture()`` for ``job.training.steps`` steps.

        Runs on every worker of ``place``, each with its part of a batch. An epoch is ``job.training.epoch_steps``
        steps; after each but the last, all workers call ``memory.keep``, and a training starts from what
        ``memory.recall`` returns. With ``job.training.background_ignore`` the background of synthetic images gives no
        loss, and boxes flagged ignore are neither object nor background (see ``actors.detectors.background_ignore``).
        Draws of the kind ``clean`` are images of ``job.clean``: real ones without boxes, all of them background.
        Equal jobs give equal weights on one kind of hardware, interrupted or not.

        Raises ValueError or FileNotFoundError where the job cannot be done as it is.
        """
        ...


def trainer_of(detector: DetectorBase) -> Trainer:
    """The trainer of a detector's family. Raises ValueError where it cannot be imported or is none."""
    name = detector.trainer
    try:
        trainer: Trainer = import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"detector.kind: {detector.kind} is trained by {name}, which cannot be imported: {error}"
        ) from error
    missing = [part for part in ("check_settings", "train") if not callable(getattr(trainer, part, None))]
    if missing:
        raise ValueError(f"detector.kind: {detector.kind} is trained by {name}, which lacks {' and '.join(missing)}")
    return trainer
