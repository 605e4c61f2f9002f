"""Starts Ray, or connects to a cluster, for the length of a run, and waits until every role can be placed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, TypeVar

from loop.hosting.config import HostingConfig, RoleConfig, TrainRoleConfig
from loop.hosting.launch import nodes
from loop.hosting.placement import STREAM, gangs, unplaced
from loop.hosting.records import ActorFailedError, in_one_line

Result = TypeVar("Result")

IMPORTED_FIRST = "detloop"
"""The package that each worker imports before it runs anything. It imports ``loop`` and ``actors`` from beside itself.

Ray puts the folders of the driver's script and of the job first on the path of its workers. A user's ``loop.py`` or
``actors/`` there would be imported in place of ours. Modules that are already imported are not searched for again. The
user's other modules stay importable.
"""


@contextmanager
def engine(hosting: HostingConfig, roles: Sequence[str] = STREAM) -> Iterator[None]:
    """Ray, for as long as the run lasts, if ``hosting`` asks for it. ``roles`` share a stream.

    Raises ValueError, before anything runs, where a role of ``hosting`` cannot be placed.
    """
    if hosting.engine == "inline":
        yield
        return
    with started_ray(hosting.num_cpus or max(os.cpu_count() or 1, 4)):
        _wait_for_places(hosting, roles)
        yield


@contextmanager
def started_ray(num_cpus: int) -> Iterator[None]:
    """Ray: one that is running in this process already, else the cluster that RAY_ADDRESS names, else one of our own.

    ``num_cpus`` are the logical CPUs of our own.
    """
    _before_ray_is_imported()
    import ray

    if ray.is_initialized():  # a run that is a trial of an ablation
        yield
        return
    place = _cluster() if "RAY_ADDRESS" in os.environ else _own_ray(num_cpus)
    with _without_stderr(), _own_sigterm():  # its C++ side announces the log level that it was told to keep
        ray.init(**place, log_to_driver=False, logging_level="ERROR")
    _keep_notices_in_logs()
    try:
        yield
    finally:
        ray.shutdown()


def _own_ray(num_cpus: int) -> dict[str, Any]:
    """Arguments with which ray.init starts a Ray of our own.

    Its workers preload a module by name. A setup hook would do the same, for half a second more of each worker.
    """
    preload = {"preload_python_modules": [IMPORTED_FIRST]}
    return {"address": "local", "num_cpus": num_cpus, "include_dashboard": False, "_system_config": preload}


def _cluster() -> dict[str, Any]:
    """Arguments with which ray.init connects to the cluster that RAY_ADDRESS names."""

    def set_up_worker() -> None:  # a nested function is sent as code; a function of this module would be imported
        with suppress(Exception):  # Ray replaces a worker whose setup fails by the next, for ever; a task's error ends
            import_module(IMPORTED_FIRST)

    return {"runtime_env": {"worker_process_setup_hook": set_up_worker}}


def _keep_notices_in_logs() -> None:
    """Print no notices of Ray's about dead workers and nodes. We say what is repeated; the notices are in Ray's logs.

    Ray prints them whatever ``log_to_driver`` says, and has no setting for it.
    """
    import ray._private.worker

    def keep_quiet(*_: object, **__: object) -> None:
        """Print nothing."""

    ray._private.worker.print_to_stdstream = keep_quiet  # noqa: SLF001 - see above


@contextmanager
def _without_stderr() -> Iterator[None]:
    """What is written to file descriptor 2 meanwhile is lost; exceptions are not."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep our handler of SIGTERM: Ray's prints the stack of its C++ side."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and handler is not signal.SIG_DFL:
        signal.signal(signal.SIGTERM, handler)


def _wait_for_places(hosting: HostingConfig, roles: Sequence[str]) -> None:
    """Ask an autoscaler for what is missing, and wait for it; a cluster that cannot grow is told at once."""
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + hosting.scale_up_timeout_s
    try:
        while missing := unplaced(hosting, nodes(), roles):
            if time.monotonic() >= deadline:
                raise ValueError(missing)
            actors = max(
                gangs(hosting, roles).values(), key=lambda gang: (sum(a.gpus for a in gang), sum(a.cpus for a in gang))
            )
            request_resources(bundles=[{"CPU": actor.cpus, "GPU": actor.gpus} for actor in actors])
            time.sleep(min(5.0, hosting.scale_up_timeout_s))
    finally:
        request_resources(bundles=[])  # a request outlives its run, and would keep idle nodes for ever


def _before_ray_is_imported() -> None:
    """Settings that Ray reads from the environment; one that the user has made stands."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that outlives a run would start a Ray of its own
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its errors on this terminal are remarks on every pool
    if "RAY_ADDRESS" not in os.environ:  # workers of a local Ray use this very environment
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every worker would compile torch anew, for seconds


def in_an_actor(
    function: Callable[[], Result], hosting: HostingConfig, role: RoleConfig | TrainRoleConfig | None = None
) -> Result:
    """The result of ``function``, computed where actors of ``role`` run (default: those that judge).

    The driver itself never touches a pixel.

    Raises its ValueError or OSError; ActorFailedError for any other error, and if its process dies.
    """
    if hosting.engine == "inline":
        return function()
    import ray

    role = role or hosting.judge
    needs = {"num_cpus": role.num_cpus, "num_gpus": role.num_gpus}
    options = {**needs, "scheduling_strategy": "DEFAULT"}  # not within a trial's own CPUs
    try:
        result: Result = ray.get(ray.remote(_call).options(**options).remote(function))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, ValueError | OSError):
            raise cause from None
        raise ActorFailedError(f"an actor failed: {in_one_line(cause)}") from cause
    return result


def _call(function: Callable[[], Result]) -> Result:
    """A partial as a plain function, which is all that Ray takes."""
    return function()
