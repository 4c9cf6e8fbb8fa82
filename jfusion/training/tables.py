"""Tables of scores, for the end of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

Scores = Mapping[str, float | None]


def of_metrics(results: Mapping[str, Scores], best_possible: Scores | None = None) -> Table:
    """The scores of each split, a metric per row.

    Args:
        results: Split to metric to score; the last split is compared with the best possible.
        best_possible: Metric to the best score that the data allow, where it is known.

    Returns:
        A table to print with rich.
    """
    best_possible = best_possible or {}
    headings = ["metric", *results]
    if best_possible:
        headings += ["best possible", "reached"]
    table = _table(headings)
    last = list(results.values())[-1]
    for metric, score in last.items():
        cells = [scores.get(metric) for scores in results.values()]
        if best_possible:
            best = best_possible.get(metric)
            cells += [best, f"{score / best:.1%}" if best and score is not None else None]
        table.add_row(escape(metric), *map(_cell, cells))
    return table


def of_labels(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The scores of each label, a label per row (see `metrics.per_label`)."""
    table = _table(list(rows[0]))
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def _table(headings: Sequence[str]) -> Table:
    table = Table()
    for i, heading in enumerate(headings):
        table.add_column(escape(heading), justify="left" if i == 0 else "right")
    return table


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return escape(value)
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
