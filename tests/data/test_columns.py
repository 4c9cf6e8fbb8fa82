import math
import types

import numpy as np
import pytest

from jfusion.data.columns import cell_of, columns_of, is_empty, near, parse_labels
from jfusion.data.problems import BadCell, DataError, Problem


@pytest.mark.parametrize("cell", [None, "", " \n\t", math.nan, np.float32("nan")])
def test_empty_cells(cell):
    assert is_empty(cell)
    with pytest.raises(BadCell, match=r"label is empty; write \[\]"):
        parse_labels(cell, "|")


@pytest.mark.parametrize("cell", ["NA", "0", b"", [], 0, False])
def test_cells_that_are_not_empty(cell):
    assert not is_empty(cell)


def test_a_modality_reads_one_cell_or_all_cells_of_several_columns():
    one = types.SimpleNamespace(column="a")
    several = types.SimpleNamespace(column="a, b", columns=("a", "b"))
    assert columns_of(one) == ("a",) and columns_of(several) == ("a", "b")
    row = {"a": " ", "b": 0, "c": "x"}
    assert cell_of(row, one) is None
    assert cell_of({"a": [1]}, one) == [1]
    assert cell_of(row, several) == (" ", 0)
    assert cell_of({"a": None, "b": math.nan}, several) is None


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (["Drama", "Film-Noir"], ["Drama", "Film-Noir"]),
        (("b", "a", "b"), ["b", "a"]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([], []),
        ("[]", []),
        (' ["a|b", "c"] ', ["a|b", "c"]),
        ("Drama| Sci-Fi |Drama", ["Drama", "Sci-Fi"]),
        ("Drama, Comedy", ["Drama, Comedy"]),
        ([3, 1], ["3", "1"]),
        (7, ["7"]),
    ],
)
def test_label_cells(cell, names):
    assert parse_labels(cell, "|") == names


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("a||b", "a label name is empty in 'a||b'"),
        (["a", None], "None in the label cell is no name"),
        ([["a"]], "no name"),
        ('["a", ', "starts like a JSON list"),
        (b"a", "no name"),
        (True, "no name"),
        (1.5, "no name"),
        ({"a": 1}, "no name"),
    ],
)
def test_bad_label_cells(cell, reason):
    with pytest.raises(BadCell) as caught:
        parse_labels(cell, "|")
    assert reason in str(caught.value)


def test_near_names_come_first_else_all():
    assert near("Comdy", ["Comedy", "Drama"]) == "; near it: 'Comedy'"
    assert near("DRAMA", ["Comedy", "Drama"]) == "; near it: 'Drama'"
    assert near("x", ["Comedy", "Drama"]) == "; there are: 'Comedy', 'Drama'"


def test_an_error_lists_twenty_problems_and_the_count():
    problems = [Problem("a.csv", f"row {i}", "poster", "zero bytes") for i in range(1, 26)]
    message = str(DataError("25 bad cells", problems))
    assert message.splitlines()[:2] == [
        "25 bad cells",
        "  a.csv row 1, column 'poster': zero bytes",
    ]
    assert "row 20," in message and "row 21," not in message
    assert message.endswith("... and 5 more")
