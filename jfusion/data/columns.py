"""What a cell of a table means, before any modality looks at it."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jfusion.data.problems import BadCell


@dataclass(frozen=True)
class Cells:
    """Some cells of one modality, preprocessed.

    Attributes:
        arrays: `{array: [n, ...]}`, zeros in the rows of bad cells.
        bad: Position among the cells -> why that cell cannot be used.
        truncated: Positions of cells that were cut to fit.
    """

    arrays: Mapping[str, np.ndarray]
    bad: Mapping[int, str]
    truncated: Sequence[int] = ()


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, or a text without a visible character.

    Empty bytes are not empty in this sense: they are a broken file.
    """
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


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
