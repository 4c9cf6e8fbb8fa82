"""A table of one's own as a data set, and its splits."""

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from jfusion import bucket
from jfusion.bucket import Version
from jfusion.config import Data
from jfusion.data import copies, formats, groups
from jfusion.data.columns import is_empty, near, require_column
from jfusion.data.problems import DataError, Problem
from jfusion.data.source import Row, Source, Subset

_SPLITS = {
    "train": ("train",),
    "val": ("val", "dev", "valid", "validation"),
    "test": ("test",),
}


class Table:
    """A table file, as a `Source`.

    Args:
        name: See below.
        path: The file.
        columns: What it holds.
        root: See below.
        versions: Of the files in a bucket of which those in `root` are copies; None if they are
            none.
        pictures: The columns that hold paths.
        id_column: A column that names rows, or none.

    Attributes:
        name: The file, as it was given.
        root: The folder that paths are relative to.
        bad_rows: Row -> `(column, reason)` for rows that cannot be used.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        columns: Mapping[str, Sequence],
        root: Path,
        versions: Mapping[str, Version] | None,
        pictures: Sequence[str],
        id_column: str,
    ):
        self.name = name
        self.root = root
        self.bad_rows: dict[int, tuple[str, str]] = {}
        self._path = path
        self._columns = columns
        self._versions = versions
        self._size = len(next(iter(columns.values())))
        self._pictures = pictures
        self._id_column = id_column

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:
        return {name: _cell(column, index) for name, column in self._columns.items()}

    def locate(self, index: int) -> str:
        """The file and the number of the data row, and its id if there are ids."""
        where = f"{self.name} row {index + 1}"
        if not self._id_column:
            return where
        return f"{where} (id {_cell(self._columns[self._id_column], index)})"

    def cells(self, column: str) -> Iterable[Any]:
        """The cells of a column, in order."""
        return (_cell(self._columns[column], row) for row in range(self._size))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Covers the file's bytes and the size and time of every file it names."""
        with open(self._path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if self._versions is None:
            digest.update(str(self.root.resolve()).encode())
        else:  # the same wherever the copies lie
            digest.update(copies.shown(self.root).encode())
        for name in self._pictures:
            for cell in self.cells(name):
                digest.update(self._stamp(cell))
        return digest.hexdigest()

    def _stamp(self, cell: Any) -> bytes:
        """What tells one state of a file from another without reading it."""
        if not isinstance(cell, str) or is_empty(cell):
            return b"-"
        if self._versions is None:
            return _stamp(self.root, cell)
        name = copies.plain(cell)
        return f"{name!r} {self._versions.get(name)}".encode()


def read(
    path: str | Path,
    *,
    root: str | Path = "",
    pictures: Sequence[str] = (),
    id_column: str = "",
    cache_dir: str = "",
) -> Table:
    """Reads a table file whole.

    Args:
        path: A `.csv`, `.tsv`, `.parquet` or `.jsonl` file, UTF-8, with a header where it has one.
            It may lie in a bucket.
        root: The folder that paths are relative to; empty: the table's own. It may lie in a bucket,
            of which the files that the table names are then copied.
        pictures: The columns that hold paths, so that the fingerprint covers the files.
        id_column: A column that names rows; empty and repeated names become bad rows.
        cache_dir: Where copies of what lies in buckets go, see `cache.cache_root`.

    Raises:
        DataError: No such file or column, or the file is not what its name says.
    """
    name, path = str(path), _here(str(path), cache_dir)
    columns = formats.read(path)
    if not any(map(len, columns.values())):
        raise DataError(f"{name} has no rows")
    for column in (*pictures, *((id_column,) if id_column else ())):
        require_column(name, column, columns)
    root, versions = str(root or _folder_of(name)), None
    if bucket.is_url(root):
        cells = (_cell(columns[x], row) for x in pictures for row in range(len(columns[x])))
        root, versions = copies.some(root, (x for x in cells if isinstance(x, str)), cache_dir)
    table = Table(name, path, columns, Path(root), versions, tuple(pictures), id_column)
    if id_column:
        mark_repeated_ids([table], id_column)
    return table


def mark_repeated_ids(tables: Sequence[Table], id_column: str) -> None:
    """Marks every row as bad whose id is empty or was already that of an earlier row."""
    seen = {}
    for table in tables:
        for index, cell in enumerate(table.cells(id_column)):
            if is_empty(cell):
                table.bad_rows[index] = (id_column, "id is empty")
                continue
            where = (table, index)
            first, row = seen.setdefault(str(cell), where)
            if (first, row) != where:
                place = first.locate(row).partition(" (id ")[0]
                table.bad_rows[index] = (id_column, f"id {cell!r} is already that of {place}")


def splits(data: Data, *, pictures: Sequence[str] = (), seed: int = 0) -> dict[str, Source]:
    """Reads the table or tables of a config and divides the rows.

    `data.val_path` and `data.test_path` are splits of their own. `data.split_column` divides the
    rows of `data.path`; without it, what has no file of its own is drawn from them at random, by
    whole groups if there is a `data.group_column`.

    Args:
        data: The config's section.
        pictures: The columns that hold paths.
        seed: Seeds the random split.

    Returns:
        `{"train": ..., "val": ..., "test": ...}`, none of them empty.

    Raises:
        DataError: A file cannot be read, or a split is empty or given twice.
    """
    options = {
        "root": data.root,
        "pictures": pictures,
        "id_column": data.id_column,
        "cache_dir": data.cache_dir,
    }
    main = read(data.path, **options)
    files = {"val": data.val_path, "test": data.test_path}
    own = {name: read(path, **options) for name, path in files.items() if path}
    if data.id_column and own:
        mark_repeated_ids([main, *own.values()], data.id_column)
    if data.split_column:
        parts = _by_column(main, data.split_column)
    else:
        fractions = {"val": data.val_fraction, "test": data.test_fraction}
        wanted = {name: share for name, share in fractions.items() if name not in own}
        names = None
        if data.group_column:
            names = groups.of_rows(main, data.group_column, data.cache_dir)
        parts = _at_random(main, wanted, seed, names)
    for name, table in own.items():
        if len(parts.get(name, ())):
            raise DataError(
                f"{main.name} has rows whose {data.split_column!r} is {name}, and "
                f"data.{name}_path gives {table.name}; leave one of them out"
            )
        parts[name] = table
    for name, words in _SPLITS.items():
        if not len(parts[name]):
            raise DataError(
                f"{main.name} has no row whose {data.split_column!r} is {' or '.join(words)}; "
                f"mark some rows so"
                + (f", or give data.{name}_path" if name != "train" else "")
                + ", or leave out data.split_column to split at random"
            )
    return {name: parts[name] for name in _SPLITS}


def _by_column(table: Table, column: str) -> dict[str, Source]:
    require_column(table.name, column, table[0])
    names = {word: name for name, words in _SPLITS.items() for word in words}
    rows = {name: [] for name in _SPLITS}
    problems = []
    for index, cell in enumerate(table.cells(column)):
        name = names.get(str(cell).strip().casefold())
        if name is None:
            reason = f"split is {cell!r}; it must be one of {', '.join(names)}"
            problems.append(Problem.at(table, index, column, reason))
        else:
            rows[name].append(index)
    if problems:
        raise DataError(f"{len(problems)} rows of {table.name} belong to no split", problems)
    return {name: Subset(table, chosen) for name, chosen in rows.items()}


def _at_random(
    table: Table, fractions: Mapping[str, float], seed: int, names: Sequence[str] | None
) -> dict[str, Source]:
    """Draws rows, or whole groups of rows if these have names."""
    rng = np.random.default_rng(seed)
    if names is None:
        members = rng.permutation(len(table))[:, None]
    else:
        members = [np.array(rows) for rows in groups.members(names).values()]
        members = [members[i] for i in rng.permutation(len(members))]
    ends = np.cumsum([len(rows) for rows in members])  # rows drawn with each group
    parts, start, drawn = {}, 0, 0
    for name, share in fractions.items():
        count = max(1, round(len(table) * share))
        stop = int(np.searchsorted(ends, drawn + count)) + 1  # the group that fills the part
        parts[name] = members[start:stop]
        start, drawn = stop, ends[min(stop, len(ends)) - 1]
    parts["train"] = members[start:]
    if start >= len(members):
        what = "rows" if names is None else "groups"
        raise DataError(f"{table.name} has {len(members)} {what}, too few to split at random")
    return {name: Subset(table, np.sort(np.concatenate(rows))) for name, rows in parts.items()}


def _here(name: str, cache_dir: str) -> Path:
    """The file of a table, or the copy of it if it is in a bucket."""
    if not bucket.is_url(name):
        return Path(name)
    folder, _, file = name.rpartition("/")
    root, found = copies.some(folder, [file], cache_dir)
    if not found:
        raise DataError(f"no table file {name!r}{near(file, bucket.Folder(folder).entries())}")
    return root / file


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0] if bucket.is_url(name) else str(Path(name).parent)


def _cell(column: Sequence, row: int) -> Any:
    cell = column[row]
    return cell.as_py() if isinstance(cell, pyarrow.Scalar) else cell


def _stamp(root: Path, cell: Any) -> bytes:
    try:
        path = os.path.realpath(root / cell.strip())
        stat = os.stat(path)
    except (OSError, ValueError):
        return f"{cell!r} absent".encode()
    return f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_mode}".encode()
