"""A training where it runs: by Ray Train's workers, or in this process for a debugger.

What is trained is the caller's: a detector (``trainer``) or a generator (``fit``).
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from upath import UPath

from actors.storage import is_local
from loop.config import HostingConfig, TrainRoleConfig
from loop.hosting.placement import Node, num_gangs
from loop.hosting.records import Outcome, Place, Progress
from loop.hosting.resume import Memory, NoMemory, RayMemory

if TYPE_CHECKING:
    from ray.train import UserCallback

POLL_S = 1.0  # between two looks at how far the training is
_CANNOT_BE_DONE = (ValueError, FileNotFoundError)  # what a worker raises where to start it again would not help

OnProgress = Callable[[Progress], None]


class Job(Protocol):
    """What there is to do: a plain record that travels to the workers."""

    @property
    def name(self) -> str:
        """Unique: a training of this name in ``storage`` is gone on with."""
        ...

    @property
    def storage(self) -> str:
        """Folder or URI of what Ray Train keeps while it runs."""
        ...

    def fingerprint(self) -> str:
        """Over all that decides the result."""
        ...

    def located(self, place: Callable[[str], str]) -> Self:
        """The same job with ``place`` applied to every URI in it."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)
Work = Callable[[AnyJob, Place, Memory, OnProgress, int], Outcome]
"""What one worker does; the last argument is its number of torch threads."""


def launch(
    work: Work[AnyJob], job: AnyJob, role: TrainRoleConfig, hosting: HostingConfig, on_progress: OnProgress | None
) -> Outcome:
    """Let the workers of ``role`` do the job; the first one's outcome. Ray must have been started.

    Raises ValueError or FileNotFoundError where the job cannot be done as it is, Ray's errors where workers are lost
    more often than ``role.max_failures``.
    """
    if hosting.engine == "inline":
        return _here(work, job, role, on_progress)
    return _on_ray(work, job, role, on_progress)


def num_at_once(role: TrainRoleConfig, hosting: HostingConfig) -> int:
    """How many trainings by ``role`` may be launched together, each from a thread of its own; in this process, one."""
    return 1 if hosting.engine == "inline" else max(num_gangs(role, nodes()), 1)


def nodes() -> list[Node]:
    """The nodes of the cluster that is there now, with all that they have."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0)) for resources in alive]


def _here(work: Work[AnyJob], job: AnyJob, role: TrainRoleConfig, on_progress: OnProgress | None) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder=folder, device="0" if role.num_gpus else "cpu")
        return work(job, place, NoMemory(), on_progress or _silent, _num_threads(role))


def _on_ray(work: Work[AnyJob], job: AnyJob, role: TrainRoleConfig, on_progress: OnProgress | None) -> Outcome:
    from ray.train import CheckpointConfig, ControllerError, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"CPU": role.num_cpus, "GPU": role.num_gpus}
    job = job.located(_absolute)  # a worker has a working directory of its own
    with _mailbox(on_progress) as post:
        trainer = TorchTrainer(
            _as_worker,
            train_loop_config={"work": work, "job": job, "role": role, "post": post, "folder": str(Path.cwd())},
            scaling_config=ScalingConfig(
                num_workers=role.num_workers, use_gpu=role.num_gpus > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=job.name,
                storage_path=job.storage,
                failure_config=FailureConfig(max_failures=role.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                logging_config=LoggingConfig(log_level="ERROR"),
                callbacks=[_no_retry()],
            ),
        )
        try:
            answer = trainer.fit().return_value
        except ControllerError as error:
            if isinstance(error.controller_failure, _CANNOT_BE_DONE):
                raise error.controller_failure from None
            raise
    if not isinstance(answer, Outcome):
        raise TypeError(f"training {job.name}: the first worker handed back {answer!r}, not its outcome")
    return answer


def _no_retry() -> "UserCallback":
    """Ends a training whose job cannot be done as it is, where Ray Train would start its workers again.

    What a callback raises in its controller ends the training, and comes out of ``fit`` in a ControllerError.
    """
    from ray.train import UserCallback

    class NoRetry(UserCallback):  # type: ignore[misc]  # Ray is not typed
        def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002 - Ray's signature
            if all(isinstance(error, _CANNOT_BE_DONE) for error in worker_exceptions.values()):
                raise next(iter(worker_exceptions.values()))

    return NoRetry()


def _as_worker(config: dict[str, Any]) -> Outcome:
    """Runs in each of Ray Train's workers."""
    import ray.train
    from ray.train.torch import get_device

    work: Work[Job] = config["work"]
    job, role, post = config["job"], config["role"], config["post"]
    with suppress(FileNotFoundError):  # Ray has moved on to a folder of its own; relative paths count from the driver's
        os.chdir(config["folder"])
    context = ray.train.get_context()
    device = str(get_device().index) if role.num_gpus else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder=folder, device=device, rank=context.get_world_rank(), num_workers=context.get_world_size())
        memory = RayMemory(place, job.fingerprint(), role.keep_every_s)
        return work(job, place, memory, post, _num_threads(role))


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
