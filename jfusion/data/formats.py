"""Reads table files: CSV, TSV, Parquet and JSONL.

Text stays text: `0012345` is no number, and `NA` and `nan` are words; only a cell with nothing in
it is empty. CSV and TSV are read strictly, because a lenient reader turns one missing quote into
several rows lost within a cell; whatever is wrong with a file's form is an error that names rows.
"""

import csv
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from jfusion.data.columns import near
from jfusion.data.problems import DataError, Problem

_LONGEST_CELL = 2**30


def read(path: Path) -> dict[str, Sequence]:
    """Reads a table file, by the end of its name.

    Returns:
        `{column: cells}` with equally many cells each; cells of a Parquet file are Arrow scalars.

    Raises:
        DataError: No such file, or its form is broken.
    """
    if not path.is_file():
        here = [p.name for p in path.parent.glob("*") if p.suffix.lower() in _READERS]
        raise DataError(f"no table file {str(path)!r}{near(path.name, here) if here else ''}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: cannot tell the format from {path.suffix!r}; it must be one of "
            f"{', '.join(_READERS)}"
        )
    return reader(path)


def _read_delimited(path: Path, delimiter: str) -> dict[str, list[str]]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    text = io.StringIO(_text(path), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header, rows, problems = None, [], []
    try:
        for cells in filter(None, reader):  # a blank line is no row
            if header is None:
                header = cells
                continue
            rows.append(cells)
            if len(cells) != len(header):
                reason = f"{len(cells)} cells where the header has {len(header)}"
                problems.append(
                    Problem(str(path), f"row {len(rows)}", "all", f"{reason}: {cells!r:.80}")
                )
    except csv.Error as error:
        raise DataError(
            f"{path}, after data row {len(rows)} (line {reader.line_num}): {error}; a quote is not "
            'closed, or not doubled ("") inside a quoted cell'
        ) from None
    if problems:
        raise DataError(
            f"{path} is not a table; quote cells that hold the delimiter {delimiter!r}", problems
        )
    _check_header(path, header or [])
    return {column: [row[i] for row in rows] for i, column in enumerate(header or [])}


def _read_jsonl(path: Path) -> dict[str, list]:
    rows, problems = [], []
    for line in _text(path).split("\n"):
        if not line.strip():
            continue
        try:
            row, reason = json.loads(line), "not a JSON object"
        except ValueError as error:
            row, reason = None, f"not JSON: {error}"
        if not isinstance(row, dict):
            problems.append(Problem(str(path), f"row {len(rows) + 1}", "all", reason))
            row = {}
        rows.append(row)
    if problems:
        raise DataError(f"{path} must hold one JSON object per line", problems)
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: [row.get(column) for row in rows] for column in columns}


def _read_parquet(path: Path) -> dict[str, pyarrow.ChunkedArray]:
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None
    _check_header(path, table.column_names)
    return dict(zip(table.column_names, table.columns, strict=True))


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"0x{content[error.start]:02x}"
        raise DataError(
            f"{path} is not UTF-8: byte {byte} in line {line}; save it as UTF-8"
        ) from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"{path} has several columns named {', '.join(map(repr, repeated))}")


_READERS = {
    ".csv": functools.partial(_read_delimited, delimiter=","),
    ".tsv": functools.partial(_read_delimited, delimiter="\t"),
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
}
