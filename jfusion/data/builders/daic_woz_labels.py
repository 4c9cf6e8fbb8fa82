"""Reads the label files of DAIC-WOZ: who is in which split, and with which PHQ-8 score."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jfusion.data.builders.daic_woz_files import LABEL_FILES, SCORED_TEST
from jfusion.data.problems import DataError, Problem

DEPRESSED = 10
"""From this score on a person counts as depressed."""
SCORES = range(25)
"""What the sum of eight items from 0 to 3 can be."""

# The names of a column. They differ between the files, and only whole names tell the score from the
# binary class beside it.
_ID = ("Participant_ID", "participant_ID")
_SCORE = ("PHQ8_Score", "PHQ_Score")
_BINARY = ("PHQ8_Binary", "PHQ_Binary")
_GENDER = ("Gender",)
_ITEMS = tuple(
    f"PHQ8_{item}"
    for item in (
        *("NoInterest", "Depressed", "Sleep", "Tired"),
        *("Appetite", "Failure", "Concentrating", "Moving"),
    )
)
_GENDERS = ("male", "female")


@dataclass(frozen=True)
class Participant:
    """One line of a label file.

    Attributes:
        id: Three digits.
        phq8: The score, 0 to 24; None where the file has none.
        gender: `male`, `female` or None.
        binary_differs: Whether the file's binary class is not that of the score. The score stands.
        items_differ: Whether all eight items are there and their sum is not the score, which
            stands.
    """

    id: str
    phq8: int | None = None
    gender: str | None = None
    binary_differs: bool = False
    items_differ: bool = False


def read(files: Mapping[str, Path]) -> dict[str, list[Participant]]:
    """Reads and checks the label files.

    Args:
        files: Name of a label file -> where it is.

    Returns:
        The participants of `train`, `val` and `test`, in the order of the files. Those of `test`
        have scores only if `full_test_split.csv` is there.

    Raises:
        DataError: Names every bad cell, and whoever is in two files.
    """
    problems: list[Problem] = []
    lists = {
        split: _read_file(files[name], problems, scored=split != "test")
        for split, name in LABEL_FILES.items()
        if name in files
    }
    if SCORED_TEST in files:
        scored = _read_file(files[SCORED_TEST], problems, scored=True)
        listed = lists.setdefault("test", scored)
        lists["test"] = _with_scores(listed, scored, files[SCORED_TEST], problems)
    first: dict[str, str] = {}
    for split, people in lists.items():
        for person in people:
            if first.setdefault(person.id, split) != split:
                file = files.get(LABEL_FILES[split]) or files[SCORED_TEST]
                reason = f"is in {first[person.id]} too; nobody may be in two splits"
                problems.append(Problem(str(file), f"(id {person.id})", _ID[0], reason))
    if problems:
        raise DataError("the label files of DAIC-WOZ cannot be used as they are", problems)
    return {split: lists[split] for split in LABEL_FILES}


def _with_scores(
    listed: Sequence[Participant],
    scored: Sequence[Participant],
    file: Path,
    problems: list[Problem],
) -> list[Participant]:
    """The listed participants with the scores that the other file has of them."""
    ids, scores = {person.id for person in listed}, {person.id: person for person in scored}
    for key in sorted(scores.keys() - ids):
        reason = f"is not in {LABEL_FILES['test']}"
        problems.append(Problem(str(file), f"(id {key})", _ID[0], reason))
    people = []
    for person in listed:
        other = scores.get(person.id, person)
        people.append(replace(other, gender=person.gender or other.gender))
    return people


def _read_file(file: Path, problems: list[Problem], scored: bool) -> list[Participant]:
    """The good rows of a file; what is wrong with the others is added to the problems."""
    header, rows = _read_cells(file)
    wanted = {"id": _ID, "gender": _GENDER}
    if scored:
        wanted |= {"score": _SCORE, "binary": _BINARY} | {item: (item,) for item in _ITEMS}
    columns = {key: _column(file, header, names) for key, names in wanted.items()}
    for key in ("id", "score") if scored else ("id",):
        if not columns[key]:
            raise DataError(
                f"{file}: has no column {' or '.join(wanted[key])}; it has {', '.join(header)}"
            )
    people, first = [], {}
    for number, cells in rows:
        here = f"row {number}"
        try:
            person = _participant(cells, columns, scored)
            if person.id in first:
                raise _Bad(columns["id"], f"{person.id} stands in {first[person.id]} too")
        except _Bad as bad:
            problems.append(Problem(str(file), here, bad.column, bad.reason))
        else:
            first[person.id] = here
            people.append(person)
    return people


class _Bad(ValueError):
    """A cell that cannot be used, and why."""

    def __init__(self, column: str, reason: str):
        self.column, self.reason = column, reason
        super().__init__(reason)


def _participant(cells: dict[str, str], columns: dict[str, str], scored: bool) -> Participant:
    """A row of a file.

    Args:
        cells: By the names in the header.
        columns: What a column holds -> its name in the header, empty if there is none.
        scored: Whether the file has scores.
    """
    key = _number(cells, columns["id"], range(100, 1000))
    gender = _number(cells, columns["gender"], range(2), blank=True)
    person = Participant(str(key), gender=None if gender is None else _GENDERS[gender])
    if not scored:
        return person
    score = _number(cells, columns["score"], SCORES)
    binary = _number(cells, columns["binary"], range(2), blank=True)
    # An item that is not there or blank could be had from the others and the score, but nothing
    # needs it.
    items = [_number(cells, columns[item], range(4), blank=True) for item in _ITEMS]
    return replace(
        person,
        phq8=score,
        binary_differs=binary is not None and binary != (score >= DEPRESSED),
        items_differ=None not in items and sum(items) != score,
    )


def _read_cells(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and `(number, {column: cell})` of every row that is not blank."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a UTF-8 text: {error}") from error
    table = [[cell.strip() for cell in cells] for cells in csv.reader(lines)]
    header, *rows = table or [[]]
    numbered = []
    for number, cells in enumerate(rows, start=1):
        if any(cells):
            padded = cells + [""] * (len(header) - len(cells))
            numbered.append((number, dict(zip(header, padded, strict=False))))
    if not numbered:
        raise DataError(f"{file}: has no rows")
    return header, numbered


def _column(file: Path, header: Sequence[str], names: Sequence[str]) -> str:
    """The one of the names that is in the header; empty if none is."""
    there = [name for name in header if name in names]
    if len(there) > 1:
        raise DataError(f"{file}: which of its columns {' and '.join(there)} is meant?")
    return there[0] if there else ""


def _number(cells: dict[str, str], column: str, allowed: range, blank: bool = False) -> int | None:
    """A whole number, which spreadsheets write as 5 or 5.0; None where nothing stands."""
    cell = cells[column] if column else ""
    if blank and not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not value.is_integer() or int(value) not in allowed:
        raise _Bad(column, f"{cell!r} is not a whole number from {allowed[0]} to {allowed[-1]}")
    return int(value)
