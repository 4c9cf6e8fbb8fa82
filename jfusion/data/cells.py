"""A column of small values, read once: labels, numbers, groups."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jfusion.data.cache import remember
from jfusion.data.problems import BadCell
from jfusion.data.source import Source, Subset


def read_cells(
    source: Source,
    column: str,
    parse: Callable[[Any], Any],
    key: Sequence[str],
    cache_dir: str | Path = "",
) -> tuple[list[Any], dict[int, str]]:
    """What a column holds, kept in the cache: to read a row may mean to decode all of it.

    Args:
        source: The rows.
        column: The column.
        parse: Makes a JSON-ready value of a cell, or raises `BadCell`.
        key: Tells `parse` from others, with all that it depends on besides the cell.
        cache_dir: See `cache.cache_root`.

    Returns:
        The value of each row, None where the cell is bad; and row -> why it is bad.
    """
    if isinstance(source, Subset):
        values, bad = read_cells(source.whole, column, parse, key, cache_dir)
        rows = source.rows.tolist()
        return [values[row] for row in rows], {
            i: bad[row] for i, row in enumerate(rows) if row in bad
        }

    def read() -> list[Any]:
        values, bad = [], []
        for row in range(len(source)):
            try:
                values.append(parse(source[row].get(column)))
            except BadCell as problem:
                values.append(None)
                bad.append([row, str(problem)])
        return [values, bad]

    values, bad = remember(cache_dir, ["cells", source.fingerprint, column, *key], read)
    return values, dict(bad)
