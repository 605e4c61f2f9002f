"""Ablations: Ray Tune runs the loop for every arm and seed, and a table compares the arms.

A trial is a run in a folder of its own (see ``loop.ablation.config``). Shared results are computed by the first trial
that needs them, while the others wait. The ablation itself has the folder ``ablations/<name>/``::

    ablation.json                        seeds, and every arm's resolved config
    trials/<run>.json                    the result of a trial; it exists if the trial is finished
    logs/<run>.txt                       the output of the trial
    table.md  table.csv  table.png  rows.json

Started again, an ablation runs the trials without a result. Each continues where it stopped.
"""

import json
import logging
import os
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from typing_extensions import override
from upath import UPath

from actors.counted import counted
from actors.plain import differences, from_plain
from actors.storage import exclusive, read_record, write_bytes, write_record
from loop.ablation.config import Ablation, Trial
from loop.ablation.table import AblationTable, TrialResult, csv_table, figures, json_rows, markdown, picture
from loop.config import ConfigError, LoopConfig
from loop.driver import run
from loop.hosting.config import HostingConfig
from loop.hosting.engine import started_ray
from loop.hosting.records import Platform
from loop.progress import Reporter
from loop.report.summary import points
from loop.state import check_schema, once
from loop.tracking.store import refuse_silence, store, where_to_compare
from loop.tracking.tracker import Tracker

if TYPE_CHECKING:
    from ray import tune
    from ray.tune.experiment import Trial as TuneTrial

MAX_REASON_CHARS = 300
DRIVER_CPUS = 0.01  # of a trial whose stages have CPUs of their own; the minimum of Tune


def ablate(ablation: Ablation, reporter: Reporter) -> AblationTable:
    """Run the missing trials, then write and print the table. Its ``failed`` names the trials without a result.

    Raises ConfigError if the folder holds an ablation of another config, and ValueError if the MLflow server does not
    answer.
    """
    refuse_silence(store(ablation.base))
    claim(ablation)
    with _tracker(ablation, reporter) as tracker:
        failed = _run_missing(ablation, tracker.run_ids["loop"], reporter)
        table = _table(ablation, failed)
        files = {
            "table.md": markdown(table).encode(),
            "table.csv": csv_table(table).encode(),
            "table.png": picture(table),
            "rows.json": json_rows(table).encode(),
        }
        for name, data in files.items():
            write_bytes(ablation.folder / name, data)
        tracker.log_run(figures(table), files)
    if table.failed:
        tracker.close(failed=True)
    reporter.say(f"\n{markdown(table)}")
    reporter.say(f"{ablation.folder / 'table.png'}   compare runs: {where_to_compare(ablation.base)}")
    return table


def claim(ablation: Ablation) -> None:
    """Record the config that affects the results. Arms and seeds may be added later; the rest must not change.

    Raises ConfigError, which names the differences.
    """
    file, science = ablation.folder / "ablation.json", ablation.science()
    known = once(file, dict[str, Any], lambda: science)
    check_schema(ablation.folder, known)
    lost = [f"arm {arm!r} is gone" for arm in known["arms"] if arm not in science["arms"]]
    lost += [f"seed {seed} is gone" for seed in known["seeds"] if seed not in science["seeds"]]
    stayed = {arm: science["arms"][arm] for arm in known["arms"] if arm in science["arms"]}
    changed = differences({arm: known["arms"][arm] for arm in stayed}, stayed)
    if lost or changed:
        raise ConfigError(
            f"{ablation.folder} holds an ablation of another config; choose another name, or restore it "
            "(stored -> given; arms and seeds may be added):\n  " + "\n  ".join([*lost, *changed])
        )
    write_record(file, science)


def _tracker(ablation: Ablation, reporter: Reporter) -> Tracker:
    """The MLflow run that is the parent of all trials' runs."""
    name = ablation.config.name
    tracking = ablation.base.tracking
    tracking = tracking.model_copy(update={"experiment": tracking.experiment or name})
    config = ablation.base.model_copy(update={"name": name, "tracking": tracking})
    return Tracker.open(config, ablation.folder, reporter.warn)


def _result_file(folder: UPath, run_name: str) -> UPath:
    return folder / "trials" / f"{run_name}.json"


def _table(ablation: Ablation, failed: Mapping[str, str]) -> AblationTable:
    found, missing = list[TrialResult](), dict[str, str]()
    for trial in ablation.trials:
        file, label = _result_file(ablation.folder, trial.config.name), f"{trial.arm}, seed {trial.seed}"
        if not file.exists():
            missing[label] = failed.get(trial.config.name, "not finished; start the ablation again")
            continue
        result = read_record(file, TrialResult)
        found.append(result)
        if ablation.config.metric not in result.metrics:
            missing[label] = f"no metric {ablation.config.metric}; known: {', '.join(result.metrics)}"
    return AblationTable(
        name=ablation.config.name,
        metric=ablation.config.metric,
        arms=ablation.arms,
        results=tuple(found),
        failed=missing,
    )


def _run_missing(ablation: Ablation, parent: str, reporter: Reporter) -> dict[str, str]:
    """Run the trials without a result. Returns the reasons of failures, by run name."""
    todo = [trial for trial in ablation.trials if not _result_file(ablation.folder, trial.config.name).exists()]
    num_all, hosting = len(ablation.trials), ablation.base.hosting
    shape = f"arms: {len(ablation.arms)}, seeds: {len(ablation.config.seeds)}"
    reporter.say(f"{ablation.config.name}: {shape}; {num_all - len(todo)} of {counted(num_all, 'run')} finished")
    reporter.say(f"logs: {ablation.folder / 'logs'}")
    if not todo:
        return {}
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # MLflow and the run folders hold the same
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would end the ablation as if it had finished
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output is not silent at verbose=0
    with started_ray(_num_cpus(hosting)):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the table lists failed trials
        trials = [_plain(trial, ablation.folder, parent) for trial in todo]
        results = _tuner(ablation, trials, _follow(reporter, len(todo))).fit()
        return {Path(one.path).name: _reason(one.error) for one in results if one.error}


def _num_cpus(hosting: HostingConfig) -> int:
    """Logical CPUs of a local Ray: as in ``detloop run``, but for inline trials the CPUs of this machine."""
    num_cpus = os.cpu_count() or 1
    return hosting.num_cpus or (num_cpus if hosting.engine == "inline" else max(num_cpus, 4))


def _plain(trial: Trial, folder: UPath, parent: str) -> dict[str, Any]:
    """A trial as plain values for Tune; ``loop`` is its config."""
    tracking = trial.config.tracking
    tracking = tracking.model_copy(update={"tags": {**tracking.tags, "mlflow.parentRunId": parent}})
    config = trial.config.model_copy(update={"tracking": tracking})
    return {
        "arm": trial.arm,
        "loop": config.model_dump(mode="json"),
        "ablation": str(folder),
        "working_folder": str(Path.cwd()),
    }


def _tuner(ablation: Ablation, trials: Sequence[dict[str, Any]], follower: "tune.Callback") -> "tune.Tuner":
    from ray import tune

    at_once = ablation.config.max_concurrent or (None if ablation.base.hosting.engine == "inline" else 1)
    return tune.Tuner(
        tune.with_resources(run_trial, _resources(ablation.base.hosting)),
        param_space={"trial": tune.grid_search(list(trials))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=at_once,
            reuse_actors=True,  # the next trial in the same process has no imports to wait for
            trial_name_creator=_run_name,
            trial_dirname_creator=_run_name,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(ablation.folder), verbose=0, callbacks=[follower]),
    )


def _run_name(trial: "TuneTrial") -> str:
    return str(trial.config["trial"]["loop"]["name"])


def _resources(hosting: HostingConfig) -> dict[str, float]:
    """The resources of one trial: those of an inline run, or almost none if the stages have their own."""
    if hosting.engine == "ray":
        return {"cpu": DRIVER_CPUS}
    trainers = (hosting.fit, hosting.train)
    gpus = max(role.num_gpus for role in (hosting.generate, hosting.inspect, hosting.judge, hosting.refine, *trainers))
    return {"cpu": max(role.num_cpus for role in trainers)} | ({"gpu": gpus} if gpus else {})


def _follow(reporter: Reporter, num_trials: int) -> "tune.Callback":
    """A callback that prints the outcome of each trial."""
    from ray import tune

    class Follower(tune.Callback):  # type: ignore[misc]
        num_over = 0

        def __reduce__(self) -> tuple[type, tuple[()]]:
            """Tune pickles its callbacks to restore them. This one has no state to restore."""
            return object, ()

        @override
        def on_trial_complete(self, iteration: int, trials: object, trial: "TuneTrial", **_: object) -> None:
            result = trial.last_result
            self._report(trial, f"AP {points(result['AP'])}, {result['time_total_s']:.0f} s")

        @override
        def on_trial_error(self, iteration: int, trials: object, trial: "TuneTrial", **_: object) -> None:
            self._report(trial, "failed; see its log")

        def _report(self, trial: "TuneTrial", text: str) -> None:
            self.num_over += 1
            reporter.say(f"{self.num_over}/{num_trials}  {_run_name(trial)}: {text}")

    return Follower()


def _reason(error: Exception) -> str:
    """The error in one line. The trial's log has all of it, unless its process died."""
    cause = getattr(error, "cause", error)
    return textwrap.shorten(f"{type(cause).__name__}: {cause}", MAX_REASON_CHARS)


def run_trial(config: dict[str, Any]) -> dict[str, float]:
    """Run one trial in a process of Tune: run the loop, or the rest of it, and write its result."""
    trial = config["trial"]
    with suppress(FileNotFoundError):  # Tune changes the folder; relative paths are relative to the driver's
        os.chdir(trial["working_folder"])
    loop, folder = LoopConfig.model_validate(trial["loop"]), UPath(trial["ablation"])
    file = _result_file(folder, loop.name)
    with exclusive(file), _log(folder / "logs" / f"{loop.name}.txt") as console:
        if not file.exists():
            write_record(file, _result(trial["arm"], loop, run(loop, Reporter(console))))
    return dict(read_record(file, TrialResult).metrics)


def _result(arm: str, config: LoopConfig, folder: UPath) -> TrialResult:
    summary = json.loads((folder / "summary.json").read_bytes())
    metrics = summary["metrics"]["loop" if config.rounds else "control"]
    return TrialResult(
        arm=arm,
        seed=config.seed,
        steps=config.training.steps,
        metrics=metrics,
        trained_on=from_plain(tuple[Platform, ...], summary["trained_on"]),
    )


@contextmanager
def _log(file: UPath) -> Iterator[Console]:
    """A console that writes to ``file``. An error in the block is written there too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as text:
        try:
            yield Console(file=text, width=160, highlight=False)
        except BaseException:
            traceback.print_exc(file=text)
            raise
