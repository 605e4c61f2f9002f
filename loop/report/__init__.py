"""What a run shows: the table in the terminal, summary.json, contact sheets, curves, and a page that holds them all."""

from loop.evaluation.counts import count_drawn, count_dropped
from loop.report.contact_sheet import choose, contact_sheet
from loop.report.curves import ap_curve, pr_curve
from loop.report.page import Figure, html_summary
from loop.report.summary import RoundSummary, conclusion, rounds_table, summary

__all__ = [
    "Figure",
    "RoundSummary",
    "ap_curve",
    "choose",
    "conclusion",
    "contact_sheet",
    "count_drawn",
    "count_dropped",
    "html_summary",
    "pr_curve",
    "rounds_table",
    "summary",
]
