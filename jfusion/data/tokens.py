"""Texts that somebody has turned into token numbers before."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.data.columns import Cells
from jfusion.data.problems import BadCell
from jfusion.data.windows import Windows

_PAD = 0


class TokenInput:
    """A column of lists of token numbers, taken as they are (N: `max_tokens`, W: `windows`).

    0 is padding and left out, wherever it stands. Longer lists are cut as `TextInput` cuts texts,
    but there are no special tokens besides those that a list has itself.

    Attributes:
        column: The column of the table.
        arrays: See `Windows.arrays`.
        vocab_size: The largest number and one more, for the padding.
    """

    kind = "tokens"
    notes = ("used",)

    def __init__(self, column: str, vocabulary: int, *, max_tokens: int, windows: int = 1):
        self.column = column
        self._vocabulary = vocabulary
        self._windows = Windows(max_tokens, windows, _PAD)
        self.arrays = self._windows.arrays
        self.vocab_size = vocabulary + 1

    def spec(self) -> dict[str, Any]:
        """All that fixes the result, JSON-ready."""
        return {
            "kind": self.kind,
            "column": self.column,
            "vocabulary": self._vocabulary,
            "max_tokens": self._windows.tokens,
            "windows": self._windows.count,
        }

    def save(self, folder: Path, name: str) -> None:
        """Writes nothing: the spec says all."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], folder: Path, name: str) -> "TokenInput":
        """Makes the input that `spec` describes."""
        return cls(**{key: value for key, value in spec.items() if key != "kind"})

    def encode(self, cells: Sequence[Any], root: Path | None = None) -> Cells:
        """Reads non-empty cells.

        Args:
            cells: Lists of whole numbers, or texts of JSON lists (n of them).
            root: Unused; pictures need it.

        Returns:
            `ids` [n, N] and `length` [n], or [n, W, N] and [n, W]. The note `used` is the share of
            a list that the windows hold.
        """
        texts, bad = {}, {}
        for row, cell in enumerate(cells):
            try:
                ids = [number for number in _numbers(cell, self._vocabulary) if number != _PAD]
            except BadCell as problem:
                bad[row] = str(problem)
            else:
                texts[row] = self._windows.cut(ids)
        arrays, used = self._windows.pack(texts, len(cells))
        return Cells(arrays, bad, {"used": used})


def _numbers(cell: Any, vocabulary: int) -> list[int]:
    """The token numbers in a cell.

    Raises:
        BadCell: It holds something else, or a number that is not in the vocabulary.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise BadCell(f"not a list of token numbers: {cell!r:.40}") from None
    if not isinstance(cell, list | tuple | np.ndarray):
        raise BadCell(f"not a list of token numbers but {type(cell).__name__}: {cell!r:.40}")
    for number in cell:
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise BadCell(f"{number!r:.40} is no token number")
        if not 0 <= number <= vocabulary:
            raise BadCell(
                f"token {number} is not in the vocabulary, 1 to {vocabulary} and 0 for padding; "
                "set the input's vocabulary to the largest number"
            )
    return [int(number) for number in cell]
