"""What a person watching a run sees: bars on a terminal, plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Display:
    """Shows messages and progress on standard error, and results on standard output.

    On a terminal progress is a bar. Elsewhere it is a line now and then, such as
    `step 120/860 epoch 3 loss 0.213 1,234 samples/s`.

    Args:
        active: Only process 0 of several shows anything.
        console: Where messages and progress go; standard error by default.
        seconds: Least time between two lines of progress where there is no terminal.
    """

    def __init__(
        self, *, active: bool = True, console: Console | None = None, seconds: float = 10.0
    ):
        self._active = active
        self._console = console or Console(stderr=True)
        self._seconds = seconds
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=self._console,
            refresh_per_second=4,
            transient=True,
            # What others print while a bar is up must not land in the bar, nor change its stream.
            redirect_stdout=sys.stdout.isatty(),
        )

    def message(self, text: str) -> None:
        """Prints a line, above the bars if there are any."""
        if self._active:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, table: Table) -> None:
        """Prints a table on standard output."""
        if self._active:
            Console().print(table)

    @contextlib.contextmanager
    def steps(self, total: int, description: str = "step", done: int = 0) -> Iterator["Steps"]:
        """Shows the progress of `total` steps, `done` of which were done before, as a context."""
        bars = self._bars if self._active and self._console.is_interactive else None
        if bars is None:
            yield Steps(self, None, total, description, done)
            return
        if not bars.tasks:
            bars.start()
        task = bars.add_task(description, total=total, completed=done, status="")
        try:
            yield Steps(self, task, total, description, done)
        finally:
            bars.remove_task(task)
            if not bars.tasks:
                bars.stop()


class Steps:
    """One stretch of work on a `Display`; made by `Display.steps`."""

    def __init__(self, display: Display, task: Any, total: int, description: str, done: int):
        self._display, self._task, self._total = display, task, total
        self._description, self._done = description, done
        self._values: dict[str, float] = {}
        self._told = time.monotonic()

    def advance(self, by: int = 1, **values: float | None) -> None:
        """Counts steps; `values` are shown beside the count until newer ones come."""
        self._done += by
        self._values |= {name: value for name, value in values.items() if value is not None}
        if self._task is not None:
            self._display._bars.update(self._task, completed=self._done, status=self._status())
        elif time.monotonic() - self._told >= self._display._seconds:
            self._told = time.monotonic()
            line = f"{self._description} {self._done}/{self._total} {self._status()}"
            self._display.message(line.rstrip())

    def _status(self) -> str:
        return " ".join(_shown(name, value) for name, value in self._values.items())


def _shown(name: str, value: float) -> str:
    if name.endswith("_per_second"):
        return f"{value:,.0f} {name.removesuffix('_per_second')}/s"
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.3g}"
