"""What can be wrong with a row, and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from jfusion.data.source import Joined, Source
from jfusion.errors import UserError

_SHOWN = 20


class BadCell(ValueError):
    """A cell that cannot be used; the text is the reason, without file, row or column."""


@dataclass(frozen=True)
class Problem:
    """A bad cell, named so that a person finds it.

    Attributes:
        file: The table's file, or the data set and split.
        row: Which row, for example `row 17` (data rows count from 1) or `row 17 (id 0012345)`.
        column: The column, or columns.
        reason: What is wrong with the cell, and what to do where that is not obvious.
    """

    file: str
    row: str
    column: str
    reason: str

    @classmethod
    def at(cls, source: Source, index: int, column: str, reason: str) -> Self:
        """The problem of a cell in the source's row `index` (counted from 0)."""
        if isinstance(source, Joined):
            source, index = source.part(index)
        row = source.locate(index).removeprefix(source.name).strip()
        return cls(source.name, row, column, reason)

    def __str__(self) -> str:
        return f"{self.file} {self.row}, column {self.column!r}: {self.reason}"


class DataError(UserError):
    """Data that cannot be used as asked; the message is complete.

    Attributes:
        problems: The bad cells, all of them; empty where the fault is not in single cells.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()):
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *_lines(self.problems)]))


def _lines(problems: Sequence[Problem]) -> list[str]:
    """The first problems, a line each, and how many more there are."""
    lines = [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  ... and {len(problems) - _SHOWN} more")
    return lines
