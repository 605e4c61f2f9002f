"""The HTML summary: one file with everything in it, which opens anywhere and loads nothing."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from loop.report.summary import RoundSummary, cells, conclusion

HEADINGS = ("round", "AP", "control AP", "gain [95 %]", "mined", "kept/candidates", "seconds", "of it engine")

NOTE = (
    "AP in points (x100) on the real validation images. The control is trained on the real images alone, with as many "
    "optimiser steps; the interval resamples the validation images."
)
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #262a30; max-width: 1120px; margin: 3rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; }
.facts, .note, figcaption { color: #70767e; font-size: .9rem; } .facts { margin: .2rem 0 1.4rem; }
.conclusion { border-left: 4px solid #1f6fb4; padding: .5rem 1rem; background: #f5f7fa; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: right; padding: .35rem .9rem; border-bottom: 1px solid #e2e5e9; white-space: nowrap; }
th { color: #70767e; font-weight: 600; } .reasons td:first-child, .reasons th:first-child { text-align: left; }
figure { margin: 1rem 0 1.6rem; } img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .3rem; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture on the page."""

    png: bytes
    caption: str
    width_px: int | None = None  # on the page; the page's own width where None


def html_summary(
    rounds: Sequence[RoundSummary], facts: Mapping[str, str], title: str, figures: Mapping[str, Sequence[Figure]]
) -> str:
    """The page: what it comes to, the rounds, what was dropped and why, then ``figures`` by section heading.

    ``facts`` (fingerprint, seed, steps, ...) stand below the title.
    """
    line = " · ".join(f"{escape(key)} {escape(value)}" for key, value in facts.items())
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="facts">{line}</p>',
        f'<p class="conclusion">{escape(conclusion(rounds))}</p>' if rounds else "<p>No rounds: the control alone.</p>",
        _table("", HEADINGS, [cells(one) for one in rounds]),
        f'<p class="note">{NOTE}</p>',
        _reasons(rounds),
        *(_section(heading, shown) for heading, shown in figures.items() if shown),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    page = "\n".join(part for part in body if part)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{page}\n</body></html>\n'
    )


def _reasons(rounds: Sequence[RoundSummary]) -> str:
    """How many instances were not drawn, candidates and boxes dropped, a row a reason, a column a round."""
    missing = [f"{one.asked - one.drawn} of {one.asked}" for one in rounds]
    rows = [("instances, not drawn", *missing)] if any(one.drawn < one.asked for one in rounds) else []
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
    if not rows:
        return ""
    headings = ("", *(f"round {one.round}" for one in rounds))
    return "<h2>Dropped, and why</h2>\n" + _table("reasons", headings, rows)


def _table(style: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{style}"><tr>{head}</tr>\n{body}</table></div>'


def _section(heading: str, figures: Sequence[Figure]) -> str:
    return f"<h2>{escape(heading)}</h2>\n" + "\n".join(_figure(figure) for figure in figures)


def _figure(figure: Figure) -> str:
    data = b64encode(figure.png).decode()
    width = f' width="{figure.width_px}"' if figure.width_px else ""
    picture = f'<img src="data:image/png;base64,{data}" alt="{escape(figure.caption)}"{width}>'
    return f"<figure>{picture}<figcaption>{escape(figure.caption)}</figcaption></figure>"
