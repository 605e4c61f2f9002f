"""Retraining under Ray Train, or in this process for a debugger; equal jobs give equal checkpoints either way."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from upath import UPath

from loop.config import HostingConfig, TrainRoleConfig
from loop.data.formats.base import is_local
from loop.training.job import Outcome, Place, Progress, TrainJob, TrainResult
from loop.training.settings import check_overrides
from loop.training.worker import NoMemory, RayMemory, run_training

POLL_S = 1.0  # between two looks at how far the training is

OnProgress = Callable[[Progress], None]


def train(job: TrainJob, hosting: HostingConfig, on_progress: OnProgress | None = None) -> TrainResult:
    """Train ``job`` to its last step and write its checkpoint; ``on_progress`` hears of it every few seconds.

    A training of the same name that was interrupted is gone on with, and ends in the same bytes as one that was not
    (Ray only; in this process it starts again). With several workers BatchNorm and the loss's normaliser see one
    worker's part of a batch, as is usual, so that the number of workers does change the last digits.

    Raises ValueError or FileNotFoundError where the job cannot be done as it is, Ray's errors where workers are lost
    more often than ``hosting.train.max_failures``. Ray must have been started.
    """
    check_overrides(job.training.overrides)
    mixture = job.mixture()
    role = hosting.train
    if job.training.batch_size % role.num_workers:
        sizes = f"training.batch_size ({job.training.batch_size}), hosting.train.num_workers ({role.num_workers})"
        raise ValueError(f"every worker takes the same part of a batch: {sizes}; make one a multiple of the other")
    start = time.perf_counter()
    outcome = (
        _train_here(job, role, on_progress) if hosting.engine == "inline" else _train_on_ray(job, role, on_progress)
    )
    return TrainResult(
        checkpoint=job.checkpoint,
        steps=job.training.steps,
        realised_p=mixture.realised_p,
        num_real_shown=mixture.num_real_draws,
        num_synthetic_shown=mixture.num_synthetic_draws,
        losses=outcome.losses,
        precision=outcome.precision,
        weights=outcome.weights,
        launch_s=time.perf_counter() - start - outcome.seconds,
        training_s=outcome.seconds,
        images_per_s=outcome.images / max(outcome.seconds, 1e-9),
    )


def _train_here(job: TrainJob, role: TrainRoleConfig, on_progress: OnProgress | None) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder=folder, device="0" if role.num_gpus else "cpu")
        return run_training(job, place, NoMemory(), on_progress or _silent, _num_threads(role))


def _train_on_ray(job: TrainJob, role: TrainRoleConfig, on_progress: OnProgress | None) -> Outcome:
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"CPU": role.num_cpus, "GPU": role.num_gpus}
    job = replace(  # a worker has a working directory of its own
        job,
        checkpoint=_absolute(job.checkpoint),
        storage=_absolute(job.storage),
        start=job.start and _absolute(job.start),
    )
    with _mailbox(on_progress) as post:
        trainer = TorchTrainer(
            _train_as_worker,
            train_loop_config={"job": job, "role": role, "post": post, "folder": str(Path.cwd())},
            scaling_config=ScalingConfig(
                num_workers=role.num_workers, use_gpu=role.num_gpus > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=job.name,
                storage_path=job.storage,
                failure_config=FailureConfig(max_failures=role.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        answer = trainer.fit().return_value
    if isinstance(answer, Exception):
        raise answer
    if not isinstance(answer, Outcome):
        raise TypeError(f"training {job.name}: the first worker handed back {answer!r}, not its outcome")
    return answer


def _train_as_worker(config: dict[str, Any]) -> Outcome | Exception:
    """Runs in each of Ray Train's workers. A job that cannot be done is handed back, since a retry would not help."""
    import ray.train
    from ray.train.torch import get_device

    job, role, post = config["job"], config["role"], config["post"]
    with suppress(FileNotFoundError):  # Ray has moved on to a folder of its own; relative paths count from the driver's
        os.chdir(config["folder"])
    context = ray.train.get_context()
    device = str(get_device().index) if role.num_gpus else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder=folder, device=device, rank=context.get_world_rank(), num_workers=context.get_world_size())
        try:
            memory = RayMemory(place, job.fingerprint(), role.keep_every_s)
            return run_training(job, place, memory, post, _num_threads(role))
        except (ValueError, FileNotFoundError) as error:
            if place.num_workers > 1:  # the others would wait for this one
                raise
            return error


def _absolute(uri: str) -> str:
    path = UPath(uri)
    return str(path.absolute() if is_local(path) else path)


def _num_threads(role: TrainRoleConfig) -> int:
    return max(int(role.num_cpus), 1)


def _silent(_: Progress) -> None:
    """Nobody listens."""


class _Post:
    """Sends progress to the driver's mailbox; the sender does not wait."""

    def __init__(self, mailbox: Any) -> None:  # noqa: ANN401 - a Ray actor handle
        self.mailbox = mailbox

    def __call__(self, progress: Progress) -> None:
        self.mailbox.put.remote(progress)


class _Mailbox:
    """Holds the last progress."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def put(self, progress: Progress) -> None:
        """Overwrite what was there."""
        self.progress = progress

    def get(self) -> Progress | None:
        """What was put last."""
        return self.progress


@contextmanager
def _mailbox(on_progress: OnProgress | None) -> Iterator[OnProgress]:
    """What a worker calls so that ``on_progress`` is called here, while ``fit`` blocks this thread."""
    if on_progress is None:
        yield _silent
        return
    import ray

    mailbox = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox).remote()
    done = threading.Event()

    def listen() -> None:
        last = None
        while not done.wait(POLL_S):
            progress = ray.get(mailbox.get.remote())
            if progress is not None and progress != last:
                on_progress(progress)
            last = progress

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield _Post(mailbox)
    finally:
        done.set()
        listener.join(timeout=5 * POLL_S)
        ray.kill(mailbox)
