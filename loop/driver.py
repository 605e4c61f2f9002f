"""The driver: sets a run up, goes round after round, and reports; started again, it goes on where it stopped."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from upath import UPath

from actors.filters import fit_filters
from actors.storage import exclusive, read_record, write_record
from loop.arms import Trainings
from loop.config import HostingConfig, LoopConfig
from loop.data.export import export
from loop.data.importing import Dataset, import_data
from loop.data.world import write_world
from loop.outcome import conclude, report_round
from loop.placement import gangs, unplaced, without_gpu
from loop.plan import missing
from loop.progress import Reporter
from loop.round import Loop, run_round
from loop.state import Fate, RunFolder, State, once
from loop.tracking import Tracker
from loop.training.gang import nodes

Result = TypeVar("Result")


def run(config: LoopConfig, reporter: Reporter) -> UPath:
    """Run the loop, or what is left of it. Returns the run's folder, which then holds ``summary.json``.

    Raises ConfigError where the folder holds another run; BlockingIOError where another process is at this one;
    ValueError on data that cannot be used or have changed since the run was started, on hosting that cannot be placed,
    and on weights that are not there; TooManyFailuresError where a round could not make its candidates.
    """
    _look_for_weights(config, reporter)
    if "RAY_ADDRESS" in os.environ and not UPath(config.root).is_absolute():
        reporter.warn(
            f"root: {config.root} is relative to where the driver runs; other nodes may not see it (--set root=)"
        )
    config = anchored(config)
    with exclusive(UPath(config.root) / config.name, wait=False):
        return _drive(config, reporter)


def _drive(config: LoopConfig, reporter: Reporter) -> UPath:
    folder = RunFolder.claim(config)
    data = import_real(config)
    folder.claim_data(data.identity())
    reporter.say(f"{data.report}\n")
    with engine(config.hosting):
        if config.hosting.engine == "ray" and (slow := without_gpu(config, nodes())):
            reporter.warn(slow)
        write_record(folder.train_records, data.splits["train"])
        held_out = (*data.splits["val"], *data.splits.get("test", ()))
        filters = config.filters if config.rounds else ()
        fit = partial(fit_filters, filters, data.splits["train"], held_out, data.classes)
        states = once(folder.filter_states, dict, lambda: _in_an_actor(fit, config.hosting))
        for kind, state in states.items():
            for remark in state.get("remarks", ()):
                reporter.warn(f"{kind}: {remark}")
        trainings = Trainings(config=config, data=data, reporter=reporter)
        loop = Loop(config=config, data=data, folder=folder, trainings=trainings, reporter=reporter)
        with _tracker(folder, config) as tracker:
            _rounds(loop, tracker)
    return folder.path


def _look_for_weights(config: LoopConfig, reporter: Reporter) -> None:
    """Weights that are not there stop a run now, not after its control was trained; a cluster's nodes may have them."""
    if not (gone := "; ".join(missing(config))):
        return
    if "RAY_ADDRESS" not in os.environ:
        raise ValueError(f"not there: {gone}. `detloop check` lists all that a run needs")
    reporter.warn(f"not on this node: {gone}")


def anchored(config: LoopConfig) -> LoopConfig:
    """The config with its storage root as an absolute place: workers have working folders of their own."""
    return config.model_copy(update={"root": str(UPath(config.root).absolute())})


def _rounds(loop: Loop, tracker: Tracker) -> None:
    state = State(round=0, detector=loop.trainings.control(0).checkpoint, generator=None, pool=())
    for _ in range(loop.config.rounds):
        result = run_round(loop, state)
        report_round(loop, result, tracker)
        state = result.state
    conclude(loop, tracker)


def _tracker(folder: RunFolder, config: LoopConfig) -> Tracker:
    """The MLflow runs that an earlier start of this run left, or new ones."""
    place = folder.path / "mlflow.json"
    tracker = Tracker.open(config, read_record(place, dict[str, str]) if place.exists() else None)
    write_record(place, tracker.run_ids)
    return tracker


def import_real(config: LoopConfig) -> Dataset:
    """The real images of ``config``; the world is rendered into the storage root first, once for all runs."""
    if config.data.format == "world":
        root = UPath(config.root) / "worlds" / config.fingerprint("data")
        with exclusive(root):
            write_world(root, config.data.world)
    else:
        root = UPath(config.data.root or "")
    return import_data(config.data, root.absolute(), config.seed)


def export_run(path: UPath, layout: str, out: UPath) -> UPath:
    """Write the real and the kept synthetic images of the run in ``path`` as one data set; returns its card.

    Raises ValueError where ``path`` holds no run, ``layout`` is unknown, or ``out`` holds something already.
    """
    folder = RunFolder(path)
    data = import_real(folder.config())
    pool = [s for number in range(1, folder.num_finished() + 1) for s in folder.samples(number, Fate.KEPT)]
    held_out = {split: images for split, images in data.splits.items() if split != "train"}
    return export(data.splits["train"], pool, data.classes, out, layout, held_out, data.synthetic)


@contextmanager
def engine(hosting: HostingConfig) -> Iterator[None]:
    """Ray, for as long as the run lasts, if ``hosting`` asks for it.

    Raises ValueError, before anything runs, where a role of ``hosting`` cannot be placed.
    """
    if hosting.engine == "inline":
        yield
        return
    with started_ray(hosting.num_cpus or max(os.cpu_count() or 1, 4)):
        _wait_for_places(hosting)
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
    local = {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
    with _without_stderr():  # its C++ side announces the log level that it was told to keep
        ray.init(**({} if "RAY_ADDRESS" in os.environ else local), log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


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


def _wait_for_places(hosting: HostingConfig) -> None:
    """Ask an autoscaler for what is missing, and wait for it; a cluster that cannot grow is told at once."""
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + hosting.scale_up_timeout_s
    try:
        while missing := unplaced(hosting, nodes()):
            if time.monotonic() >= deadline:
                raise ValueError(missing)
            actors = max(
                gangs(hosting).values(), key=lambda gang: (sum(a.gpus for a in gang), sum(a.cpus for a in gang))
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
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its errors on this terminal are remarks on every pool
    if "RAY_ADDRESS" not in os.environ:  # workers of a local Ray use this very environment
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every worker would compile torch anew, for seconds


def _in_an_actor(function: Callable[[], Result], hosting: HostingConfig) -> Result:
    """The result of ``function``, computed where actors run: the driver itself never touches a pixel."""
    if hosting.engine == "inline":
        return function()
    import ray

    needs = {"num_cpus": hosting.judge.num_cpus, "num_gpus": hosting.judge.num_gpus}
    options = {**needs, "scheduling_strategy": "DEFAULT"}  # not within a trial's own CPUs
    result: Result = ray.get(ray.remote(_call).options(**options).remote(function))
    return result


def _call(function: Callable[[], Result]) -> Result:
    """A partial as a plain function, which is all that Ray takes."""
    return function()
