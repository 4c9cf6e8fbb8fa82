"""What a cell of a table means, before any modality looks at it."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from jfusion.data.problems import BadCell, DataError

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Cells:
    """Some cells of one modality, preprocessed.

    Attributes:
        arrays: `{array: [n, ...]}`, zeros in the rows of bad cells.
        bad: Position among the cells -> why that cell cannot be used.
        notes: `{note: float32 [n]}`, what preprocessing did to the cells.
    """

    arrays: Mapping[str, np.ndarray]
    bad: Mapping[int, str]
    notes: Mapping[str, np.ndarray] = field(default_factory=dict)


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, or a text without a visible character.

    Empty bytes are not empty in this sense: they are a broken file.
    """
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, float | np.floating) and math.isnan(cell))


def columns_of(part: Any) -> tuple[str, ...]:
    """The columns that a modality or its section reads: its `columns`, or its one `column`."""
    return tuple(getattr(part, "columns", None) or (part.column,))


def cell_of(row: Mapping[str, Any], part: Any) -> Any:
    """What a row holds for a modality: its cell; a tuple of all its cells where it has `columns`.

    None if the cell is, or all cells are, empty.
    """
    if not getattr(part, "columns", None):
        cell = row.get(part.column)
        return None if is_empty(cell) else cell
    cells = tuple(row.get(column) for column in part.columns)
    return None if all(map(is_empty, cells)) else cells


def parse_labels(cell: Any, delimiter: str) -> list[str]:
    """The label names in a cell, each once, in the cell's order.

    Args:
        cell: A list, the text of a JSON list, or names joined by `delimiter`; whole numbers count
            as names.
        delimiter: What joins the names of a text that is not a JSON list.

    Raises:
        BadCell: The cell is empty (an empty list is not), or holds something that is no name.
    """
    if is_empty(cell):
        raise BadCell("label is empty; write [] for a row without labels")
    if isinstance(cell, str):
        names = _split(cell.strip(), delimiter)
    elif isinstance(cell, list | tuple | np.ndarray):
        names = list(cell)
    else:
        names = [cell]
    return list(dict.fromkeys(_name(name, cell) for name in names))


def parse_name(cell: Any) -> str:
    """The one name in a cell; whole numbers count as names.

    Raises:
        BadCell: The cell is empty or holds something that is no name.
    """
    if is_empty(cell):
        raise BadCell("label is empty")
    return _name(cell, cell)


def parse_number(cell: Any) -> float:
    """The number in a cell, or the number that its text says.

    Raises:
        BadCell: The cell is empty or holds something that is no finite number.
    """
    if is_empty(cell):
        raise BadCell("number is empty")
    numeric = isinstance(cell, int | float | str | Decimal | np.number)
    try:
        number = float(cell) if numeric and not isinstance(cell, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is None:
        raise BadCell(f"{_short(cell)} is not a number")
    if not abs(number) <= _LARGEST:
        raise BadCell(f"{_short(cell)} is not a finite number, or too large for float32")
    return number


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not among the `known`: what may have been meant."""
    known = [str(other) for other in known]
    matches = difflib.get_close_matches(name, known, cutoff=0.5)
    if not matches:
        folded = {other.casefold(): other for other in known}
        matches = [folded[name.casefold()]] if name.casefold() in folded else []
    if matches:
        return f"; near it: {', '.join(repr(match) for match in matches)}"
    shown = ", ".join(repr(other) for other in known[:30])
    return f"; there are: {shown}{', ...' if len(known) > 30 else ''}"


def require_column(where: str, name: str, columns: Iterable[str]) -> None:
    """Raises a `DataError` that names the nearest columns, unless the column is there."""
    columns = list(columns)
    if name not in columns:
        raise DataError(f"{where} has no column {name!r}{near(name, columns)}")


def _split(text: str, delimiter: str) -> list:
    if not text.startswith("["):
        return text.split(delimiter)
    try:
        names = json.loads(text)
    except ValueError:
        raise BadCell(f"{_short(text)} starts like a JSON list but is none") from None
    return names


def _name(name: Any, cell: Any) -> str:
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return str(name)
    if not isinstance(name, str):
        raise BadCell(f"{_short(name)} in the label cell is no name (a text)")
    if not name.strip():
        raise BadCell(f"a label name is empty in {_short(cell)}")
    return name.strip()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
