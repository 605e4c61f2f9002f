"""What a finished round came to, in figures and pictures, and where they are shown.

The round's ``round.json`` is written last: a round without it is reported again, and ends in the same figures.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.plain import to_plain
from actors.records import Sample
from actors.seeds import derive_seed
from actors.storage import read_record, write_bytes, write_record
from loop.arms import Arm, hard_boxes
from loop.context import Loop, RoundResult
from loop.cross_fit import fold_arms
from loop.evaluation.bootstrap import gain
from loop.evaluation.coco import Evaluation, evaluate
from loop.evaluation.compare import fidelity, unseen_yolo_scores
from loop.evaluation.fidelity import yolo_scores
from loop.report import (
    Figure,
    RoundSummary,
    ap_curve,
    contact_sheet,
    count_drawn,
    count_dropped,
    html_summary,
    pr_curve,
    rounds_table,
    summary,
)
from loop.report.summary import points
from loop.state import Cost, once
from loop.tracking import Tracker
from loop.training.fit import sample_sheets


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Both arms of a round on the validation images."""

    loop: Evaluation
    control: Evaluation


def report_round(loop: Loop, result: RoundResult, tracker: Tracker) -> None:
    """Measure a round against its control; leave figures and pictures in its folder and in MLflow."""
    number = result.state.round
    place = loop.folder.round(number)
    if (place / "round.json").exists():
        return
    measured = _measure(loop, result)
    samples = loop.folder.judged(number)
    round_summary = _summarise(loop, result, measured, samples)
    files = _pictures(loop, number, measured, samples)
    sheets = _sheets(loop, result)
    files |= {"fit.png": sheets.popitem()[1]} if sheets else {}
    for name, data in files.items():
        write_bytes(place / name, data)
    manifest = {"manifest.json": _manifest(samples)}
    strategies = {sample.id: sample.lineage.strategy for sample in samples}
    drawn = yolo_scores(samples, loop.data.classes, strategies) | unseen_yolo_scores(loop, samples, strategies)
    drawn |= fidelity(loop, number, samples)
    tracker.log_round(number, _metrics(result, measured, round_summary) | drawn, files | manifest | sheets)
    metrics = {"loop": measured.loop.metrics, "control": measured.control.metrics, "drawn": drawn}
    once(place / "metrics.json", dict, lambda: metrics)
    write_record(place / "round.json", round_summary)
    score = f", YOLO score {points(drawn['yolo_score'])}" if "yolo_score" in drawn else ""
    ap, control_ap = points(round_summary.ap), points(round_summary.control_ap)
    loop.reporter.say(f"round {number}: AP {ap}, control {control_ap}{score} (points)\n")


def conclude(loop: Loop, tracker: Tracker) -> None:
    """The table at the end, ``summary.json``, ``summary.html`` and the manifest of the whole pool."""
    config, path = loop.config, loop.folder.path
    numbers = range(1, config.rounds + 1)
    rounds = [read_record(loop.folder.round(number) / "round.json", RoundSummary) for number in numbers]
    control = loop.trainings.control(0)
    facts = summary(
        rounds, name=config.name, fingerprint=config.fingerprint(), seed=config.seed, steps=config.training.steps
    )
    facts["control_seconds"] = _seconds(control)
    if config.mining.cross_fit and config.rounds:
        facts["cross_fit_seconds"] = [_seconds(fold) for fold in fold_arms(loop.trainings.for_mining())]
    elif config.mining.detector and config.rounds:
        facts["mining_detector_seconds"] = _seconds(loop.trainings.for_mining().control(0))
    facts["metrics"] = _last_metrics(loop, control)
    write_bytes(path / "manifest.json", b"".join(_manifest(loop.folder.judged(number)) for number in numbers))
    files = {"summary.json": json.dumps(facts, indent=1).encode(), "summary.html": _page(loop, rounds).encode()}
    for name, data in files.items():
        write_bytes(path / name, data)
    tracker.log_files(files)
    if not rounds:
        tracker.log_figures({f"control_{key}": value for key, value in facts["metrics"]["control"].items()})
    loop.reporter.say(rounds_table(rounds))
    ap, seconds = facts["metrics"]["control"]["AP"], sum(facts["control_seconds"].values())
    loop.reporter.say(f"control: AP {points(ap)}, {seconds:.0f} s, trained once and kept for all runs")
    loop.reporter.say(f"pictures and curves: {path / 'summary.html'}   compare runs: detloop ui {config.root}")


def _last_metrics(loop: Loop, control: Arm) -> dict[str, dict[str, float]]:
    """After the last round, COCO metrics of the arms ``loop`` and ``control``, and the fidelity of what was ``drawn``.

    Without rounds, those of the control alone.
    """
    if loop.config.rounds:
        return read_record(loop.folder.round(loop.config.rounds) / "metrics.json", dict[str, dict[str, float]])
    return {"control": evaluate(loop.data.splits["val"], control.seen, loop.data.classes).metrics}


def _measure(loop: Loop, result: RoundResult) -> Measured:
    """Hard are the boxes that at least one arm gets wrong: flagged by one arm alone, they would favour the other."""
    truth, classes = loop.data.splits["val"], loop.data.classes
    wrong = [hard_boxes(truth, arm.seen, loop.config.mining) for arm in (result.arm, result.control)]
    hard = {image.id: wrong[0][image.id] | wrong[1][image.id] for image in truth}
    return Measured(
        loop=evaluate(truth, result.arm.seen, classes, hard),
        control=evaluate(truth, result.control.seen, classes, hard),
    )


def _summarise(loop: Loop, result: RoundResult, measured: Measured, samples: Sequence[Sample]) -> RoundSummary:
    number = result.state.round
    draws, seed = loop.config.evaluation.bootstrap_draws, derive_seed(loop.config.seed, "bootstrap", number)
    difference = gain(measured.loop, measured.control, draws, seed)
    asked, drawn = count_drawn(samples)
    dropped, dropped_boxes = count_dropped(samples)
    mined, pooled, train = result.mined.cost, result.pooled.cost, result.arm.trained
    looked = result.arm.evaluated
    return RoundSummary(
        round=number,
        ap=measured.loop.metrics["AP"],
        control_ap=measured.control.metrics["AP"],
        gain=difference.value,
        gain_ci95=(difference.low, difference.high),
        mined=len(result.mined.instances),
        candidates=len(result.pooled.kept) + len(result.pooled.dropped),
        kept=len(result.pooled.kept),
        dropped=dropped,
        dropped_boxes=dropped_boxes,
        restored_boxes=sum(int(sample.restored.sum()) for sample in samples),
        seconds={"mine": mined.seconds["inspect"], **pooled.seconds, **_seconds(result.arm)},
        wall_s=mined.wall_s + pooled.wall_s + train.launch_s + train.training_s + looked.wall_s,
        engine_s=mined.engine_s + pooled.engine_s + train.launch_s + looked.engine_s,
        asked=asked,
        drawn=drawn,
    )


def _seconds(arm: Arm) -> dict[str, float]:
    return {"train": arm.trained.training_s, "evaluate": arm.evaluated.seconds["inspect"]}


def _metrics(result: RoundResult, measured: Measured, round_summary: RoundSummary) -> dict[str, float]:
    """A round's figures by their names in MLflow."""
    shares = {
        f"mined/{share.name}/{difficulty}": float(count)
        for share in result.mined.shares
        for difficulty, count in (("easy", share.num_easy), ("hard", share.num_hard))
    }
    control = {f"control_{key}": value for key, value in measured.control.metrics.items()}
    return {
        **measured.loop.metrics,
        **control,
        **shares,
        **round_summary.metrics(),
        "realised_p": result.arm.trained.realised_p,
        "images_per_s/train": result.arm.trained.images_per_s,
        "easy_share": sum(share.num_easy for share in result.mined.shares) / max(len(result.mined.found), 1),
        **_mining_rate(result.mined.cost),
        **({"fit/boxes_cut": float(result.state.generator.boxes_cut)} if result.state.generator else {}),
    }


def _mining_rate(cost: Cost) -> dict[str, float]:
    """With cross-fitting a round looks at nothing: the folds' detectors have looked before."""
    return {"images_per_s/mine": cost.num_items / max(cost.seconds["inspect"], 1e-9)} if cost.num_items else {}


def _pictures(loop: Loop, number: int, measured: Measured, samples: Sequence[Sample]) -> dict[str, bytes]:
    pictures = {"pr_curve.png": pr_curve(measured.loop, measured.control)}
    if any(sample.uri for sample in samples):
        real = {image.id: image for image in loop.data.splits["train"]}
        title = f"{loop.config.name}, round {number}"
        pictures["contact_sheet.png"] = contact_sheet(samples, real, loop.data.classes, title)
    return pictures


def _sheets(loop: Loop, result: RoundResult) -> dict[str, bytes]:
    """The sample sheets of the fit that the round began with, by their names in MLflow, the last one last."""
    generator = result.state.generator
    if generator is None or not loop.config.fit.is_due(result.state.round):
        return {}
    return {f"fit/{file.name}": file.read_bytes() for file in sample_sheets(generator.checkpoint)}


def _manifest(samples: Sequence[Sample]) -> bytes:
    """A line for each sample, by id: what it is, whence, and its picture's hash. No times: equal runs, equal bytes."""
    lines = [
        {
            "id": sample.id,
            "sha256": sample.sha256,
            "dropped": sample.dropped,
            "annotation": to_plain(sample.annotation),
            "lineage": to_plain(sample.lineage),
        }
        for sample in sorted(samples, key=lambda sample: sample.id)
    ]
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()


def _page(loop: Loop, rounds: list[RoundSummary]) -> str:
    config = loop.config
    facts = {"fingerprint": config.fingerprint(), "seed": str(config.seed), "steps": str(config.training.steps)}
    figures: dict[str, list[Figure]] = {}
    if rounds:
        figures["AP over rounds"] = [Figure(png=ap_curve(rounds), caption="", width_px=520)]
    for one in rounds:
        place = loop.folder.round(one.round)
        figures[f"Round {one.round}"] = [
            Figure(png=(place / name).read_bytes(), caption=caption)
            for name, caption in PICTURES.items()
            if (place / name).exists()
        ]
    return html_summary(rounds, facts, config.name, figures)


PICTURES: Mapping[str, str] = {
    "fit.png": "What the generator draws after its fit, beside the real pictures",
    "contact_sheet.png": "Candidates: source, what was drawn, what the detector saw in it, the verdict",
    "pr_curve.png": "Precision over recall at IoU 0.5, the loop against its control",
}
