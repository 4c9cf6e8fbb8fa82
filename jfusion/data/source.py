"""What the rest of jfusion needs of a data set: one split, row by row."""

import hashlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

Row = dict[str, Any]
"""Column -> str, bytes, list of str, float or None."""


@runtime_checkable
class Source(Protocol):
    """One split with random access.

    A picture cell is `bytes` (an encoded image) or `str` (a path relative to `root`). `None` and an
    empty text mean that the row does not have the modality; empty bytes are a broken picture.
    `__getitem__` is called from several threads.

    Attributes:
        name: What messages name: the file's path, or for example `mm_imdb/train`.
        fingerprint: A hex digest that changes whenever the content changes; it keys the cache.
        root: The folder that picture paths are relative to and may not leave; None where pictures
            are bytes.
    """

    name: str
    fingerprint: str
    root: Path | None

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def __getitem__(self, index: int) -> Row:
        """The row at `index`, counted from 0."""
        ...

    def locate(self, index: int) -> str:
        """Where a person finds the row: `movies.csv row 17` or `mm_imdb/train row 17 (id 0012)`.

        It starts with `name` (or the file the row came from) and rows count from 1.
        """
        ...


class Subset:
    """Some rows of another source, as a source: the split of a table, for example.

    What is kept in the cache is kept for the whole, so that another division of the same rows finds
    it there.

    Attributes:
        whole: The other source.
        rows: int64 [rows], which of its rows these are.
    """

    def __init__(self, whole: Source, rows: np.ndarray):
        self.whole = whole
        self.rows = np.asarray(rows, np.int64)
        self.name = whole.name
        self.root = whole.root

    @property
    def fingerprint(self) -> str:
        """That of the whole, with the rows."""
        return hashlib.sha256(self.whole.fingerprint.encode() + self.rows.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.whole[int(self.rows[index])]

    def locate(self, index: int) -> str:
        """Where a person finds the row, in the whole."""
        return self.whole.locate(int(self.rows[index]))
