"""Retraining under Ray Train, or in this process for a debugger; equal jobs give equal checkpoints either way."""

import time

from loop.hosting.config import HostingConfig
from loop.hosting.launch import OnProgress, check_parts, launch
from loop.training.base import trainer_of
from loop.training.job import TrainJob, TrainResult
from loop.training.worker import run_training


def train(job: TrainJob, hosting: HostingConfig, on_progress: OnProgress | None = None) -> TrainResult:
    """Train ``job`` to its last step and write its checkpoint; ``on_progress`` is called every few seconds.

    A training of the same name that was interrupted is gone on with, and ends in the same bytes as one that was not
    (Ray only; in this process it starts again). With several workers BatchNorm and the loss's normaliser see one
    worker's part of a batch, as is usual, so that the number of workers does change the last digits.

    Raises ValueError or FileNotFoundError where the job cannot be done as it is, ActorFailedError where workers are
    lost more often than ``hosting.train.max_failures``. Ray must have been started.
    """
    trainer_of(job.detector).check_settings(job.training.overrides)
    mixture = job.mixture()
    role = hosting.train
    check_parts("training.batch_size", job.training.batch_size, "train", role.num_workers)
    start = time.perf_counter()
    outcome = launch(run_training, job, role, hosting, on_progress)
    return TrainResult(
        checkpoint=job.checkpoint,
        steps=job.training.steps,
        realised_p=mixture.realised_p,
        num_real_shown=mixture.num_real_draws,
        num_synthetic_shown=mixture.num_synthetic_draws,
        losses=outcome.losses,
        precision=outcome.precision,
        platform=outcome.platform,
        weights=outcome.weights,
        launch_s=time.perf_counter() - start - outcome.seconds,
        training_s=outcome.seconds,
        images_per_s=outcome.images / max(outcome.seconds, 1e-9),
        num_clean_shown=mixture.num_clean_draws,
    )
