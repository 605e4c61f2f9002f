"""Fits of components that learn, under Ray Train: on the real training images, once for all runs with equal fits."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.counted import counted
from actors.fitting import Fit, FitData, FitSize, Fitted, Learner, Preview, Worker
from actors.plain import to_plain
from actors.storage import write_bytes
from loop.config import digest
from loop.hosting.config import HostingConfig
from loop.hosting.launch import OnProgress, check_parts, launch
from loop.hosting.platform import this_platform
from loop.hosting.records import Outcome, Place, Progress
from loop.hosting.resume import Memory

NUM_SHEETS = 4  # sample sheets, evenly spaced over a fit; the last one at its end
SHEETS = "sheets"  # their folder, beside the checkpoint
EPOCH_STEPS = 50  # steps over which losses are averaged, and after which the state may be saved

DrawSheet = Callable[[Sequence[Preview], str], bytes]
"""Draws previews under a title, as a PNG."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitJob:
    """A fit. Equal jobs give equal checkpoints on one kind of hardware."""

    learner: Learner
    data: FitData
    start: Fitted | None = None  # continue from this fit; None: random or pretrained weights
    checkpoint: Checkpoint  # output
    name: str  # unique: an interrupted fit of this name in ``storage`` is resumed
    storage: str  # folder or URI of Ray Train's files while the fit runs

    def fingerprint(self) -> str:
        """See ``fit_fingerprint``."""
        return fit_fingerprint(self.learner, self.data, self.start)

    def located(self, place: Callable[[str], str]) -> "FitJob":
        """The same job with ``place`` applied to the URIs that it reads and writes."""
        detector = self.data.detector and replace(self.data.detector, uri=Checkpoint(place(self.data.detector.uri)))
        return replace(
            self,
            data=replace(self.data, detector=detector),
            start=self.start and replace(self.start, checkpoint=Checkpoint(place(self.start.checkpoint))),
            checkpoint=Checkpoint(place(self.checkpoint)),
            storage=place(self.storage),
        )

    def size(self) -> FitSize:
        """The size of the fit. Raises ValueError if the component does not learn."""
        size = self.learner.fit_size()
        if size is None:
            raise ValueError(f"{self.learner.kind} does not learn: there is nothing to fit")
        return size


def fit_fingerprint(learner: Learner, data: FitData, start: Fitted | None) -> str:
    """The hash of everything that affects a fit of ``learner`` on ``data`` from ``start``, 16 hex digits.

    Of images it covers names, paths, sizes and labels; pixels are identified by their paths. Of a detector it covers
    config and weights, of ``Learner.files_digest`` the contents.
    """
    parts = [learner.fit_options(), replace(data, detector=None)]
    parts += [start.fingerprint] if start else []
    parts += [data.detector.digest()] if data.detector else []
    files = learner.files_digest(data.clean)
    parts += [{"files": files}] if files else []
    return digest(to_plain(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A finished fit."""

    checkpoint: Checkpoint
    steps: int
    losses: tuple[dict[str, float], ...]  # one entry every ``EPOCH_STEPS``: step, mean loss
    precision: str
    launch_s: float  # before the first step and after the last: processes, imports, model, checkpoint
    training_s: float  # of the steps, with sample sheets and saving the state in between
    images_per_s: float  # over training_s
    boxes_cut: int  # see ``Fitted``


def fit(
    job: FitJob, hosting: HostingConfig, on_progress: OnProgress | None = None, draw_sheet: DrawSheet | None = None
) -> FitResult:
    """Run the fit ``job`` and write its checkpoint. ``draw_sheet`` draws the sample sheets, if given.

    An interrupted fit of the same name is resumed (Ray only). Ray must have been started. Raises ValueError or
    FileNotFoundError if the job is invalid, and ActorFailedError if workers fail more often than
    ``hosting.fit.max_failures``.
    """
    _check(job, hosting)
    start = time.perf_counter()
    outcome = launch(partial(run_fit, draw_sheet), job, hosting.fit, hosting, on_progress)
    return FitResult(
        checkpoint=job.checkpoint,
        steps=int(outcome.losses[-1]["step"]),
        losses=outcome.losses,
        precision=outcome.precision,
        launch_s=time.perf_counter() - start - outcome.seconds,
        training_s=outcome.seconds,
        images_per_s=outcome.images / max(outcome.seconds, 1e-9),
        boxes_cut=outcome.boxes_cut,
    )


def _check(job: FitJob, hosting: HostingConfig) -> None:
    """Raise errors here that every worker would raise: Ray would restart the workers."""
    if all(image.annotation.ignore.all() for image in job.data.images):
        raise ValueError(
            f"nothing to fit on: {counted(len(job.data.images), 'training image')} without a box that counts"
        )
    size = job.size()
    if hosting.engine == "ray":
        check_parts("the fit's batch size", size.batch_size, "fit", hosting.fit.num_workers, size.accumulate)


def run_fit(
    draw_sheet: DrawSheet | None, job: FitJob, place: Place, memory: Memory, progress: OnProgress, num_threads: int
) -> Outcome:
    """The work of one worker. The first worker writes the checkpoint and the sample sheets."""
    import torch

    torch.set_num_threads(num_threads)
    device = "cpu" if place.device == "cpu" else f"cuda:{place.device}"
    worker = Worker(device=device, rank=place.rank, num_workers=place.num_workers)
    running = job.learner.open_fit(job.data, worker)
    state = memory.recall()
    losses: list[dict[str, float]] = state["losses"] if state else []
    first = int(losses[-1]["step"]) if losses else 0
    if state:
        running.restore(state["fit"])
    elif job.start:
        running.warm_start(job.start.checkpoint)
    recent, began = list[float](), time.perf_counter()
    for number in range(first, running.num_steps):
        done = number + 1
        recent.append(running.step(number))
        if done % EPOCH_STEPS and done < running.num_steps:
            continue
        losses.append({"step": done, "loss": sum(recent) / len(recent)})
        recent.clear()
        if place.rank == 0:
            speed = (done - first) * running.batch_size / (time.perf_counter() - began)
            progress(Progress(step=done, steps=running.num_steps, loss=losses[-1]["loss"], images_per_s=speed))
            if draw_sheet and _is_shown(done, running.num_steps):
                _show(draw_sheet, running, done, job)
        if done < running.num_steps:
            memory.keep(lambda: {"fit": running.state(), "losses": list(losses)})
    seconds = time.perf_counter() - began
    platform = this_platform(torch.device(device).type, ())
    if place.rank == 0:
        running.save(job.checkpoint)
    return Outcome(
        losses=tuple(losses),
        seconds=seconds,
        images=(running.num_steps - first) * running.batch_size,
        precision=platform.precision,
        platform=platform,
        weights={},
        boxes_cut=running.boxes_cut,
    )


def sample_sheets(checkpoint: Checkpoint) -> list[UPath]:
    """The sample sheets of a fit, stored beside its checkpoint, by step."""
    return sorted((UPath(checkpoint).parent / SHEETS).glob("*.png"), key=lambda file: file.name)


def _is_shown(done: int, num_steps: int) -> bool:
    """True if a sheet is due after ``done`` steps."""
    before = max(done - EPOCH_STEPS, 0)
    return done * NUM_SHEETS // num_steps > before * NUM_SHEETS // num_steps


def _show(draw_sheet: DrawSheet, running: Fit, done: int, job: FitJob) -> None:
    """Write a sample sheet beside the checkpoint, unless the component draws nothing."""
    if previews := running.preview():
        sheet = draw_sheet(previews, f"{job.learner.kind}, after {done} of {running.num_steps} steps")
        write_bytes(UPath(job.checkpoint).parent / SHEETS / f"{done:07d}.png", sheet)
