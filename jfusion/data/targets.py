"""Target columns to arrays: labels, a class, a number, or what an embedding is trained by.

Every kind has the `column` that problems are reported of, the `columns` that it needs, and
`encode`, which gives an array with a row per row of the source, and row -> why its cell cannot be
used; the array holds zeros there.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.config import Classes, MultiLabel, Regression, Target
from jfusion.data.cells import read_cells
from jfusion.data.columns import is_empty, near, parse_labels, parse_name, parse_number
from jfusion.data.problems import BadCell, DataError
from jfusion.data.source import Source

_NO_YES = ("no", "yes")

Encoded = tuple[np.ndarray, dict[int, str]]


@dataclass(frozen=True)
class LabelColumn:
    """Any number of labels per row.

    Attributes:
        column: The column of the table.
        delimiter: What joins the names in a cell that is not a list.
        labels: The names that may stand there, in the order of the outputs.
    """

    column: str
    delimiter: str
    labels: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return (self.column,)

    def encode(self, source: Source, cache_dir: str | Path = "") -> Encoded:
        """Labels as 0 and 1: float32 [rows, C]."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        values = np.zeros((len(source), len(numbers)), np.float32)
        cells, bad = _label_cells(source, self.column, self.delimiter, cache_dir)
        for row, names in enumerate(cells):
            if row in bad:
                continue
            if unknown := [label for label in names if label not in numbers]:
                bad[row] = f"unknown label {unknown[0]!r}{near(unknown[0], numbers)}"
            else:
                values[row, [numbers[label] for label in names]] = 1
        return values, bad


@dataclass(frozen=True)
class ClassColumn:
    """One label per row.

    Attributes:
        column: The column of the table.
        labels: The names that may stand there, in the order of the outputs; or what the two classes
            of a cut are called.
        cut: Makes two classes of a column of numbers, below this number and from it on.
    """

    column: str
    labels: tuple[str, ...]
    cut: float | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return (self.column,)

    def encode(self, source: Source, cache_dir: str | Path = "") -> Encoded:
        """The number of the class: int32 [rows]."""
        cells, bad = _class_cells(source, self.column, self.cut, cache_dir)
        numbers = {label: number for number, label in enumerate(self.labels)}
        values = np.zeros(len(source), np.int32)
        for row, cell in enumerate(cells):
            if row in bad:
                continue
            if self.cut is not None:
                values[row] = cell
            elif cell in numbers:
                values[row] = numbers[cell]
            else:
                bad[row] = f"unknown label {cell!r}{near(cell, numbers)}"
        return values, bad


@dataclass(frozen=True)
class NumberColumn:
    """A number per row.

    Attributes:
        column: The column of the table.
        limits: The lowest and the highest number that may stand there; empty has none.
    """

    column: str
    limits: tuple[float, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return (self.column,)

    def encode(self, source: Source, cache_dir: str | Path = "") -> Encoded:
        """The number: float32 [rows, 1]."""
        cells, bad = _number_cells(source, self.column, cache_dir)
        low, high = self.limits or (-np.inf, np.inf)
        values = np.zeros((len(source), 1), np.float32)
        for row, number in enumerate(cells):
            if row in bad:
                continue
            if low <= number <= high:
                values[row] = number
            else:
                bad[row] = f"{number:g} is not within {low:g} to {high:g}"
        return values, bad


@dataclass(frozen=True)
class EmbeddingColumn:
    """What rows an embedding draws together and which it may not push apart.

    Attributes:
        column: The column of classes; empty has none.
        cut: As in `ClassColumn`.
        subject_column: The column that names whom a row is of; empty: each row is another's.
    """

    column: str = ""
    cut: float | None = None
    subject_column: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return tuple(column for column in (self.column, self.subject_column) if column)

    def encode(self, source: Source, cache_dir: str | Path = "") -> Encoded:
        """The number of the class, -1 without classes, and that of the subject: int32 [rows, 2]."""
        values = np.zeros((len(source), 2), np.int32)
        values[:, 0] = -1
        values[:, 1] = np.arange(len(source))
        bad = {}
        if self.column:
            cells, bad = _class_cells(source, self.column, self.cut, cache_dir)
            values[:, 0] = _numbered(cells)
        if self.subject_column:
            names, nameless = group_cells(source, self.subject_column, cache_dir)
            # A row of nobody is a subject of its own.
            values[:, 1] = _numbered(
                [("row", i) if i in nameless else name for i, name in enumerate(names)]
            )
        values[list(bad)] = 0
        return values, bad


TargetColumn = LabelColumn | ClassColumn | NumberColumn | EmbeddingColumn
"""What turns the cells of a target into an array."""


def target_of(section: Target, labels: Sequence[str] = ()) -> TargetColumn:
    """What reads the target that a config's section describes.

    Args:
        section: The section.
        labels: The names of its labels, where the section leaves them to the data; see `labels_of`.
    """
    names = tuple(labels) or getattr(section, "labels", ())
    if isinstance(section, MultiLabel):
        return LabelColumn(section.column, section.delimiter, names)
    if isinstance(section, Regression):
        return NumberColumn(section.column, section.limits)
    cut = section.cut[0] if section.cut else None
    if isinstance(section, Classes):
        return ClassColumn(section.column, names or (() if cut is None else _NO_YES), cut)
    return EmbeddingColumn(section.column, cut, section.subject_column)


def labels_of(section: Target, train: Source, cache_dir: str | Path = "") -> tuple[str, ...]:
    """The names of a target's labels or classes: the section's, or those of the training split.

    Raises:
        DataError: There is none in the training split.
    """
    if not isinstance(section, MultiLabel | Classes):
        return ()
    if section.labels or (isinstance(section, Classes) and section.cut):
        return target_of(section).labels
    if isinstance(section, MultiLabel):
        cells, bad = _label_cells(train, section.column, section.delimiter, cache_dir)
    else:
        cells, bad = _class_cells(train, section.column, None, cache_dir)
        cells = [[cell] for cell in cells]
    labels = {label for row, names in enumerate(cells) if row not in bad for label in names}
    if not labels:
        raise DataError(f"{train.name} has no label in column {section.column!r}")
    return tuple(sorted(labels))


def group_cells(
    source: Source, column: str, cache_dir: str | Path = ""
) -> tuple[list[str | None], dict[int, str]]:
    """Whom each row is of, and the rows that do not say."""
    return read_cells(source, column, _parse_group, ["group"], cache_dir)


def _label_cells(
    source: Source, column: str, delimiter: str, cache_dir: str | Path
) -> tuple[list[list[str]], dict[int, str]]:
    parse = functools.partial(parse_labels, delimiter=delimiter)
    return read_cells(source, column, parse, ["labels", delimiter], cache_dir)


def _number_cells(
    source: Source, column: str, cache_dir: str | Path
) -> tuple[list[float], dict[int, str]]:
    return read_cells(source, column, parse_number, ["number"], cache_dir)


def _class_cells(
    source: Source, column: str, cut: float | None, cache_dir: str | Path
) -> tuple[list[str | bool], dict[int, str]]:
    """The name of each row's class, or whether its number is at the cut or above."""
    if cut is None:
        return read_cells(source, column, parse_name, ["name"], cache_dir)
    cells, bad = _number_cells(source, column, cache_dir)
    return [row not in bad and number >= cut for row, number in enumerate(cells)], bad


def _parse_group(cell: Any) -> str:
    if is_empty(cell):
        raise BadCell("group is empty")
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # a table with a gap in the column has 303.0 for 303
    return str(cell).strip()


def _numbered(names: Sequence[Any]) -> list[int]:
    """Numbers in place of names, in the order of their first appearance."""
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]
