"""MLflow: one experiment per config name, one parent run per loop, one child run per round.

Only the driver writes. Logging is idempotent: a round that is logged again, even after an interruption, appears once.
"""

import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import yaml
from upath import UPath

from actors.storage import exclusive
from loop.config import LoopConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

# What MLflow accepts (mlflow.utils.validation)
MAX_KEY_CHARS, MAX_PARAM_CHARS, MAX_TAG_CHARS = 250, 6000, 8000
MAX_PARAMS_A_BATCH, MAX_METRICS_A_BATCH = 100, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Location of MLflow's metrics and artifacts."""

    uri: str  # tracking URI
    artifacts: str | None  # URI of the folder for artifacts; None: chosen by the server


def store(config: LoopConfig) -> Store:
    """The configured tracking server, or a sqlite file and a folder in the storage root.

    Raises ValueError if the root is remote and no server is configured.
    """
    if config.tracking.uri is not None:
        return Store(uri=config.tracking.uri, artifacts=None)
    return local_store(config.root)


def local_store(root: str) -> Store:
    """A sqlite file and a folder for artifacts in the storage root. Raises ValueError if the root is remote."""
    place = UPath(root)
    if place.protocol not in {"", "file", "local"}:
        raise ValueError(f"root {root} is remote, but MLflow's sqlite file needs a local disk; set tracking.uri")
    folder = Path(place.path).resolve()
    return Store(uri=f"sqlite:///{folder}/mlflow.db", artifacts=(folder / "mlartifacts").as_uri())


def ui_command(uri: str, port: int = 5000) -> list[str]:
    """The command that serves MLflow's UI for a store, on this machine only.

    Raises ValueError if the store is a server, which has a UI of its own.
    """
    if uri.startswith(("http://", "https://")):
        raise ValueError(f"{uri} is a running MLflow server; open that address in a browser")
    binding = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, *binding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker:
    """Logs a loop to MLflow. As a context manager it ends the loop's MLflow run as finished or failed."""

    client: "MlflowClient"
    run_ids: dict[str, str] = field(
        default_factory=dict
    )  # experiment and loop; store them, and pass them to ``open`` on resume

    @classmethod
    def open(cls, config: LoopConfig, run_ids: Mapping[str, str] | None = None) -> Self:
        """Resume the MLflow runs ``run_ids``, or start new ones if there are none or the store has lost them.

        Raises ValueError if the experiment was deleted in the store, or a local store cannot be created.
        """
        place = store(config)
        with exclusive(UPath(config.root) / "mlflow.db"):  # concurrent runs would create its tables twice
            client = _client(place)
            loop = _resume(client, run_ids["loop"]) if run_ids else None
            if loop is None:
                experiment = _experiment(client, config.tracking.experiment or config.name, place.artifacts)
                loop = client.create_run(experiment, run_name=f"{config.name} {config.fingerprint()[:6]}")
        tracker = cls(
            client=client, run_ids={"experiment": str(loop.info.experiment_id), "loop": str(loop.info.run_id)}
        )
        tracker._log_config(loop, config)
        return tracker

    def log_round(self, number: int, metrics: Mapping[str, float], artifacts: Mapping[str, bytes]) -> None:
        """Log a round's metrics and files (by name) to its own MLflow run, and the metrics as a step of the loop's run.

        Does nothing if the round is logged already.
        """
        figures = dict(zip(legal_keys(metrics), metrics.values(), strict=True))
        child = self._find_round(number)
        begun = child is not None
        if child is None:
            child = self._create_round(number, metrics)
        elif child.info.status == "FINISHED":
            return
        self._log_metrics(child.info.run_id, {k: v for k, v in figures.items() if k not in child.data.metrics}, number)
        self._log_files(child.info.run_id, artifacts)
        missing = {k: v for k, v in figures.items() if not (begun and self._has_step(k, number))}
        self._log_metrics(self.run_ids["loop"], missing, number)
        self.client.set_terminated(child.info.run_id, "FINISHED")  # last: marks the round as complete

    def log_figures(self, figures: Mapping[str, float]) -> None:
        """Log metrics that belong to no round to the loop's run. Known ones are not logged again."""
        known = self.client.get_run(self.run_ids["loop"]).data.metrics
        named = dict(zip(legal_keys(figures), figures.values(), strict=True))
        self._log_metrics(self.run_ids["loop"], {k: v for k, v in named.items() if known.get(k) != v}, step=0)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Log files (by name) to the loop's run."""
        self._log_files(self.run_ids["loop"], files)

    def close(self, *, failed: bool = False) -> None:
        """End the loop's MLflow run."""
        self.client.set_terminated(self.run_ids["loop"], "FAILED" if failed else "FINISHED")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close(failed=kind is not None)

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


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A config tree as dotted keys and text values. A list of components becomes ``filters.<kind>.<key>``."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        branch = _by_kind(value)
        if isinstance(branch, Mapping):
            flat |= flatten(branch, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _by_kind(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(part, Mapping) and "kind" in part for part in value):
        return {part["kind"]: {**part, "position": place} for place, part in enumerate(value)}
    return value


def legal_keys(keys: Iterable[str]) -> list[str]:
    """The keys as MLflow accepts them: other characters become ``_``, and keys that become equal are numbered."""
    legal: list[str] = []
    for key in keys:
        parts = re.sub(r"[^\w.\- :/]", "_", key).split("/")
        name = "/".join("_" if part.strip(" .") == "" else part for part in parts)[: MAX_KEY_CHARS - 4]
        again = 2
        unique = name
        while unique in legal:
            unique, again = f"{name}_{again}", again + 1
        legal.append(unique)
    return legal


def _client(place: Store) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # on by default, read at import
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they log the creation of every table
        logging.getLogger(name).setLevel(logging.WARNING)
    if place.uri.startswith("sqlite:///"):
        Path(place.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=place.uri)


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    known = client.get_experiment_by_name(name)
    if known is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if known.lifecycle_stage == "deleted":
        raise ValueError(f"experiment {name!r} was deleted in MLflow; restore it there, or set tracking.experiment")
    return str(known.experiment_id)


def _resume(client: "MlflowClient", run_id: str) -> "Run | None":
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        run = None
    if run is None or run.info.lifecycle_stage == "deleted":
        log.warning("MLflow no longer has run %s; its earlier rounds are missing in the new one", run_id)
        return None
    client.update_run(run_id, status="RUNNING")
    return run
