import numpy as np
import pytest

from jfusion.data.problems import Problem
from jfusion.data.source import Joined, Source, Stretch, Subset
from tests.data.rows import column


def parts():
    return [
        column("n", [0, 1], name="a.csv", features={"audio": ("f0",)}, bad_rows={1: ("n", "odd")}),
        column("n", [2], name="b.csv"),
        column("n", [3, 4, 5], name="c.csv", bad_rows={0: ("n", "odd"), 2: ("n", "odd")}),
    ]


def test_joined_sources_are_a_source():
    joined = Joined(parts(), None)
    assert isinstance(joined, Source)
    assert [joined[row]["n"] for row in range(len(joined))] == [0, 1, 2, 3, 4, 5]
    assert joined.bad_rows == {row: ("n", "odd") for row in (1, 3, 5)}
    assert joined.locate(2) == "b.csv row 1" and joined.locate(5) == "c.csv row 3"
    assert joined.features == {"audio": ("f0",)}
    for row in (-1, 6):
        with pytest.raises(IndexError):
            joined[row]


def test_a_problem_is_that_of_the_part():
    joined = Joined(parts(), None)
    problem = Problem.at(joined, 4, "n", "odd")
    assert str(problem) == "c.csv row 2, column 'n': odd"
    part = Subset(joined, np.array([2, 4]))
    assert part.locate(1) == "c.csv row 2" and part.features == joined.features


def test_the_fingerprint_is_that_of_all_parts_in_order():
    made = {Joined(order, None).fingerprint for order in (parts(), parts()[:2], parts()[::-1])}
    assert len(made) == 3 and Joined(parts(), None).fingerprint in made


def test_a_stretch_knows_its_own_rows_only():
    whole = Joined(parts(), None)
    stretch = Stretch(whole, 1, 4)
    assert isinstance(stretch, Source)
    assert [stretch[row]["n"] for row in range(len(stretch))] == [1, 2, 3]
    assert stretch.bad_rows == {0: ("n", "odd"), 2: ("n", "odd")}
    assert stretch.locate(1) == "b.csv row 1" and stretch.features == whole.features
    others = [whole, Stretch(whole, 1, 5), Stretch(whole, 0, 3), Stretch(parts()[2], 1, 4)]
    assert stretch.fingerprint == Stretch(whole, 1, 4).fingerprint
    assert stretch.fingerprint not in {other.fingerprint for other in others}


def test_a_subset_without_names_of_features_has_none():
    assert Subset(parts()[1], np.array([0])).features == {}
