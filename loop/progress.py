"""Progress on the console: one line per stage, live on a terminal, and every minute elsewhere."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


def speed(done: int, elapsed_s: float) -> str:
    """Items per second, or seconds per item where the former rounds to 0.0."""
    rate = f"{done / max(elapsed_s, 1e-9):.1f}/s"
    return f"{elapsed_s / done:.1f} s each" if done and rate == "0.0/s" else rate


class StageProgress:
    """Progress of one stage."""

    def __init__(self, progress: Progress, task: TaskID, total: int) -> None:
        self._progress, self._task, self._total, self._start = progress, task, total, time.perf_counter()
        self.done, self._note = 0, ""

    def advance(self, *_: object) -> None:
        """Count one more item, whatever it is."""
        self.reach(self.done + 1)

    def reach(self, done: int, note: str | None = None) -> None:
        """Set the number of finished items, and the note if given."""
        self.done = done
        self._note = self._note if note is None else note
        self._progress.update(self._task, completed=done, note=self._line())

    def note(self, text: str) -> None:
        """Set the text behind the count."""
        self._note = text

    def _line(self) -> str:
        return f"{speed(self.done, time.perf_counter() - self._start)}  {self._note}".rstrip()

    def unfinished_line(self) -> str:
        """The line for a stage that runs."""
        return f"{self.done} of {self._total}, {(time.perf_counter() - self._start) / 60:.1f} min, {self._line()}"

    def finished_line(self) -> str:
        """The line that replaces the bar at the end."""
        return f"{self.done} in {time.perf_counter() - self._start:.1f} s, {self._line()}"


class Reporter:
    """Prints the progress of a run on one console."""

    def __init__(self, console: Console | None = None, every_s: float = 60.0) -> None:
        """``every_s``: interval of a running stage's lines where ``console`` is no terminal."""
        self.console = console or Console(highlight=False)
        self.every_s = every_s

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, label: str, total: int) -> Iterator[StageProgress]:
        """Show the progress of a stage of ``total`` items, and print a line at its end."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(label, total=total, note="")
            progress = StageProgress(bar, task, total)
            with nullcontext() if self.console.is_terminal else self._repeated(label, progress):
                yield progress
        self.say(f"{label:<22}{progress.finished_line()}")

    @contextmanager
    def _repeated(self, label: str, progress: StageProgress) -> Iterator[None]:
        """Print the progress again and again, whether or not it advances."""
        over = threading.Event()

        def repeat() -> None:
            while not over.wait(self.every_s):
                self.say(f"{label:<22}{progress.unfinished_line()}")

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
