"""One split, preprocessed: what became of every row, and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.data.cache import materialize
from jfusion.data.columns import columns_of, require_column
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError, Problem
from jfusion.data.sequence import SequenceInput
from jfusion.data.source import Source, Subset
from jfusion.data.tabular import TabularInput
from jfusion.data.targets import TargetColumn
from jfusion.data.text import TextInput
from jfusion.data.tokens import TokenInput

InputReader = TextInput | TokenInput | ImageInput | SequenceInput | TabularInput
"""What turns the cells of a modality into arrays."""


@dataclass(frozen=True)
class Split:
    """One split with everything preprocessed.

    Row numbers and arrays are those of the whole source, of which the split may be a part.

    Attributes:
        name: `train`, `val`, `test`, or what the caller chose.
        source: Where the rows come from.
        inputs: `{modality: {array: [all rows, ...]}}`, memory-mapped; zeros where absent.
        present: `{modality: bool [all rows]}`.
        targets: `{head: [all rows, ...]}`, zeros where the cell is bad; empty in prediction. Labels
            float32 [rows, C], a class int32 [rows], a number float32 [rows, 1], an embedding's
            class and subject int32 [rows, 2].
        rows: int64 [rows], the rows of the split, ascending.
        keep: int64 [kept], those of them that take part.
        problems: Every bad cell and row of the split.
        faults: Row -> `{modality or column: reason}`, the same by row.
        notes: `{modality: {note: float32 [all rows]}}`, what preprocessing did to each cell: of a
            text, which share of it is `used`; of a sequence, which share of its values is `valid`
            and how many were `infinite`. Zeros where absent.
    """

    name: str
    source: Source
    inputs: Mapping[str, Mapping[str, np.ndarray]]
    present: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    rows: np.ndarray
    keep: np.ndarray
    problems: tuple[Problem, ...] = ()
    faults: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of rows that take part."""
        return len(self.keep)

    def counts(self) -> dict[str, int]:
        """Rows by what became of them; the sum is the number of rows of the split.

        `ok` has every modality, `missing` lacks one or more (its cell is empty, or bad under
        `on_error=missing`), `skipped` does not take part.
        """
        whole = np.all([flags[self.keep] for flags in self.present.values()], axis=0)
        ok = int(whole.sum())
        return {
            "ok": ok,
            "missing": len(self.keep) - ok,
            "skipped": len(self.rows) - len(self.keep),
        }

    def status(self, row: int) -> str:
        """What became of a row of the split.

        `ok`; `missing: plot` for an empty cell and `missing: poster (zero bytes)` for a bad one, in
        a row that takes part; `bad: poster: zero bytes` for a row that does not.
        """
        faults = self.faults.get(row, {})
        position = np.searchsorted(self.keep, row)
        if position == len(self.keep) or self.keep[position] != row:
            return "bad: " + "; ".join(f"{what}: {reason}" for what, reason in faults.items())
        absent = [name for name, flags in self.present.items() if not flags[row]]
        if not absent:
            return "ok"
        why = [f"{name} ({faults[name]})" if name in faults else name for name in absent]
        return "missing: " + ", ".join(why)


def prepare_split(
    source: Source,
    inputs: Mapping[str, InputReader],
    targets: Mapping[str, TargetColumn] | None = None,
    *,
    name: str = "",
    on_error: str = "raise",
    cache_dir: str | Path = "",
    progress: bool = True,
) -> Split:
    """Preprocesses one split; training, evaluation and prediction all come through here.

    Bad are: a cell that its modality refuses, a target cell that is empty or holds an unknown name
    or no number, a row in the source's `bad_rows` (if it has any), and a row without any modality.

    Args:
        source: The rows.
        inputs: The modalities.
        targets: What is to be predicted; None in prediction.
        name: What the split is called; empty: the source's name.
        on_error: `raise` reports all bad cells after the whole pass. `missing` takes a bad cell for
            an absent modality; `skip` leaves its row out. Both leave out a row whose target is bad
            or that has no modality.
        cache_dir: Where to keep the result, see `cache.cache_root`.
        progress: Whether to show how far it is.

    Raises:
        DataError: There are no rows or not the columns, or with `raise` a bad cell.
    """
    targets = targets or {}
    require_columns(source, inputs.values(), targets.values())
    rows = np.arange(len(source))
    if isinstance(source, Subset):
        source, rows = source.whole, source.rows
    columns = {
        modality: materialize(source, reader, cache_dir, progress)
        for modality, reader in inputs.items()
    }
    ledger = _Ledger(rows)
    for modality, column in columns.items():
        ledger.note(modality, inputs[modality].column, column.bad)
    left_out = set(ledger.faults) if on_error == "skip" else set()
    for row, (column, reason) in getattr(source, "bad_rows", {}).items():
        left_out |= ledger.note(column, column, {row: reason})
    values = {}
    for head, target in targets.items():
        values[head], bad = target.encode(source, cache_dir)
        left_out |= ledger.note(target.column, target.column, bad)
    present = {modality: column.present for modality, column in columns.items()}
    empty = set(np.flatnonzero(~np.any(list(present.values()), axis=0)).tolist())
    left_out |= empty
    reads = ", ".join(column for reader in inputs.values() for column in columns_of(reader))
    bad = dict.fromkeys(empty - set(ledger.faults), "every input of the row is empty")
    ledger.note(", ".join(inputs), reads, bad)
    problems = ledger.problems(source)
    if problems and on_error == "raise":
        raise bad_cells(problems)
    keep = np.setdiff1d(rows, np.array(sorted(left_out), np.int64))
    return Split(
        name=name or source.name,
        source=source,
        inputs={modality: column.arrays for modality, column in columns.items()},
        present=present,
        targets=values,
        rows=rows,
        keep=keep,
        problems=problems,
        faults=ledger.faults,
        notes={modality: column.notes for modality, column in columns.items()},
    )


def bad_cells(problems: Iterable[Problem]) -> DataError:
    """The error that lists bad cells."""
    problems = tuple(problems)
    count = "1 bad cell" if len(problems) == 1 else f"{len(problems)} bad cells"
    advice = "mend them, or set data.on_error to missing or skip"
    return DataError(f"{count} in the data; {advice}:", problems)


def require_columns(
    source: Source, inputs: Iterable[Any], targets: Iterable[TargetColumn] = ()
) -> None:
    """Raises a `DataError` unless the source has rows, and the columns of all parts."""
    if not len(source):
        raise DataError(f"{source.name} has no rows")
    first = source[0]
    needed = [column for part in inputs for column in columns_of(part)]
    for column in needed + [column for target in targets for column in target.columns]:
        require_column(source.name, column, first)


class _Ledger:
    """What is wrong with some rows."""

    def __init__(self, rows: np.ndarray):
        self.faults: dict[int, dict[str, str]] = {}
        self._rows = set(rows.tolist())
        self._reasons: dict[tuple[int, str], str] = {}

    def note(self, what: str, column: str, bad: Mapping[int, str]) -> set[int]:
        """Notes bad cells of a column, row -> reason; returns the rows that are of interest.

        A cell's first reason counts: several targets may be made of one column.
        """
        noted = self._rows & set(bad)
        for row in noted:
            self.faults.setdefault(row, {}).setdefault(what, bad[row])
            self._reasons.setdefault((row, column), bad[row])
        return noted

    def problems(self, source: Source) -> tuple[Problem, ...]:
        cells = sorted(self._reasons.items())
        return tuple(Problem.at(source, *cell, reason) for cell, reason in cells)
