"""The table that `predict` writes."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from jfusion.artifact import Artifact
from jfusion.data.split import Split
from jfusion.errors import UserError
from jfusion.training.evaluation import Outputs

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl")


def rows(
    model: Artifact, split: Split, outputs: Outputs | None, id_column: str = ""
) -> list[dict[str, Any]]:
    """One output row per row of the source, in order.

    Args:
        model: The model.
        split: The rows that were asked for.
        outputs: What the model says of those that take part; None if none does.
        id_column: A column to copy.

    Returns:
        Rows with the keys `row` (counted from 1), the id column, `status`, and for each target its
        predicted labels and `<target>/<label>` probabilities; None where nothing was predicted.
    """
    position = {} if outputs is None else {int(row): i for i, row in enumerate(outputs.rows)}
    probabilities = (
        {} if outputs is None else {name: outputs.probabilities(name) for name in model.targets}
    )
    written = []
    for row in range(len(split.source)):
        values: dict[str, Any] = {"row": row + 1}
        if id_column:
            values[id_column] = split.source[row][id_column]
        values["status"] = split.status(row)
        for name, target in model.targets.items():
            given = probabilities[name][position[row]] if row in position else None
            values |= _predicted(name, target, given)
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


def _predicted(name: str, target: dict[str, Any], given: np.ndarray | None) -> dict[str, Any]:
    labels = target["labels"]
    if given is None:
        return {name: None} | {f"{name}/{label}": None for label in labels}
    chosen = [label for label, p in zip(labels, given, strict=True) if p > target["threshold"]]
    # The shortest decimal that gives the same float32 back.
    return {name: chosen} | {
        f"{name}/{label}": float(str(p)) for label, p in zip(labels, given, strict=True)
    }


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
