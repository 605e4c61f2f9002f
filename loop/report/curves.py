"""Curves as PNG files: precision over recall, and AP over the rounds, of the loop and its control."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from loop.evaluation.coco import RECALLS, Repeated
from loop.report.lettering import legible
from loop.report.summary import RoundSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOP, CONTROL, INK, FAINT = "#1f6fb4", "#8a8f98", "#2b2f36", "#e6e8eb"
MAX_COLUMNS = 4
DPI = 150


def pr_curve(loop: Repeated, control: Repeated) -> bytes:
    """Precision over recall at IoU 0.5 of loop and control: a panel for the mean and one for each class."""
    panels = [("mean over classes", tuple(loop.curves))] if len(loop.curves) > 1 else []
    panels += [(name, (name,)) for name in loop.curves]
    num_columns = min(len(panels), MAX_COLUMNS)
    num_rows = -(-len(panels) // num_columns)
    figure, grid = blank_figure(num_rows, num_columns, width_in=2.6, height_in=2.5)
    for axes, (title, classes) in zip(grid, panels, strict=False):
        for arm, label, colour, x in ((control, "control", CONTROL, 0.62), (loop, "loop", LOOP, 0.27)):
            precision = np.mean([arm.curves[name] for name in classes], axis=0)
            axes.plot(RECALLS, precision, color=colour, lw=1.8)
            text = f"{label} {100 * precision.mean():.1f}"
            axes.text(x, 1.03, text, color=colour, fontsize=8, transform=axes.transAxes)
        axes.text(0, 1.03, "AP50", color=INK, fontsize=8, transform=axes.transAxes)
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        name, families = legible(title)
        heading = axes.set_title(name, fontsize=9, color=INK, loc="left", fontweight="bold", pad=17)
        heading.set_fontfamily(list(families))
        heading.set_parse_math(False)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("recall", fontsize=9, color=INK)
    figure.supylabel("precision at IoU 0.5", fontsize=9, color=INK)
    return png_bytes(figure)


def ap_curve(rounds: Sequence[RoundSummary]) -> bytes:
    """AP over the rounds in points, of loop and control; shaded: the control plus the gain's 95 % interval."""
    figure, (axes,) = blank_figure(1, 1, width_in=5.2, height_in=3.0)
    numbers = [one.round for one in rounds]
    ap, control = (100 * np.array([getattr(one, key) for one in rounds]) for key in ("ap", "control_ap"))
    low, high = (control + 100 * np.array([one.gain_ci95[side] for one in rounds]) for side in (0, 1))
    axes.plot(numbers, control, color=CONTROL, lw=1.8, marker="o", ms=4)
    axes.vlines(numbers, low, high, color=LOOP, lw=5, alpha=0.22)
    axes.plot(numbers, ap, color=LOOP, lw=1.8, marker="o", ms=5)
    _name_ends(axes, [("loop", ap[-1], LOOP), ("control", control[-1], CONTROL)], numbers[-1])
    axes.set_xticks(numbers)
    axes.set_xlim(numbers[0] - 0.25, numbers[-1] + 0.25 + 0.12 * (numbers[-1] - numbers[0] + 1))
    axes.set_ylim(*_limits(np.concatenate([ap, control, low, high])))
    axes.set_xlabel("round", fontsize=9, color=INK)
    title = "AP in points; shaded: the control plus the 95 % interval of the gain"
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    return png_bytes(figure)


def _limits(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, float]:
    """Limits of the axis around the values, at least 4 points apart so that small differences look small."""
    middle, half = (values.max() + values.min()) / 2, max((values.max() - values.min()) * 0.65, 2.0)
    return max(middle - half, 0.0), middle + half


def _name_ends(axes: "Axes", ends: Sequence[tuple[str, float, str]], x: float) -> None:
    """Names at the right ends of the lines, one above and one below, so that they do not overlap."""
    upper, lower = sorted(ends, key=lambda end: -end[1])
    for (name, y, colour), place in ((upper, "bottom"), (lower, "top")):
        text = f"{name} {y:.1f}"
        axes.annotate(text, (x, y), (8, 0), textcoords="offset points", color=colour, fontsize=9, va=place)


def blank_figure(num_rows: int, num_columns: int, width_in: float, height_in: float) -> "tuple[Figure, list[Axes]]":
    """A figure and its empty panels, row by row, in the common style."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width_in * num_columns, height_in * num_rows), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(CONTROL)
        axes.tick_params(labelsize=8, colors=INK, length=0)
        axes.grid(color=FAINT, lw=0.8)
        axes.set_axisbelow(True)
    return figure, list(grid.flat)


def png_bytes(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
