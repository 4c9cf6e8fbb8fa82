"""Groups: whom each row is of, so that nobody is met in training and in the test."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jfusion.data.columns import require_column
from jfusion.data.problems import DataError, Problem
from jfusion.data.source import Source
from jfusion.data.targets import group_cells


def of_rows(source: Source, column: str, cache_dir: str | Path = "") -> list[str]:
    """The group of each row.

    Raises:
        DataError: There is no such column, or a row does not say whom it is of.
    """
    if len(source):
        require_column(source.name, column, source[0])
    names, bad = group_cells(source, column, cache_dir)
    if bad:
        problems = [Problem.at(source, row, column, reason) for row, reason in bad.items()]
        raise DataError("each row needs a group, or leave out data.group_column:", problems)
    return names


def members(names: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each group, by first appearance."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows


def require_apart(sources: Mapping[str, Source], column: str, cache_dir: str | Path = "") -> None:
    """Raises a `DataError` if a group has rows in two splits.

    Args:
        sources: The splits, by name.
        column: The column that names whom a row is of.
        cache_dir: See `cache.cache_root`.
    """
    seen: dict[str, tuple[str, int]] = {}
    shared: dict[str, str] = {}
    for split, source in sources.items():
        for name, rows in members(of_rows(source, column, cache_dir)).items():
            other, row = seen.setdefault(name, (split, rows[0]))
            if other != split and name not in shared:
                shared[name] = (
                    f"{sources[other].locate(row)} is in {other}, "
                    f"{source.locate(rows[0])} in {split}"
                )
    if shared:
        name, where = next(iter(shared.items()))
        count = "1 group has" if len(shared) == 1 else f"{len(shared)} groups have"
        raise DataError(
            f"{count} rows in two splits, so that the test would ask for what training has seen. "
            f"{column} {name!r}: {where}. Move the rows of a group to one split, or have the rows "
            "split at random or in folds, which keeps groups together"
        )
