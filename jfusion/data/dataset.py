"""A split, ready for batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jfusion.data.problems import Problem
from jfusion.data.source import Source


@dataclass(frozen=True)
class Split:
    """One split with everything preprocessed. Every row of the source has its place here.

    Attributes:
        name: `train`, `val`, `test`, or what the caller chose.
        source: Where the rows come from.
        inputs: `{modality: {array: [rows, ...]}}`, memory-mapped; zeros where absent.
        present: `{modality: bool [rows]}`.
        targets: `{head: float32 [rows, C]}`, zeros in rows that are left out; empty in prediction.
        keep: int64 [kept], the rows that take part, ascending.
        problems: Every bad cell and row.
        faults: Row -> `{modality or column: reason}`, the same by row.
        truncated: How many texts were cut to the token limit, by modality.
    """

    name: str
    source: Source
    inputs: Mapping[str, Mapping[str, np.ndarray]]
    present: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    keep: np.ndarray
    problems: tuple[Problem, ...] = ()
    faults: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    truncated: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of rows that take part."""
        return len(self.keep)

    def counts(self) -> dict[str, int]:
        """Rows by what became of them; the sum is the number of rows of the source.

        `ok` has every modality, `missing` lacks one or more (its cell is empty, or bad under
        `on_error=missing`), `skipped` does not take part.
        """
        whole = np.all([flags[self.keep] for flags in self.present.values()], axis=0)
        ok = int(whole.sum())
        return {
            "ok": ok,
            "missing": len(self.keep) - ok,
            "skipped": len(self.source) - len(self.keep),
        }

    def status(self, row: int) -> str:
        """What became of a row: `ok`, `missing: poster (zero bytes)`, or `bad: plot: ...`."""
        faults = self.faults.get(row, {})
        position = np.searchsorted(self.keep, row)
        if position == len(self.keep) or self.keep[position] != row:
            return "bad: " + "; ".join(f"{what}: {reason}" for what, reason in faults.items())
        absent = [name for name, flags in self.present.items() if not flags[row]]
        if not absent:
            return "ok"
        why = [f"{name} ({faults[name]})" if name in faults else name for name in absent]
        return "missing: " + ", ".join(why)
