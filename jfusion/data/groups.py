"""Groups: whom each row is of, so that nobody is met in training and in the test."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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


def unite(*keys: Sequence[Hashable | None]) -> list[str]:
    """The group of each row, if rows belong together that share a key, be it by way of others.

    Args:
        keys: For each way in which rows can belong together, the key of each row; None where it
            has none.
    """
    pairs = []
    for column in keys:
        first: dict[Hashable, int] = {}
        pairs += [
            (first.setdefault(key, row), row) for row, key in enumerate(column) if key is not None
        ]
    numbers = connected(len(keys[0]), np.array(pairs, np.int64).reshape(-1, 2))
    return [str(number) for number in numbers.tolist()]


def connected(size: int, pairs: np.ndarray) -> np.ndarray:
    """The connected components of a graph of `size` nodes: int64 [size].

    Args:
        size: How many nodes.
        pairs: int64 [P, 2], the nodes that each edge joins.
    """
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, numbers = connected_components(graph, directed=False)
    return numbers.astype(np.int64)


def deal(names: Sequence[str], strata: Sequence[str], parts: int, seed: int) -> np.ndarray:
    """Cuts rows into parts of about the same size and make-up, by whole groups: int64 [rows].

    Groups are dealt in random order, but large ones first, and of those of a size one kind after
    the other; each goes to the smallest part, the first of several. So the parts become equal, also
    in their kinds.

    Args:
        names: The group of each row.
        strata: What kind of row each is.
        parts: How many parts.
        seed: Seeds the order.
    """
    rows = list(members(names).values())
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    order.sort(key=lambda group: (-len(rows[group]), strata[rows[group][0]]))
    number, sizes = np.zeros(len(names), np.int64), np.zeros(parts, np.int64)
    for group in order:
        smallest = np.argmin(sizes)
        number[rows[group]] = smallest
        sizes[smallest] += len(rows[group])
    return number


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
