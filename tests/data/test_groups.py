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


def test_rows_that_share_any_key_are_one_group():
    titles = ["a", "b", "a", None, "c", None, "d"]
    pictures = [None, 1, 2, 2, 3, 4, 3]
    names = groups.unite(titles, pictures)
    assert list(groups.members(names).values()) == [[0, 2, 3], [1], [4, 6], [5]]
    assert len(set(groups.unite([None] * 3))) == 3  # nobody's rows are not each other's
    assert groups.unite([]) == []


def test_components_of_a_graph_are_found_over_long_ways():
    chain = np.stack([np.arange(0, 998), np.arange(2, 1000)], axis=1)[::-1]
    numbers = groups.connected(1001, chain)
    assert len(set(numbers[:1000:2].tolist())) == len(set(numbers[1:1000:2].tolist())) == 1
    assert len(set(numbers.tolist())) == 3
    assert groups.connected(2, np.zeros((0, 2), np.int64)).tolist() == [0, 1]


def test_groups_are_dealt_whole_to_parts_alike():
    rng = np.random.default_rng(0)
    names = [str(name) for name in rng.integers(0, 900, 1000)]
    strata = [str(kind) for kind in rng.choice(4, 1000, p=[0.1, 0.2, 0.3, 0.4])]
    parts = groups.deal(names, strata, 10, seed=3)
    assert np.bincount(parts).tolist() == [100] * 10
    assert all(len(set(parts[rows].tolist())) == 1 for rows in groups.members(names).values())
    kinds = np.array(strata)
    for kind, share in zip("0123", (0.1, 0.2, 0.3, 0.4), strict=True):
        counts = np.bincount(parts[kinds == kind], minlength=10)
        assert np.abs(counts - 100 * share).max() < 14, (kind, counts)
    assert (parts != groups.deal(names, strata, 10, seed=4)).any()
