"""The pictures of a round, by file name, and their captions on the page."""

from collections.abc import Mapping, Sequence

from upath import UPath

from actors.records import Sample
from loop.context import Loop, RoundResult
from loop.evaluation.measure import Measured
from loop.report.contact_sheet import contact_sheet
from loop.report.curves import ap_curve, pr_curve
from loop.report.page import Figure
from loop.report.summary import RoundSummary
from loop.training.fit import sample_sheets

CAPTIONS: Mapping[str, str] = {
    "fit.png": "Samples of the generator after its fit, beside the real pictures",
    "contact_sheet.png": "Candidates: source, candidate, detections, verdict",
    "utility.png": "Candidates of highest and of lowest utility",
    "pr_curve.png": "Precision over recall at IoU 0.5, loop and control",
}


def draw(loop: Loop, result: RoundResult, measured: Measured, samples: Sequence[Sample]) -> dict[str, bytes]:
    """The round's pictures as PNG files: the curves, the contact sheet, and the last sheet of the fit."""
    pictures = {"pr_curve.png": pr_curve(measured.loop, measured.control)}
    if any(sample.uri for sample in samples):
        real = {image.id: image for image in loop.data.real}
        title = f"{loop.config.name}, round {result.state.round}"
        pictures["contact_sheet.png"] = contact_sheet(samples, real, loop.data.classes, title)
        if any(verdict.filter == "utility" for sample in samples for verdict in sample.verdicts):
            title = f"{title}: highest and lowest utility"
            pictures["utility.png"] = contact_sheet(samples, real, loop.data.classes, title, ranked_by="utility")
    if sheets := fit_sheets(loop, result):
        pictures["fit.png"] = sheets[-1].read_bytes()
    return pictures


def fit_sheets(loop: Loop, result: RoundResult) -> list[UPath]:
    """The sample sheets of the fit in this round, in the order of its steps; none without a fit."""
    generator = result.state.generator
    if generator is None or not loop.config.fit.is_due(result.state.round):
        return []
    return sample_sheets(generator.checkpoint)


def figures(loop: Loop, rounds: Sequence[RoundSummary]) -> dict[str, list[Figure]]:
    """The pictures of all rounds for the page, by heading."""
    sections: dict[str, list[Figure]] = {}
    if rounds:
        sections["AP over rounds"] = [Figure(png=ap_curve(rounds), caption="", width_px=520)]
    for one in rounds:
        place = loop.folder.round(one.round)
        sections[f"Round {one.round}"] = [
            Figure(png=(place / name).read_bytes(), caption=caption)
            for name, caption in CAPTIONS.items()
            if (place / name).exists()
        ]
    return sections
