"""The HTML summary: one self-contained file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from loop.report.budget import budget_rows
from loop.report.summary import RoundSummary, agreement_told, clean_told, conclusion, fates_told
from loop.report.table import cells, guard_rows, guard_told

BUDGET_HEADINGS = ("", "candidates so far", "mean utility", "given in this round")
GUARD_HEADINGS = ("", "AP", "difference to the control [95 %]", "standard error", "")
HEADINGS = ("round", "AP", "control AP", "gain [95 %]", "mined", "kept/candidates", "seconds", "of it engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture on the page."""

    png: bytes
    caption: str
    width_px: int | None = None  # on the page; None: the width of the page

    @property
    def base64(self) -> str:
        """The picture as text."""
        return b64encode(self.png).decode()


def html_summary(
    rounds: Sequence[RoundSummary], facts: Mapping[str, str], title: str, figures: Mapping[str, Sequence[Figure]]
) -> str:
    """The page: conclusion, table of rounds, counts of what was dropped and why, budgets, figures by section heading.

    ``facts`` (fingerprint, seed, steps, ...) are shown below the title.
    """
    environment = Environment(
        loader=PackageLoader("loop.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.jinja").render(
        title=title,
        facts=facts,
        conclusion=conclusion(rounds) if rounds else "",
        headings=HEADINGS,
        rounds=[cells(one) for one in rounds],
        numbers=("", *(f"round {one.round}" for one in rounds)),
        reasons=_reasons(rounds),
        budget_headings=BUDGET_HEADINGS,
        budgets={one.round: budget_rows(one.budget) for one in rounds if one.budget},
        guard_headings=GUARD_HEADINGS,
        guards={one.round: (guard_told(one.round, one.guard), guard_rows(one.guard)) for one in rounds if one.guard},
        figures=figures,
    )


def _reasons(rounds: Sequence[RoundSummary]) -> list[tuple[str, ...]]:
    """Rows of a table: the number of instances not drawn, and of candidates and boxes dropped for each reason."""
    missing = [f"{one.asked - one.drawn} of {one.asked}" for one in rounds]
    rows: list[tuple[str, ...]] = []
    if any(one.drawn < one.asked for one in rounds):
        rows.append(("instances, not drawn", *missing))
    rows += [
        (f"{what}, {reason.replace('_', ' ')}", *(str(count.get(reason, 0)) for count in counts))
        for what, counts in (
            ("candidates", [one.dropped for one in rounds]),
            ("boxes", [one.dropped_boxes for one in rounds]),
        )
        for reason in sorted({reason for count in counts for reason in count})
    ]
    if any(one.restored_boxes for one in rounds):
        rows.append(("boxes restored, of these", *(str(one.restored_boxes) for one in rounds)))
    if any(one.refined for one in rounds):
        rows += [("boxes refined", *(fates_told(one.refined) for one in rounds))]
        rows += [("their agreement with the detections", *(agreement_told(one.refined) for one in rounds))]
    if any(one.clean for one in rounds):
        rows.append(("images without objects", *(clean_told(one.clean) for one in rounds)))
    return rows
