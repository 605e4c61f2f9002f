"""The report of a finished round: measure, summarise, draw, log, write.

The round's ``round.json`` is written last. A round without it is reported again, with the same results.
"""

from collections.abc import Mapping, Sequence

from upath import UPath

from actors.records import Sample
from actors.storage import write_bytes, write_record
from loop.context import Loop, RoundResult
from loop.evaluation.measure import Measured, measure
from loop.hosting.platform import unlike
from loop.report.manifest import manifest
from loop.report.pictures import draw, fit_sheets
from loop.report.summary import RoundSummary, agreement_told, clean_told, fates_told, points, round_metrics, summarise
from loop.state import once
from loop.tracking.tracker import Tracker


def report_round(loop: Loop, result: RoundResult, tracker: Tracker) -> None:
    """Compare a round with its control, and write metrics and pictures to its folder and to MLflow."""
    number = result.state.round
    place = loop.folder.round(number)
    if (place / "round.json").exists():
        return
    samples = loop.folder.judged(number)
    measured = measure(loop, result, samples)
    clean = frozenset(image.id for image in loop.data.clean)
    row = summarise(result, measured, samples, loop.config.refiner, clean)
    pictures = draw(loop, result, measured, samples)
    tracker.log_round(number, round_metrics(result, measured, row), pictures | _attached(loop, result, samples))
    _write(place, measured, row, pictures)
    _warn_of_platforms(loop, result)
    score = f", YOLO score {points(measured.drawn['yolo_score'])}" if "yolo_score" in measured.drawn else ""
    if row.refined:
        told = f"boxes {fates_told(row.refined)} by the refiner; {agreement_told(row.refined)}"
        loop.reporter.say(f"round {number}: {told}")
    if row.clean:
        loop.reporter.say(f"round {number}: images without objects: {clean_told(row.clean)}")
    if row.guard:
        own = f"the loop's own detector has AP {points(row.guard.loop_ap)}"
        loop.reporter.say(f"round {number}: the guard chose {row.guard.chosen}; {own}")
    if result.not_trained:
        loop.reporter.say(f"round {number}: not trained, control {points(row.control_ap)} (points)\n")
        return
    loop.reporter.say(f"round {number}: AP {points(row.ap)}, control {points(row.control_ap)}{score} (points)\n")


def _warn_of_platforms(loop: Loop, result: RoundResult) -> None:
    """Tell in what the trainings of the round's two arms differ besides their data."""
    if found := unlike([arm.trained.platform for arm in (*result.arms, *result.controls)]):
        stored = " ".join(str(UPath(arm.checkpoint).parent) for arm in result.controls)
        loop.reporter.warn(
            f"loop and control were not trained alike, which adds to their difference ({'; '.join(found)}); without "
            f"these folders, the next start trains the control anew: {stored}"
        )


def _attached(loop: Loop, result: RoundResult, samples: Sequence[Sample]) -> dict[str, bytes]:
    """Files for MLflow besides the pictures, by name."""
    sheets = {f"fit/{file.name}": file.read_bytes() for file in fit_sheets(loop, result)[:-1]}
    return {"manifest.json": manifest(samples), **sheets}


def _write(place: UPath, measured: Measured, row: RoundSummary, pictures: Mapping[str, bytes]) -> None:
    for name, data in pictures.items():
        write_bytes(place / name, data)
    metrics = {"loop": measured.loop.metrics, "control": measured.control.metrics, "drawn": dict(measured.drawn)}
    if row.guard:
        metrics["unguarded"] = measured.own.metrics
    once(place / "metrics.json", dict, lambda: metrics)
    write_record(place / "round.json", row)
