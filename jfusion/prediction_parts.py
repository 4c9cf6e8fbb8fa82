"""A prediction in parts, which several processes write, and which goes on where it was stopped."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jfusion.errors import UserError
from jfusion.run_folder import write_json

MANIFEST = "manifest.json"


class Part(NamedTuple):
    """A stretch of the input rows.

    Attributes:
        file: Its name in the folder; it is there once the part is predicted.
        start: The first row, counted from 0.
        stop: The row after the last.
    """

    file: str
    start: int
    stop: int


def folder_of(output: Path) -> Path:
    """Where the parts of an output lie: `predicted.csv.parts`."""
    return output.with_name(f"{output.name}.parts")


def plan(output: Path, what: Mapping[str, Any], rows: int, processes: int) -> list[Part]:
    """Divides the rows, or finds them divided, and writes the manifest.

    Args:
        output: The table as it would be in one file.
        what: All that fixes the prediction (JSON-ready).
        rows: Rows of the input.
        processes: How many share them; a prediction that was begun by another number keeps its
            parts.

    Returns:
        The parts, in the order of the rows.

    Raises:
        UserError: The folder holds the parts of another prediction, or cannot be written.
    """
    folder = folder_of(output)
    try:
        folder.mkdir(exist_ok=True)
        if (folder / MANIFEST).is_file():
            found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if {**found, "parts": None} != {**what, "rows": rows, "parts": None}:
                raise UserError(
                    f"--output: {folder} holds the parts of another prediction; remove it, or "
                    "choose another name"
                )
        else:
            ends = [rows * i // processes for i in range(processes + 1)]
            parts = [
                Part(f"part-{i:05}{output.suffix}", start, stop)
                for i, (start, stop) in enumerate(itertools.pairwise(ends))
                if start < stop
            ]
            found = {**what, "rows": rows, "parts": [part._asdict() for part in parts]}
            write_json(folder / MANIFEST, found)
    except (OSError, ValueError) as error:
        raise UserError(f"--output: {folder / MANIFEST}: {error}") from None
    return [Part(**part) for part in found["parts"]]
