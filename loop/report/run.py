"""The report of a run: the table in the terminal, ``summary.json``, ``summary.html``, and the manifest."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from actors.plain import to_plain
from actors.storage import read_record, write_bytes
from loop.arms import Arm
from loop.context import Loop
from loop.cross_fit import fold_arms, folds_of_filters, trained_folds
from loop.evaluation.coco import Repeated, evaluate
from loop.hosting.records import Platform
from loop.report.control import control_weights, describe_weights
from loop.report.manifest import manifest
from loop.report.page import html_summary
from loop.report.pictures import figures
from loop.report.summary import RoundSummary, arm_seconds, points, summary
from loop.report.table import rounds_table
from loop.tracking.store import where_to_compare
from loop.tracking.tracker import Tracker
from loop.training.job import TrainResult
from loop.use.chosen import choose


def report_run(loop: Loop, tracker: Tracker) -> None:
    """Collect the rounds' reports, and write the run's to its folder and to MLflow."""
    config, path = loop.config, loop.folder.path
    numbers = range(1, config.rounds + 1)
    rounds = [read_record(loop.folder.round(number) / "round.json", RoundSummary) for number in numbers]
    facts = _summarise(loop, rounds)
    files = {"summary.json": json.dumps(facts, indent=1).encode(), "summary.html": _page(loop, rounds).encode()}
    write_bytes(path / "manifest.json", b"".join(manifest(loop.folder.judged(number)) for number in numbers))
    for name, data in files.items():
        write_bytes(path / name, data)
    control = {} if rounds else {f"control_{key}": value for key, value in facts["metrics"]["control"].items()}
    weights = {f"weights/{outcome}": number for outcome, number in facts["weights"].items()}
    tracker.log_run(control | weights, files)
    loop.reporter.say(rounds_table(rounds))
    ap, seconds = facts["metrics"]["control"]["AP"], sum(facts["control_seconds"].values())
    loop.reporter.say(f"control: AP {points(ap)}, {seconds:.0f} s, trained once for all runs")
    loop.reporter.say(f"pictures and curves: {path / 'summary.html'}   compare runs: {where_to_compare(config)}")
    for line in _uses(loop):
        loop.reporter.say(line)


def _uses(loop: Loop) -> Iterator[str]:
    """The detector that the commands after a run take unless they are told another, and the commands."""
    chosen = choose(loop.folder.path)
    control = not chosen.loop
    run, flag = loop.folder.path, " --control" if control else ""
    yield f"use the {chosen.one(control=control)[1]}: detloop predict {run} IMAGES --out FOLDER{flag}"
    yield f"export it: detloop export-model {run} --out FILE{flag}"
    if "test" in loop.data.splits:
        yield f"measure it on the test images, once, at the end: detloop evaluate {run}"


def _summarise(loop: Loop, rounds: Sequence[RoundSummary]) -> dict[str, Any]:
    """The content of ``summary.json``."""
    config, controls = loop.config, loop.trainings.controls(0)
    facts = summary(
        rounds, name=config.name, fingerprint=config.fingerprint(), seed=config.seed, steps=config.training.steps
    )
    facts["control_seconds"] = arm_seconds(controls)
    facts["weights"] = control_weights(loop)
    if config.mining.cross_fit and config.rounds:
        facts["cross_fit_seconds"] = [arm_seconds([fold]) for fold in fold_arms(loop.trainings.for_mining())]
    elif config.mining.detector and config.rounds:
        facts["mining_detector_seconds"] = arm_seconds([loop.trainings.for_mining().control(0)])
    if (num_folds := folds_of_filters(config)) and config.rounds:
        facts["utility_seconds"] = [{"train": fold.training_s} for fold in trained_folds(loop.trainings, num_folds)]
    if any(one.guard and one.guard.tried for one in rounds):
        facts["guard_seconds"] = [
            {"train": one.training_s} for one in trained_folds(loop.trainings, config.guard.folds)
        ]
    facts["trained_on"] = [to_plain(one) for one in _platforms(loop)]
    facts["metrics"] = _last_metrics(loop, controls)
    return facts


def _platforms(loop: Loop) -> list[Platform]:
    """The different platforms of the last round's trainings."""
    number = loop.config.rounds
    found = [arm.trained.platform for arm in loop.trainings.controls(number)]
    if number:
        found.append(read_record(loop.folder.round(number) / "train.json", TrainResult).platform)
    return [one for place, one in enumerate(found) if one not in found[:place]]


def _last_metrics(loop: Loop, controls: Sequence[Arm]) -> dict[str, dict[str, float]]:
    """Metrics after the last round: COCO metrics of ``loop`` and ``control``, and those of the candidates (``drawn``).

    With a guard, also those of the loop's own detector (``unguarded``). Without rounds, those of the control alone.
    """
    if loop.config.rounds:
        return read_record(loop.folder.round(loop.config.rounds) / "metrics.json", dict[str, dict[str, float]])
    truth, classes = loop.data.splits["val"], loop.data.classes
    return {"control": Repeated(each=tuple(evaluate(truth, arm.seen, classes) for arm in controls)).metrics}


def _page(loop: Loop, rounds: Sequence[RoundSummary]) -> str:
    config = loop.config
    facts = {"fingerprint": config.fingerprint(), "seed": str(config.seed), "steps": str(config.training.steps)}
    if taken := describe_weights(loop):
        facts["weights"] = taken
    return html_summary(rounds, facts, config.name, figures(loop, rounds))
