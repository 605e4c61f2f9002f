"""MLflow: one experiment per config name, one parent run per loop, one child run per round.

Only the driver writes. Logging is idempotent: a round that is logged again, even after an interruption, appears once.
What cannot be logged is kept in the run's folder, and logged with the next round or at the next start.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import yaml
from upath import UPath

from actors.counted import counted
from actors.storage import exclusive, read_record, write_record
from loop.config import LoopConfig
from loop.tracking.names import flatten, legal_keys
from loop.tracking.outbox import Entry, Outbox
from loop.tracking.store import brief, explained, open_client, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

# What MLflow accepts (mlflow.utils.validation)
MAX_PARAM_CHARS, MAX_TAG_CHARS = 6000, 8000
MAX_PARAMS_A_BATCH, MAX_METRICS_A_BATCH = 100, 1000

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker:
    """Logs a loop to MLflow. As a context manager it ends the loop's MLflow run as finished or failed."""

    client: "MlflowClient"
    run_ids: dict[str, str]  # experiment and loop
    outbox: Outbox
    warn: Warn

    @classmethod
    def open(cls, config: LoopConfig, folder: UPath, warn: Warn) -> Self:
        """Resume the MLflow runs of the run in ``folder``, or start new ones if there are none or the store lost them.

        Raises ValueError if the store cannot be reached or used, or the experiment was deleted in it.
        """
        place, file = store(config), folder / "mlflow.json"
        known = read_record(file, dict[str, str]) if file.exists() else None
        with exclusive(UPath(config.root) / "mlflow.db"):  # concurrent runs would create its tables twice
            client = open_client(place)
            with explained(place):
                loop = _resume(client, known["loop"], warn) if known else None
                if loop is None:
                    experiment = _experiment(client, config.tracking.experiment or config.name, place.artifacts)
                    loop = client.create_run(experiment, run_name=f"{config.name} {config.fingerprint()[:6]}")
        run_ids = {"experiment": str(loop.info.experiment_id), "loop": str(loop.info.run_id)}
        write_record(file, run_ids)
        tracker = cls(client=client, run_ids=run_ids, outbox=Outbox(folder / "unlogged"), warn=warn)
        with explained(place):
            tracker._log_config(loop, config)
        tracker._log()
        return tracker

    def log_round(self, number: int, metrics: Mapping[str, float], artifacts: Mapping[str, bytes]) -> None:
        """Log a round's metrics and files (by name) to its own MLflow run, and the metrics as a step of the loop's run.

        Does nothing if the round is logged already. Keeps what cannot be logged, with a warning.
        """
        self._log(Entry.of(number, metrics, artifacts))

    def log_run(self, figures: Mapping[str, float], files: Mapping[str, bytes]) -> None:
        """Log metrics and files (by name) that belong to no round to the loop's run.

        Does not log known metrics again. Keeps what cannot be logged, with a warning.
        """
        self._log(Entry.of(0, figures, files))

    def close(self, *, failed: bool = False) -> None:
        """End the loop's MLflow run, unless something waits to be logged in it. Warns if MLflow fails."""
        try:
            self.client.set_terminated(self.run_ids["loop"], "FAILED" if failed else "FINISHED")
        except Exception as error:
            log.debug("MLflow's run stays open", exc_info=True)
            if not failed:  # else there is something worse to say
                self.warn(f"the run could not be ended in MLflow: {brief(error)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if num_waiting := len(self.outbox.waiting()):
            self.warn(
                f"{counted(num_waiting, 'record is', 'records are')} not in MLflow yet; the same command "
                "logs what waits when MLflow is back"
            )
        else:
            self.close(failed=kind is not None)

    def _log(self, *entries: Entry) -> None:
        """Log what waits, and then ``entries``. If that fails, keep all that is not logged.

        No error of a store or its client library may end a run, which would lose hours of work.
        """
        known_to_wait = bool(self.outbox.waiting())
        for entry in entries:
            self.outbox.put(entry)
        try:
            for entry in self.outbox.take():
                self._send(entry)
        except Exception as error:
            log.debug("MLflow failed", exc_info=True)
            if not known_to_wait:
                kept = f"what was to be logged waits in {self.outbox.folder}, and is logged as soon as MLflow is back"
                self.warn(f"MLflow failed, and the run goes on: {kept} ({brief(error)})")

    def _send(self, entry: Entry) -> None:
        if entry.round:
            self._send_round(entry)
            return
        known = self.client.get_run(self.run_ids["loop"]).data.metrics
        named = dict(zip(legal_keys(entry.figures), entry.figures.values(), strict=True))
        self._log_metrics(self.run_ids["loop"], {k: v for k, v in named.items() if known.get(k) != v}, step=0)
        self._log_files(self.run_ids["loop"], entry.contents())

    def _send_round(self, entry: Entry) -> None:
        number = entry.round
        figures = dict(zip(legal_keys(entry.figures), entry.figures.values(), strict=True))
        child = self._find_round(number)
        begun = child is not None
        if child is None:
            child = self._create_round(number, entry.figures)
        elif child.info.status == "FINISHED":
            return
        self._log_metrics(child.info.run_id, {k: v for k, v in figures.items() if k not in child.data.metrics}, number)
        self._log_files(child.info.run_id, entry.contents())
        missing = {k: v for k, v in figures.items() if not (begun and self._has_step(k, number))}
        self._log_metrics(self.run_ids["loop"], missing, number)
        self.client.set_terminated(child.info.run_id, "FINISHED")  # last: marks the round as complete

    def _log_config(self, loop: "Run", config: LoopConfig) -> None:
        """Log the config. Params cannot be changed later, so differences to the first start become a tag."""
        from mlflow.entities import Param, RunTag

        tree = config.model_dump(mode="json")
        flat = flatten(tree)
        params = {key: value[:MAX_PARAM_CHARS] for key, value in zip(legal_keys(flat), flat.values(), strict=True)}
        known = loop.data.params
        new = [Param(key, value) for key, value in params.items() if key not in known]
        for start in range(0, len(new), MAX_PARAMS_A_BATCH):
            self.client.log_batch(loop.info.run_id, params=new[start : start + MAX_PARAMS_A_BATCH])
        changed = [f"{key}: {known[key]} -> {value}" for key, value in params.items() if known.get(key, value) != value]
        tags = {"fingerprint": config.fingerprint(), "detloop": version("detloop")}
        tags |= {"resumed_with": "; ".join(changed)[:MAX_TAG_CHARS]} if changed else {}
        tags |= config.tracking.tags
        self.client.log_batch(loop.info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._log_files(loop.info.run_id, {"config.yaml": yaml.safe_dump(tree, sort_keys=False).encode()})

    def _find_round(self, number: int) -> "Run | None":
        """The round's run, found by its tags. This works even if the driver died right after creating it."""
        query = f"tags.`mlflow.parentRunId` = '{self.run_ids['loop']}' and tags.round = '{number}'"
        found = self.client.search_runs([self.run_ids["experiment"]], query)
        return found[0] if found else None

    def _create_round(self, number: int, metrics: Mapping[str, float]) -> "Run":
        return self.client.create_run(
            self.run_ids["experiment"],
            start_time=int((time.time() - metrics.get("seconds/wall", 0.0)) * 1000),
            run_name=f"round {number}",
            tags={"mlflow.parentRunId": self.run_ids["loop"], "round": str(number)},
        )

    def _has_step(self, key: str, step: int) -> bool:
        return any(point.step == step for point in self.client.get_metric_history(self.run_ids["loop"], key))

    def _log_metrics(self, run_id: str, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(key, float(value), now, step) for key, value in figures.items()]
        for start in range(0, len(points), MAX_METRICS_A_BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + MAX_METRICS_A_BATCH])

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if files:
                self.client.log_artifacts(run_id, folder)


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    known = client.get_experiment_by_name(name)
    if known is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if known.lifecycle_stage == "deleted":
        raise ValueError(f"experiment {name!r} was deleted in MLflow; restore it there, or set tracking.experiment")
    return str(known.experiment_id)


def _resume(client: "MlflowClient", run_id: str, warn: Warn) -> "Run | None":
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        run = None
    if run is None or run.info.lifecycle_stage == "deleted":
        warn(f"MLflow no longer has run {run_id}; its earlier rounds are missing in the new one")
        return None
    client.update_run(run_id, status="RUNNING")
    return run
