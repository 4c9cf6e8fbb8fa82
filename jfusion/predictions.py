"""Tables of predictions, a row for a row."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from jfusion.config import Target
from jfusion.data.split import Split
from jfusion.errors import UserError
from jfusion.training import readout
from jfusion.training.evaluation import Outputs

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl")


def rows(
    sections: Mapping[str, Target],
    labels: Mapping[str, Sequence[str]],
    radii: Mapping[str, float | None],
    split: Split,
    outputs: Outputs | None,
    *,
    copy: Sequence[str] = (),
    truth: bool = False,
    first: int = 1,
) -> list[dict[str, Any]]:
    """One output row per row of the split, in order.

    Args:
        sections: The targets' config sections.
        labels: Label names by target.
        radii: Half-width of the interval around each regression's predictions.
        split: The rows that were asked for.
        outputs: What the model says of those that take part; None if none does.
        copy: Columns of the source to copy.
        truth: Whether to add `<target>/true`, what stands in the target's column.
        first: The number of the split's first row.

    Returns:
        Rows with the keys `row` (counted from `first`), the copied columns, `status`, and the
        columns of each target (see `readout.columns`); None where nothing was predicted.
    """
    position = {} if outputs is None else {int(row): i for i, row in enumerate(outputs.rows)}
    predicted = {
        name: None if outputs is None else readout.predicted(section, outputs.heads[name])
        for name, section in sections.items()
    }
    true = {name: x.column for name, x in sections.items() if truth and x.column}
    written = []
    for row in split.rows:
        cells = split.source[int(row)] if copy or true else {}
        values: dict[str, Any] = {"row": int(row) + first}
        values |= {column: cells[column] for column in copy}
        values["status"] = split.status(int(row))
        for name, section in sections.items():
            given = predicted[name][position[int(row)]] if int(row) in position else None
            facts = {"radius": radii.get(name)}
            values |= readout.columns(name, section, labels[name], given, facts)
            if name in true:
                values[f"{name}/true"] = cells[true[name]]
        written.append(values)
    return written


def check_name(path: Path) -> None:
    """Raises `UserError` unless the name ends like a format that can be written."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--output: {str(path)!r} must end in one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UserError(f"--output: there is no folder {str(path.parent)!r}")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the rows in the format of the file's name; never seen half-written."""
    temporary = path.with_name(f".{path.name}.tmp")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), temporary)
    elif suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        temporary.write_text(
            _delimited(rows, "," if suffix == ".csv" else "\t"), encoding="utf-8", newline=""
        )
    temporary.replace(path)


def _delimited(rows: Sequence[dict[str, Any]], delimiter: str) -> str:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    table.writeheader()
    for row in rows:
        # A list as JSON: no label name can break it, and jfusion reads it back.
        table.writerow(
            {
                k: json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v
                for k, v in row.items()
            }
        )
    return text.getvalue()
