"""Launching trainings: in the workers of Ray Train, or in this process for a debugger.

The caller gives the work: a detector (``loop.training.train``) or a generator (``loop.training.fit``).
"""

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from typing_extensions import override
from upath import UPath

from actors.storage import is_local
from loop.hosting.config import HostingConfig, TrainRoleConfig
from loop.hosting.placement import Node, num_gangs
from loop.hosting.records import ActorFailedError, Outcome, Place, Progress, in_one_line
from loop.hosting.resume import Memory, NoMemory, RayMemory

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.train import TrainingFailedError, UserCallback

log = logging.getLogger(__name__)

POLL_S = 1.0  # interval between two queries of the progress
_CANNOT_BE_DONE = (ValueError, FileNotFoundError)  # errors of a worker that a restart would not fix

OnProgress = Callable[[Progress], None]


class Job(Protocol):
    """A training: a plain record that is sent to the workers."""

    @property
    def name(self) -> str:
        """Unique: an interrupted training of this name in ``storage`` is resumed."""
        ...

    @property
    def storage(self) -> str:
        """Folder or URI of Ray Train's files while it runs."""
        ...

    def fingerprint(self) -> str:
        """The hash of everything that affects the result."""
        ...

    def located(self, place: Callable[[str], str]) -> Self:
        """The same job with ``place`` applied to every URI in it."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)
Result = TypeVar("Result")
Work = Callable[[AnyJob, Place, Memory, OnProgress, int], Outcome]
"""The work of one worker; the last argument is its number of torch threads."""


def launch(
    work: Work[AnyJob], job: AnyJob, role: TrainRoleConfig, hosting: HostingConfig, on_progress: OnProgress | None
) -> Outcome:
    """Run the job on the workers of ``role``. Returns the first worker's outcome. Ray must have been started.

    Raises ValueError or FileNotFoundError if the job is invalid, and ActorFailedError if workers fail more often than
    ``role.max_failures``.
    """
    if hosting.engine == "inline":
        return _here(work, job, role, on_progress)
    return _on_ray(work, job, role, on_progress)


def check_parts(what: str, batch_size: int, role: str, num_workers: int, accumulate: int = 1) -> None:
    """Raise ValueError unless a batch gives every worker of ``role`` the same part, in ``accumulate`` equal parts."""
    if batch_size % (num_workers * accumulate):
        times = f" times fit.accumulate ({accumulate})" if accumulate > 1 else ""
        raise ValueError(
            f"every worker takes the same part of a batch: {what} ({batch_size}), hosting.{role}.num_workers "
            f"({num_workers}){times}; make the first a multiple of the second"
        )


def num_at_once(role: TrainRoleConfig, hosting: HostingConfig) -> int:
    """The number of trainings by ``role`` that can be launched at once, each from its own thread; 1 if inline."""
    return 1 if hosting.engine == "inline" else max(num_gangs(role, nodes()), 1)


def nodes() -> list[Node]:
    """The nodes that are alive, with all their resources."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0)) for resources in alive]


def node_names() -> frozenset[str]:
    """The nodes that are alive, by address and id."""
    import ray

    return frozenset(f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})" for node in ray.nodes() if node["Alive"])


def _here(work: Work[AnyJob], job: AnyJob, role: TrainRoleConfig, on_progress: OnProgress | None) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder=folder, device="0" if role.num_gpus else "cpu")
        return work(job, place, NoMemory(), on_progress or _silent, _num_threads(role))


def _on_ray(work: Work[AnyJob], job: AnyJob, role: TrainRoleConfig, on_progress: OnProgress | None) -> Outcome:
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    resources = {"CPU": role.num_cpus, "GPU": role.num_gpus}
    job = job.located(_absolute)  # workers have other working directories
    with _mailbox(on_progress) as (post, tell):
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
                callbacks=[_on_failure(tell, job.name, role.max_failures)],
            ),
        )
        try:
            answer = _in_a_thread(trainer.fit).return_value
        except TrainingFailedError as error:
            raise _explained(error, job.name, role.max_failures) from error
    if not isinstance(answer, Outcome):
        raise TypeError(f"training {job.name}: the first worker returned {answer!r}, not its outcome")
    return answer


def _in_a_thread(fit: Callable[[], Result]) -> Result:
    """The result of ``fit``. In the main thread, Ray Train would handle Ctrl-C from then on, and end the process."""
    outcome = Future[Result]()

    def run() -> None:
        try:
            outcome.set_result(fit())
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([outcome], timeout=POLL_S).done:  # without a timeout it would not notice Ctrl-C
        pass
    return outcome.result()


def _explained(error: "TrainingFailedError", name: str, max_failures: int) -> Exception:
    """The error of an invalid job as it is; any other in one sentence."""
    cause = getattr(error, "controller_failure", None)
    if isinstance(cause, _CANNOT_BE_DONE):
        return cause
    causes = [*getattr(error, "worker_failures", {}).values(), cause, error]
    reason = in_one_line(next(one for one in causes if one is not None))
    return ActorFailedError(
        f"training {name} failed more than {max_failures} times (max_failures of its role in hosting); last: {reason}"
    )


def _on_failure(tell: Callable[[str], None], name: str, max_failures: int) -> "UserCallback":
    """A callback that ends a training with an invalid job, whose workers Ray Train would restart, and tells of others.

    An error that a callback raises in the controller ends the training, and ``fit`` raises it in a ControllerError.
    """
    from ray.train import UserCallback

    class OnFailure(UserCallback):  # type: ignore[misc]  # Ray is not typed
        @override
        def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
            if all(isinstance(error, _CANNOT_BE_DONE) for error in worker_exceptions.values()):
                raise next(iter(worker_exceptions.values()))
            rank, error = next(iter(worker_exceptions.items()))
            tell(
                f"training {name} lost worker {rank} ({in_one_line(error)}); it goes on from its last saved state, up "
                f"to {max_failures} times"
            )

    return OnFailure()


def _as_worker(config: dict[str, Any]) -> Outcome:
    """Run the work in one of Ray Train's workers."""
    import ray.train
    from ray.train.torch import get_device

    work: Work[Job] = config["work"]
    job, role, post = config["job"], config["role"], config["post"]
    with suppress(FileNotFoundError):  # Ray changes the folder; relative paths are relative to the driver's
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


def _silent(_: object) -> None:
    """Ignore the progress."""


class _Send:
    """Sends messages to a method of the driver's mailbox without waiting."""

    def __init__(self, mailbox: "ActorHandle", method: str) -> None:
        self.mailbox, self.method = mailbox, method

    def __call__(self, message: object) -> None:
        getattr(self.mailbox, self.method).remote(message)


class _Mailbox:
    """Holds the latest progress, and what is to be told."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.told: list[str] = []

    def put(self, progress: Progress) -> None:
        """Replace the progress."""
        self.progress = progress

    def tell(self, text: str) -> None:
        """Add a line for the terminal."""
        self.told.append(text)

    def get(self) -> tuple[Progress | None, list[str]]:
        """The latest progress, and all lines so far."""
        return self.progress, self.told


@contextmanager
def _mailbox(on_progress: OnProgress | None) -> Iterator[tuple[OnProgress, Callable[[str], None]]]:
    """Callbacks for workers: one forwards to ``on_progress`` in this process, while ``fit`` blocks this thread.

    The other one logs a line here. Without ``on_progress`` both do nothing.
    """
    if on_progress is None:
        yield _silent, _silent
        return
    import ray

    mailbox = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox).remote()
    done = threading.Event()

    def listen() -> None:
        last, num_told = None, 0
        while not done.wait(POLL_S):
            progress, told = ray.get(mailbox.get.remote())
            for text in told[num_told:]:
                log.warning(text)
            num_told = len(told)
            if progress is not None and progress != last:
                on_progress(progress)
            last = progress

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield _Send(mailbox, "put"), _Send(mailbox, "tell")
    finally:
        done.set()
        listener.join(timeout=5 * POLL_S)
        ray.kill(mailbox)
