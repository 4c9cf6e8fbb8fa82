"""Columns of numbers and of categories, read together.

n: columns of numbers, m: columns of categories.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.data.cache import remember
from jfusion.data.columns import Cells, is_empty, parse_number
from jfusion.data.problems import BadCell, DataError
from jfusion.data.progress import track
from jfusion.data.source import Source

MISSING, OTHER = 0, 1  # values of a category before the names: an empty cell, an unknown name
_RESERVED = 2
_FARTHEST = 10.0  # standard deviations; what lies beyond is a slip of the pen or as good as one
_CONSTANT = 1e-9  # a spread below this share of the mean is rounding


class TabularInput:
    """Some columns of numbers and categories, preprocessed to standardised numbers and to indices.

    An empty cell is a value of its own. A row has the modality if it has any of its cells.

    Attributes:
        columns: The columns of the table, first the numbers.
        column: All their names, for messages.
        arrays: `{array: (shape of a row, dtype)}`: `numbers` float32 [n], 0 where not known;
            `known` bool [n]; `categories` int32 [m], `MISSING`, `OTHER`, or from 2 on the sorted
            names. Without numbers, or without categories, theirs are not there.
        sizes: `numbers`, the number n, and `categories`, how many values each of the m has: what a
            network must know.
    """

    kind = "tabular"
    notes = ()

    def __init__(
        self,
        numbers: Sequence[str],
        categories: Sequence[str],
        *,
        log: Sequence[str] = (),
        mean: Sequence[float],
        std: Sequence[float],
        names: Sequence[Sequence[str]],
    ):
        """What `fit` finds.

        Args:
            numbers: The columns of numbers.
            categories: The columns of categories.
            log: Those numbers that are read as sign(x) log(1 + |x|).
            mean: What to take from each number then.
            std: What to divide it by then.
            names: The names of each category.
        """
        self.columns = (*numbers, *categories)
        self.column = ", ".join(self.columns)
        self.arrays = {}
        if numbers:
            shape = (len(numbers),)
            self.arrays |= {"numbers": (shape, np.float32), "known": (shape, bool)}
        if categories:
            self.arrays["categories"] = ((len(categories),), np.int32)
        self.sizes = {
            "numbers": len(numbers),
            "categories": tuple(_RESERVED + len(known) for known in names),
        }
        self._numbers, self._categories, self._log = list(numbers), list(categories), list(log)
        self._mean, self._std = np.array(mean, np.float64), np.array(std, np.float64)
        self._names = [list(known) for known in names]
        self._indices = [
            {name: _RESERVED + index for index, name in enumerate(known)} for known in names
        ]

    @classmethod
    def fit(
        cls,
        source: Source,
        numbers: Sequence[str],
        categories: Sequence[str],
        *,
        log: Sequence[str] = (),
        cache_dir: str | Path = "",
    ) -> "TabularInput":
        """Finds mean and spread of the numbers, and the names of the categories.

        Args:
            source: What to learn from: the training split and nothing else. Cells that cannot be
                used are passed over.
            numbers: The columns of numbers.
            categories: The columns of categories.
            log: Those numbers that are read as sign(x) log(1 + |x|), for what is skewed.
            cache_dir: See `cache.cache_root`.

        Raises:
            DataError: A column has no cell that can be used.
        """
        key = ["tabular", source.fingerprint, list(numbers), list(categories), list(log)]
        found = remember(cache_dir, key, lambda: _measure(source, numbers, categories, log))
        return cls(numbers, categories, log=log, **found)

    def spec(self) -> dict[str, Any]:
        """All that fixes the result, JSON-ready."""
        return {
            "kind": self.kind,
            "numbers": self._numbers,
            "categories": self._categories,
            "log": self._log,
            "mean": self._mean.tolist(),
            "std": self._std.tolist(),
            "names": self._names,
        }

    def save(self, folder: Path, name: str) -> None:
        """Writes nothing: the spec says all."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], folder: Path, name: str) -> "TabularInput":
        """Makes the input that `spec` describes."""
        return cls(**{key: value for key, value in spec.items() if key != "kind"})

    def encode(self, cells: Sequence[Any], root: Path | None = None) -> Cells:
        """Reads the cells of rows that have any.

        Args:
            cells: A tuple of cells for each row, in the order of `columns`.
            root: Unused; pictures need it.

        Returns:
            `numbers` [rows, n], `known` [rows, n] and `categories` [rows, m].
        """
        rows = len(cells)
        arrays = {
            name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in self.arrays.items()
        }
        bad = {}
        for row, here in enumerate(cells):
            try:
                numbers, categories = _parse(here, self._numbers, self._categories, self._log)
            except BadCell as problem:
                bad[row] = str(problem)
                continue
            if numbers:
                values = (np.array(numbers, np.float64) - self._mean) / self._std
                known = ~np.isnan(values)
                arrays["numbers"][row] = np.where(known, values.clip(-_FARTHEST, _FARTHEST), 0)
                arrays["known"][row] = known
            if categories:
                arrays["categories"][row] = [
                    MISSING if name is None else indices.get(name, OTHER)
                    for name, indices in zip(categories, self._indices, strict=True)
                ]
        return Cells(arrays, bad)


def _parse(
    cells: Sequence[Any], numbers: Sequence[str], categories: Sequence[str], log: Sequence[str]
) -> tuple[list[float], list[str | None]]:
    """The numbers of a row, NaN where empty, and its names, None where empty.

    Raises:
        BadCell: A cell holds something else.
    """
    read = [
        _read(column, cell, lambda cell, column=column: _number(cell, column in log))
        for column, cell in zip(numbers, cells[: len(numbers)], strict=True)
    ]
    names = [
        _read(column, cell, _name)
        for column, cell in zip(categories, cells[len(numbers) :], strict=True)
    ]
    return [math.nan if number is None else number for number in read], names


def _read(column: str, cell: Any, parse: Callable[[Any], Any]) -> Any:
    if is_empty(cell):
        return None
    try:
        return parse(cell)
    except BadCell as problem:
        raise BadCell(f"{column}: {problem}") from None


def _number(cell: Any, log: bool) -> float:
    number = parse_number(cell)
    return math.copysign(math.log1p(abs(number)), number) if log else number


def _name(cell: Any) -> str:
    """The name in a cell; a truth value or a whole number is one, too."""
    if isinstance(cell, bool | np.bool):
        return str(cell).lower()
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        cell = int(cell)  # a table with a gap in the column has 3.0 for 3
    if isinstance(cell, str | int | np.integer):
        return str(cell).strip()
    raise BadCell(f"{cell!r:.60} is no name (a text or a whole number)")


def _measure(
    source: Source, numbers: Sequence[str], categories: Sequence[str], log: Sequence[str]
) -> dict[str, Any]:
    """The arguments of a `TabularInput` that the data tell."""
    columns = [*numbers, *categories]
    values: list[list[float]] = [[] for _ in numbers]
    names: list[set[str]] = [set() for _ in categories]
    with track(f"{source.name}: measuring {', '.join(columns)}", len(source)) as advance:
        for row in range(len(source)):
            cells = source[row]
            advance(1)
            try:
                here = _parse([cells.get(column) for column in columns], numbers, categories, log)
            except BadCell:
                continue  # it is reported when all splits are read
            for found, number in zip(values, here[0], strict=True):
                if not math.isnan(number):
                    found.append(number)
            for known, name in zip(names, here[1], strict=True):
                if name is not None:
                    known.add(name)
    for column, found in zip(columns, [*values, *names], strict=True):
        if not found:
            raise DataError(f"{source.name} has no cell that can be used in column {column!r}")
    mean = [float(np.mean(found)) for found in values]
    std = [float(np.std(found)) for found in values]
    std = [s if s > _CONSTANT * abs(m) else 1.0 for s, m in zip(std, mean, strict=True)]
    return {"mean": mean, "std": std, "names": [sorted(known) for known in names]}
