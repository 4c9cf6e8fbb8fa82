"""How far a long pass over the rows has come."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 10


def say(line: str) -> None:
    """Writes a line on stderr."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def track(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal, else a line now and then; both on stderr.

    Args:
        what: What is being done.
        total: The number of rows.

    Yields:
        A function to call with the number of rows just done.
    """
    if sys.stderr.isatty():
        columns = (
            *rich.progress.Progress.get_default_columns(),
            rich.progress.MofNCompleteColumn(),
        )
        console = rich.console.Console(stderr=True)
        with rich.progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _Lines(what, total)


class _Lines:
    """Says nothing about a pass that is over before the first line is due."""

    def __init__(self, what: str, total: int):
        self._what = what
        self._total = total
        self._done = 0
        self._start = self._last = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        said = self._last > self._start
        if now - self._last >= _SECONDS_BETWEEN_LINES or (said and self._done == self._total):
            rate = self._done / (now - self._start)
            text = f"{self._what}: {self._done} of {self._total} rows, {rate:.0f} per second"
            say(text)
            self._last = now
