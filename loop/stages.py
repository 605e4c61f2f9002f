"""Stages as a lazy chain of components, executed by Ray Data or in this process.

A ``Stream`` holds rows and the stages that they pass; nothing runs before ``collect``. Rows are tracked by id, so that
none is lost silently: a row whose process died is tried once more, alone, and is then returned with an error. The
driver holds metadata only; pixels are passed between the actors.
"""

import logging
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from actors.checkpoint import Checkpoint
from actors.counted import counted
from actors.detectors.base import DetectorBase
from actors.hosting import NOT_OPENED, TIMED_OUT, Host, OpenComponent
from actors.records import Detections, LabeledImage, Lineage
from actors.rows import Row, lineage_row, read_detections
from loop.adapters import Embed, Generate, Inspect, Judge, Refine, Sources, detector_access
from loop.cache import Remembered
from loop.config import LoopConfig
from loop.hosting.config import HostingConfig, RoleConfig
from loop.hosting.launch import node_names
from loop.hosting.records import ActorFailedError
from loop.keep import Keep
from loop.state import Cost

if TYPE_CHECKING:
    import ray.data

    from actors.filters.base import Embed as Features

log = logging.getLogger(__name__)

OnRow = Callable[[Row], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One kind of actor in a stream."""

    name: str
    open_component: OpenComponent
    role: RoleConfig
    forgets: tuple[str, ...] = ()  # columns that are removed after this stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Rows and the stages that they pass, in order."""

    rows: tuple[Row, ...]
    stages: tuple[Stage, ...] = ()

    def then(self, stage: Stage) -> "Stream":
        """This stream with one more stage at its end."""
        return replace(self, stages=(*self.stages, stage))


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The rows that a stream returned, and its cost."""

    rows: tuple[Row, ...]  # by id
    cost: Cost


def generate(lineages: Sequence[Lineage], config: LoopConfig, sources: Sources) -> Stream:
    """The candidates, one per lineage."""
    opener = _remembered(partial(Generate, config.generator, sources), sources, "generate")
    stage = Stage(name="generate", open_component=opener, role=config.hosting.generate)
    return Stream(rows=tuple(lineage_row(lineage) for lineage in lineages)).then(stage)


def inspect(candidates: Stream, config: LoopConfig, sources: Sources) -> Stream:
    """The candidates with the detections of the current detector, which runs on each once."""
    opener = _remembered(partial(Inspect, config.detector, sources.detector), sources, "inspect")
    return candidates.then(Stage(name="inspect", open_component=opener, role=config.hosting.inspect))


def _remembered(opener: OpenComponent, sources: Sources, stage: str) -> OpenComponent:
    """The component with a cache in ``sources.shared``, if there is one."""
    return partial(Remembered, opener, str(UPath(sources.shared) / stage)) if sources.shared else opener


def judge(inspected: Stream, config: LoopConfig, sources: Sources) -> Stream:
    """The candidates with the verdicts of the filters, after the policy for rejected boxes is applied."""
    detectors = detector_access(config.detector, sources.detector, sources.held_back)
    opener = partial(Judge, config.filters, config.rejected_boxes, sources, detectors)
    ends = ("painted", "refused")
    return inspected.then(Stage(name="judge", open_component=opener, role=config.hosting.judge, forgets=ends))


def refine(judged: Stream, config: LoopConfig, sources: Sources) -> Stream:
    """The candidates with their drawn boxes moved to the objects, or ignored; the same stream without a refiner."""
    if not config.refines:
        return judged
    opener = partial(Refine, config.refiner, config.detector, sources)
    return judged.then(Stage(name="refine", open_component=opener, role=config.hosting.refine))


def keep(judged: Stream, config: LoopConfig, folder: str) -> Stream:
    """The judged candidates, written as samples into the round's ``folder``. Rows keep ids and reasons only."""
    annotation = [f"{of}_{part}" for of in ("annotation", "proposed") for part in ("boxes", "labels", "ignore")]
    seen = ("seen_boxes", "seen_labels", "seen_scores")
    ends = ("pixels", "as_drawn", "drawn", "restored", "verdicts", "canvas", "examples", "refined", *annotation, *seen)
    return judged.then(Stage(name="keep", open_component=partial(Keep, folder), role=config.hosting.keep, forgets=ends))


def detect(
    images: Sequence[LabeledImage],
    detector: DetectorBase,
    checkpoint: Checkpoint,
    hosting: HostingConfig,
    on_row: OnRow,
) -> tuple[dict[str, Detections], Cost]:
    """The detections in each real image, by image id, and their cost.

    Raises ValueError if a picture cannot be read.
    """
    rows = tuple({"id": image.id, "uri": image.uri, "error": ""} for image in images)
    stage = Stage(name="inspect", open_component=partial(Inspect, detector, checkpoint), role=hosting.inspect)
    collected = collect(Stream(rows=rows).then(stage), hosting, on_row)
    refuse_broken(collected)
    return {row["id"]: read_detections(row) for row in collected.rows}, collected.cost


def embed(
    rows: Sequence[Row],
    open_embed: "Callable[[], Features]",
    max_side_px: int,
    hosting: HostingConfig,
    on_row: OnRow,
) -> dict[str, NDArray[np.float32]]:
    """The features ``[k, d]`` of each row's picture or boxes (see ``adapters.Embed``), by row id.

    Raises ValueError if a picture cannot be read.
    """
    stage = Stage(name="embed", open_component=partial(Embed, open_embed, max_side_px), role=hosting.inspect)
    collected = collect(Stream(rows=tuple(rows)).then(stage), hosting, on_row)
    refuse_broken(collected)
    return {row["id"]: np.asarray(row["features"], np.float32) for row in collected.rows}


def refuse_broken(collected: Collected) -> None:
    """Raise ValueError if a row has an error."""
    broken = [f"{row['id']}: {row['error']}" for row in collected.rows if row["error"]]
    if broken:
        raise ValueError(f"{counted(len(broken), 'image')} could not be read; first: {broken[0]}")


def collect(stream: Stream, hosting: HostingConfig, on_row: OnRow) -> Collected:
    """Run the stream. ``on_row`` is called with each row that leaves the last stage, in no fixed order.

    Raises what a component raises when it is opened, on Ray as an ActorFailedError.
    """
    start = time.perf_counter()
    run = _run_on_ray if hosting.engine == "ray" else _run_inline
    done = _gather(run(stream), on_row, keep_slow=False)
    lost = [row for row in stream.rows if row["id"] not in done]
    if lost:
        log.warning("%s did not come back from their actors; trying each alone", counted(len(lost), "row"))
        done |= _gather(run(replace(stream, rows=tuple(lost)), alone=True), on_row)
    for row in stream.rows:
        if row["id"] not in done:
            done[row["id"]] = _lost_row(row, stream)
            on_row(done[row["id"]])
    rows = tuple(done[row_id] for row_id in sorted(done))
    seconds = {stage.name: _busy_s(rows, stage) for stage in stream.stages}
    wall_s = time.perf_counter() - start
    engine_s = max(wall_s - max(seconds.values(), default=0.0), 0.0)
    return Collected(rows=rows, cost=Cost(seconds=seconds, wall_s=wall_s, engine_s=engine_s, num_items=len(rows)))


def _gather(rows: Generator[Row, None, None], on_row: OnRow, *, keep_slow: bool = True) -> dict[str, Row]:
    """The rows by id, without those that were too slow unless ``keep_slow``."""
    done: dict[str, Row] = {}
    with closing(rows):  # an execution that is left would go on, and start a Ray of its own once ours is shut down
        for row in rows:
            if NOT_OPENED in row["error"]:
                raise ActorFailedError(row["error"])
            if row["id"] not in done and (keep_slow or TIMED_OUT not in row["error"]):
                done[row["id"]] = row
                on_row(row)
    return done


def _run_inline(stream: Stream, *, alone: bool = False) -> Generator[Row, None, None]:
    """Pass batch after batch through all stages, in this process."""
    hosts = [
        Host(stage.name, stage.open_component, stage.forgets, timeout_s=stage.role.timeout_s) for stage in stream.stages
    ]
    batch_size = 1 if alone else min(batch_sizes(stream), default=1)
    for first in range(0, len(stream.rows), batch_size):
        batch: list[Row] = list(stream.rows[first : first + batch_size])
        for host in hosts:
            batch = host.process(batch)
        yield from batch


def batch_sizes(stream: Stream) -> list[int]:
    """Rows per call of each stage: no more than of the stage before, since they would wait for rows not yet drawn."""
    return list(accumulate((stage.role.batch_size for stage in stream.stages), min))


def _run_on_ray(stream: Stream, *, alone: bool = False) -> Generator[Row, None, None]:
    """One Ray Data execution: an actor pool for each stage, chained, with back-pressure."""
    import ray.data

    if not stream.rows:
        return
    nodes = node_names()
    _keep_tracebacks_in_logs()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # collect finds the rows of a lost block by id and tries them again
    sizes = [1 for _ in stream.stages] if alone else batch_sizes(stream)
    num_blocks = max(len(stream.rows) // min(sizes), 1)  # a smaller block would wait for the next one
    dataset = ray.data.from_items(list(stream.rows), override_num_blocks=num_blocks)
    for stage, batch_size in zip(stream.stages, sizes, strict=True):
        dataset = _map(dataset, stage, batch_size, alone=alone)
    yield from dataset.iter_rows()
    if lost := nodes - node_names():
        log.warning(
            "lost %s, %s; batches in work there are repeated", counted(len(lost), "node"), ", ".join(sorted(lost))
        )


def _keep_tracebacks_in_logs() -> None:
    """Print no tracebacks of lost blocks: ``collect`` says what was lost and repeated. They stay in Ray's log file."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and type(handler).__module__.startswith("ray."):
            handler.setLevel(logging.CRITICAL)


def _map(dataset: "ray.data.Dataset", stage: Stage, batch_size: int, *, alone: bool) -> "ray.data.Dataset":
    """Add a stage. ``alone``: no row shares a batch or waits in a queue, so none dies with another's process.

    That pass asks for no CPUs: after a node was lost, actors of the first pass can stay and hold all that are left.
    """
    from ray.data import ActorPoolStrategy

    constructor = {"stage": stage.name, "open_component": stage.open_component, "forgets": stage.forgets}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there is no other way yet to set max_task_retries
        return dataset.map_batches(
            type(stage.name.capitalize(), (Host,), {}),  # Ray displays the class name of an actor
            fn_constructor_kwargs={**constructor, "timeout_s": stage.role.timeout_s, "expendable": True},
            compute=ActorPoolStrategy(size=stage.role.num_actors, max_tasks_in_flight_per_actor=1 if alone else None),
            batch_size=batch_size,
            num_cpus=0 if alone else stage.role.num_cpus,
            num_gpus=stage.role.num_gpus or None,
            max_task_retries=1,  # unbounded by default: a row that kills its process would be retried forever
        )


def _lost_row(row: Row, stream: Stream) -> Row:
    """A row whose process died twice: its error, without the columns of the stages."""
    return {**row, "error": "engine: the process that held it died", "dropped": "error"} | {
        f"{stage.name}_s": 0.0 for stage in stream.stages
    }


def _busy_s(rows: Sequence[Row], stage: Stage) -> float:
    return float(sum(row[f"{stage.name}_s"] for row in rows)) / stage.role.num_actors
