"""The rounds of a run as a table for the terminal, and the rows of the page's tables."""

from collections.abc import Sequence
from io import StringIO
from textwrap import wrap

from loop.guard.choice import Tried, does_harm
from loop.report.guard import GuardSummary
from loop.report.summary import NO_ROUNDS, RoundSummary, conclusion, duration, interval, points

TABLE_WIDTH = 104  # characters, so that logs do not wrap the table


def rounds_table(rounds: Sequence[RoundSummary]) -> str:
    """The table for the terminal, a row per round, with the conclusion below it. AP in points (x100)."""
    if not rounds:
        return NO_ROUNDS
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("round", "AP", "control AP", "gain [95 %]", "mined", "kept/candidates", "seconds", "of it engine"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in rounds:
        table.add_row(*cells(one))
    console = Console(file=StringIO(), width=TABLE_WIDTH, no_color=True, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    note = "AP in points (x100) on the real validation images; control: real images alone, same steps."
    lines = [line.rstrip() for line in capture.get().splitlines()]
    told = [guard_told(one.round, one.guard) for one in rounds if one.guard]
    wrapped = [
        line
        for text in (*told, conclusion(rounds))
        for line in wrap(text, TABLE_WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return "\n".join([*filter(None, lines), "", note, *wrapped])


def cells(one: RoundSummary) -> tuple[str, ...]:
    """The cells of a round's row in the table."""
    return (
        str(one.round),
        points(one.ap),
        points(one.control_ap),
        _gain(one),
        str(one.mined),
        f"{one.kept}/{one.candidates}",
        duration(one.wall_s),
        duration(one.engine_s),
    )


def _gain(one: RoundSummary) -> str:
    if one.not_trained:
        return "not trained"
    return "control kept" if one.keeps_control else f"{points(one.gain, sign=True)} {interval(one.gain_ci95)}"


def guard_told(number: int, guard: GuardSummary) -> str:
    """What the guard chose in round ``number``, and what the validation images say of the loop's own detector."""
    return (
        f"Round {number}: {_choice(guard)} On the validation images the loop's own detector has AP "
        f"{points(guard.loop_ap)}, gain {points(guard.loop_gain, sign=True)} {interval(guard.loop_gain_ci95)}."
    )


def _choice(guard: GuardSummary) -> str:
    if not guard.tried:
        return "the guard kept the control without a comparison: no fold has enough synthetic images of other folds."
    control, *others = guard.tried
    found = ", ".join(f"{one.name} {_difference(one)}" for one in others)
    held_back = f"On held-back training images the control has AP {points(control.ap)}; against it: {found}."
    why = ", since the pool makes the loop's own detector worse" if does_harm(guard.tried) else ""
    return f"the guard chose {guard.chosen}{why}. {held_back}"


def guard_rows(guard: GuardSummary) -> list[tuple[str, ...]]:
    """The rows of the page's table of a guard: a detector each."""
    return [
        (
            one.name,
            points(one.ap),
            _difference(one) if one.share else "",
            points(one.standard_error) if one.share else "",
            "chosen" if one.name == guard.chosen else "",
        )
        for one in guard.tried
    ]


def _difference(one: Tried) -> str:
    return f"{points(one.difference, sign=True)} {interval(one.difference_ci95)}"
