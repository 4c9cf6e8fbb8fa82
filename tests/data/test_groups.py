import re

import numpy as np
import pytest

from jfusion.data import groups
from jfusion.data.problems import DataError
from jfusion.data.source import Subset
from tests.data.rows import column


def test_groups_are_texts_however_a_table_has_them(tmp_path):
    source = column("who", ["303", 303, 303.0, np.int64(303), " 303 ", "0303", "x"])
    assert groups.of_rows(source, "who", tmp_path) == ["303"] * 5 + ["0303", "x"]


def test_a_row_must_say_whom_it_is_of(tmp_path):
    source = column("who", ["a", None, " ", "b"])
    with pytest.raises(DataError, match="each row needs a group") as caught:
        groups.of_rows(source, "who", tmp_path)
    assert [str(problem) for problem in caught.value.problems] == [
        f"rows row {row}, column 'who': group is empty" for row in (2, 3)
    ]
    with pytest.raises(DataError, match="rows has no column 'whom'; near it: 'who'"):
        groups.of_rows(source, "whom", tmp_path)


def test_nobody_may_be_in_two_splits(tmp_path):
    whole = column("who", ["a", "b", "c", "a", "d", "b", "b"], name="all.csv")

    def check(**rows):
        splits = {name: Subset(whole, np.array(chosen)) for name, chosen in rows.items()}
        groups.require_apart(splits, "who", tmp_path)

    check(train=[0, 3], val=[1, 5, 6], test=[2, 4])
    expected = "who 'a': all.csv row 1 is in train, all.csv row 4 in test. Move the rows"
    with pytest.raises(DataError, match=f"1 group has rows in two splits.*{re.escape(expected)}"):
        check(train=[0, 1, 5, 6], val=[2], test=[3])
    with pytest.raises(DataError, match="2 groups have rows in two splits"):
        check(train=[0, 1], val=[5, 6], test=[3])


def test_other_files_are_other_splits(tmp_path):
    splits = {
        "train": column("who", [1, 2], name="a.csv"),
        "test": column("who", ["2"], name="b.csv"),
    }
    with pytest.raises(DataError, match=r"a\.csv row 2 is in train, b\.csv row 1 in test"):
        groups.require_apart(splits, "who", tmp_path)
