"""Tables of scores, for the end of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from jfusion.training import readout
from jfusion.training.verdict import Verdict

Scores = Mapping[str, float | None]

_COLUMNS = 5  # of scores that fit on a terminal's line, beside the modalities


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
            cells += [best, _reached(metric, score, best)]
        table.add_row(escape(metric), *map(_cell, cells))
    return table


def of_verdict(verdict: Verdict) -> dict[str, list[dict[str, Any]]]:
    """What stands beside the scores of a split, as rows.

    Returns:
        By title of the table; those that have nothing to say are left out. Per metric of a
        regression: the model's score, its interval, and the scores of the constant predictions; per
        regression: the interval's coverage; per choice of modalities: the first scores.
    """
    found = {}
    if verdict.constants:
        found["scores and constant predictions"] = [
            {
                "metric": metric,
                "model": verdict.scores[metric],
                "from": low,
                "to": high,
                **{f"always the {name}": x[metric] for name, x in verdict.constants.items()},
            }
            for metric, (low, high) in verdict.intervals.items()
        ]
    if verdict.coverage:
        found["interval around each prediction"] = [
            {"target": name, **x} for name, x in verdict.coverage.items()
        ]
    if verdict.patterns:
        known = [name for name, x in verdict.scores.items() if x is not None]
        known.sort(key=lambda name: name not in verdict.intervals)  # regressions first
        names = ("rows", *[name for name in known if not name.endswith("loss")][:_COLUMNS])
        found["given only some modalities"] = [
            {"given": choice, **{name: scores.get(name) for name in names}}
            for choice, scores in verdict.patterns.items()
        ]
    return found


def of_rows(rows: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Rows with the same keys, which become the headings."""
    table = _table(list(rows[0]), title)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def _reached(metric: str, score: float | None, best: float | None) -> str | None:
    if not best or not score:
        return None
    share = best / score if readout.is_error(metric) else score / best
    return f"{share:.1%}"


def _table(headings: Sequence[str], title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left")
    for i, heading in enumerate(headings):
        first = i == 0
        table.add_column(
            escape(heading), justify="left" if first else "right", no_wrap=first, overflow="fold"
        )
    return table


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return escape(value)
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
