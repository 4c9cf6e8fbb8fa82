"""What the rest of jfusion needs of a data set: one split, row by row."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

Row = dict[str, Any]
"""Column -> str, bytes, list of str, float, float32 [frames, features] or None."""


@runtime_checkable
class Source(Protocol):
    """One split with random access.

    A picture cell is `bytes` (an encoded image) or `str` (a path relative to `root`). A sequence
    cell is an array of frames, in which NaN is what is not known, or a path to a `.npy` file; all
    sequences of a row begin and end together. `None` and an empty text mean that the row does not
    have the modality; empty bytes are a broken picture. `__getitem__` is called from several
    threads.

    A source may have two attributes more: `features`, `{column: names of a sequence's features}`,
    and `bad_rows`, row -> `(column, reason)` for rows that cannot be used.

    Attributes:
        name: What messages name: the file's path, or for example `mm_imdb/train`.
        fingerprint: A hex digest that changes whenever the content changes; it keys the cache.
        root: The folder that paths are relative to and may not leave; None where there are none.
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
    def features(self) -> Mapping[str, Sequence[str]]:
        """Those of the whole."""
        return getattr(self.whole, "features", {})

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


class Stretch:
    """Consecutive rows of another source, as a source that knows of no others.

    Unlike with `Subset`, only these rows are read and kept in the cache.

    Attributes:
        whole: The other source.
        start: The first of its rows.
        bad_rows: Row -> `(column, reason)` for rows that cannot be used.
    """

    def __init__(self, whole: Source, start: int, stop: int):
        self.whole, self.start, self._size = whole, start, stop - start
        self.name = whole.name
        self.root = whole.root
        self.bad_rows = {
            row - start: problem
            for row, problem in getattr(whole, "bad_rows", {}).items()
            if start <= row < stop
        }

    @property
    def features(self) -> Mapping[str, Sequence[str]]:
        """Those of the whole."""
        return getattr(self.whole, "features", {})

    @property
    def fingerprint(self) -> str:
        """That of the whole, with the place of the rows."""
        text = f"{self.whole.fingerprint} {self.start} {self._size}"
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:
        return self.whole[self.start + index]

    def locate(self, index: int) -> str:
        """Where a person finds the row, in the whole."""
        return self.whole.locate(self.start + index)


class Joined:
    """Several sources as one, one after the other.

    Attributes:
        parts: The sources.
        starts: int64 [parts], the row at which each begins.
        bad_rows: Row -> `(column, reason)` for rows that cannot be used.
        root: The folder that paths are relative to.
    """

    def __init__(self, parts: Sequence[Source], root: Path | None):
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])[:-1]
        self.name = ", ".join(part.name for part in self.parts)
        self.root = root
        self.bad_rows = {
            int(start) + row: problem
            for start, part in zip(self.starts, self.parts, strict=True)
            for row, problem in getattr(part, "bad_rows", {}).items()
        }

    @property
    def features(self) -> Mapping[str, Sequence[str]]:
        """Those of the first part; the others have the same."""
        return getattr(self.parts[0], "features", {})

    @property
    def fingerprint(self) -> str:
        """That of all parts, in order."""
        return hashlib.sha256("".join(p.fingerprint for p in self.parts).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Row:
        part, row = self.part(index)
        return part[row]

    def part(self, index: int) -> tuple[Source, int]:
        """The source that a row is of, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows; there is no row {index + 1}")
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[number], index - int(self.starts[number])

    def locate(self, index: int) -> str:
        """Where a person finds the row, in its own source."""
        part, row = self.part(index)
        return part.locate(row)
