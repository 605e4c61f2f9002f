"""The driver: sets up a run, executes its rounds and reports them. An interrupted run continues where it stopped."""

import os
from functools import partial

from upath import UPath

from actors.filters.base import RealImages
from actors.filters.base import State as FilterState
from actors.filters.chain import fit_filters
from actors.storage import exclusive, write_record
from loop.arms import Trainings
from loop.check import check_images, missing, needless_refiner
from loop.config import LoopConfig
from loop.context import Loop
from loop.cross_fit import check_folds, check_parameters
from loop.data.advice import advise
from loop.data.export import export
from loop.data.importing import Dataset, import_data
from loop.data.world import write_world
from loop.hosting.engine import engine, in_an_actor
from loop.hosting.launch import nodes
from loop.hosting.placement import stream_roles, without_gpu
from loop.keep import Fate
from loop.progress import Reporter
from loop.reduce_images import reduce_images
from loop.report.control import report_control
from loop.report.fit_sheet import fit_sheet
from loop.report.round import report_round
from loop.report.run import report_run
from loop.round import run_round
from loop.state import RunFolder, State, once
from loop.tracking.store import refuse_silence, store
from loop.tracking.tracker import Tracker


def run(config: LoopConfig, reporter: Reporter) -> UPath:
    """Run the loop, or the rest of it. Returns the run's folder, which then holds ``summary.json``.

    Raises ConfigError if the folder holds another run; BlockingIOError if another process runs this one; ValueError if
    the data cannot be used or have changed since the run was started, if the hosting cannot be placed, and if weights
    are missing or the MLflow server does not answer; TooManyFailuresError if too many candidates of a round failed.
    """
    _look_for_weights(config, reporter)
    if needless := needless_refiner(config):
        reporter.warn(needless)
    refuse_silence(store(config))
    if "RAY_ADDRESS" in os.environ and not UPath(config.root).is_absolute():
        reporter.warn(
            f"root: {config.root} is relative to the driver's folder, and other nodes may not see it (--set root=)"
        )
    config = anchored(config)
    with exclusive(UPath(config.root) / config.name, wait=False):
        return _drive(config, reporter)


def _drive(config: LoopConfig, reporter: Reporter) -> UPath:
    folder = RunFolder.claim(config)
    data = import_real(config)
    check_images(config, data)
    folder.claim_data(data.identity())
    check_folds(config, len(data.splits["train"]))
    check_parameters(config, len(data.classes))
    reporter.say(f"{data.report}\n")
    if config.data.format != "world":
        notes = once(
            folder.path / "data_notes.json", list[str], lambda: list(advise(data, config.detector.image_size_px))
        )
        for note in notes:
            reporter.warn(note)
    with engine(config.hosting, stream_roles(config)):
        data = reduce_images(data, config, reporter)
        if config.hosting.engine == "ray" and (slow := without_gpu(config, nodes())):
            reporter.warn(slow)
        write_record(folder.train_records, data.splits["train"])
        if data.clean:
            write_record(folder.clean_records, data.clean)
        states = once(folder.filter_states, dict, lambda: learnt_by_filters(config, data) if config.rounds else {})
        for kind, state in states.items():
            for remark in state.get("remarks", ()):
                reporter.warn(f"{kind}: {remark}")
        trainings = Trainings(config=config, data=data, reporter=reporter, draw_sheet=fit_sheet)
        loop = Loop(config=config, data=data, folder=folder, trainings=trainings, reporter=reporter)
        with Tracker.open(config, folder.path, reporter.warn) as tracker:
            _rounds(loop, tracker)
    return folder.path


def _look_for_weights(config: LoopConfig, reporter: Reporter) -> None:
    """Refuse missing weights before anything is trained. On a cluster other nodes may have them, so only warn."""
    if not (gone := "; ".join(missing(config))):
        return
    if "RAY_ADDRESS" not in os.environ:
        raise ValueError(f"missing: {gone}. `detloop check` lists everything that a run needs")
    reporter.warn(f"not on this node: {gone}")


def anchored(config: LoopConfig) -> LoopConfig:
    """The config with an absolute storage root: workers have other working folders."""
    return config.model_copy(update={"root": str(UPath(config.root).absolute())})


def _rounds(loop: Loop, tracker: Tracker) -> None:
    controls = loop.trainings.controls(0)
    report_control(loop, controls[0])
    detectors = tuple(arm.checkpoint for arm in controls)
    loop.folder.record_detectors(0, (), detectors)
    state = State(round=0, detectors=detectors, generator=None, refiner=None, pool=())
    for _ in range(loop.config.rounds):
        result = run_round(loop, state)
        report_round(loop, result, tracker)
        state = result.state
    report_run(loop, tracker)


def import_real(config: LoopConfig) -> Dataset:
    """The real images of ``config``. The embedded world is rendered into the storage root first, once for all runs."""
    if config.data.format == "world":
        root = UPath(config.root) / "worlds" / config.fingerprint("data")
        with exclusive(root):
            write_world(root, config.data.world)
    else:
        root = UPath(config.data.root or "")
    return import_data(config.data, root.absolute(), config.seed)


def learnt_by_filters(config: LoopConfig, data: Dataset) -> dict[str, FilterState]:
    """The states of the filters of ``config``, by kind, fitted on the real images of ``data``. Needs the engine."""
    held_out = (*data.splits["val"], *data.splits.get("test", ()))
    real = RealImages(classes=data.classes, train=data.splits["train"], held_out=held_out, clean=data.clean)
    return in_an_actor(partial(fit_filters, config.filters, real), config.hosting)


def export_run(path: UPath, layout: str, out: UPath) -> UPath:
    """Write the real and the kept synthetic images of the run in ``path`` as one data set. Returns its card.

    Raises ValueError if ``path`` holds no run, ``layout`` is unknown, or ``out`` is not empty.
    """
    folder = RunFolder(path)
    data = import_real(folder.config())
    pool = [s for number in range(1, folder.num_finished() + 1) for s in folder.samples(number, Fate.KEPT)]
    held_out = {split: images for split, images in data.splits.items() if split != "train"}
    return export(data.real, pool, data.classes, out, layout, held_out, data.synthetic)
