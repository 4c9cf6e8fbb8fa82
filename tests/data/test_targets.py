import numpy as np
import pytest

from jfusion.config import Classes, Embedding, MultiLabel, Regression
from jfusion.data import targets
from jfusion.data.problems import DataError
from jfusion.data.source import Subset
from jfusion.data.targets import (
    ClassColumn,
    EmbeddingColumn,
    LabelColumn,
    NumberColumn,
    labels_of,
    target_of,
)
from tests.data.rows import Rows, column


def test_labels_become_zeros_and_ones(tmp_path):
    source = column("genres", ["a|b", [], None, "c", ["b"], 5.5])
    values, bad = LabelColumn("genres", "|", ("a", "b")).encode(source, tmp_path)
    assert values.dtype == np.float32
    assert values.tolist() == [[1, 1], [0, 0], [0, 0], [0, 0], [0, 1], [0, 0]]
    assert bad == {
        2: "label is empty; write [] for a row without labels",
        3: "unknown label 'c'; there are: 'a', 'b'",
        5: "5.5 in the label cell is no name (a text)",
    }


def test_a_class_is_one_of_the_names(tmp_path):
    source = column("kind", ["toy", " book ", "boook", None, "", 7, 1.5, True, ["toy"]])
    values, bad = ClassColumn("kind", ("book", "toy", "7")).encode(source, tmp_path)
    assert values.dtype == np.int32 and values.shape == (9,)
    assert values.tolist() == [1, 0, 0, 0, 0, 2, 0, 0, 0]
    assert bad[2] == "unknown label 'boook'; near it: 'book'"
    assert bad[3] == bad[4] == "label is empty"
    assert set(bad) == {2, 3, 4, 6, 7, 8}


def test_a_cut_makes_two_classes_of_numbers(tmp_path):
    source = column("phq8", [0, 9, "10", 10.0, 24, 9.999, None, "ten", float("nan")])
    values, bad = ClassColumn("phq8", ("no", "yes"), 10.0).encode(source, tmp_path)
    assert values.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0] and values.dtype == np.int32
    assert bad == {6: "number is empty", 7: "'ten' is not a number", 8: "number is empty"}


@pytest.mark.parametrize(
    ("cell", "number"),
    [(3, 3), (2.5, 2.5), (" -7.5e-1 ", -0.75), (np.float32(1.5), 1.5), (np.int64(4), 4), ("0", 0)],
)
def test_numbers_and_texts_of_numbers_are_numbers(tmp_path, cell, number):
    values, bad = NumberColumn("phq8").encode(column("phq8", [cell]), tmp_path)
    assert values.dtype == np.float32 and values.tolist() == [[number]] and not bad


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "number is empty"),
        ("  ", "number is empty"),
        (float("nan"), "number is empty"),
        ("nan", "'nan' is not a finite number, or too large for float32"),
        (float("inf"), "inf is not a finite number, or too large for float32"),
        ("-1e39", "'-1e39' is not a finite number, or too large for float32"),
        (10**400, "is not a number"),
        ("1,5", "'1,5' is not a number"),
        ("n/a", "'n/a' is not a number"),
        (True, "True is not a number"),
        ([3], "[3] is not a number"),
        (b"3", "b'3' is not a number"),
        (-0.5, "-0.5 is not within 0 to 24"),
        ("25", "25 is not within 0 to 24"),
    ],
)
def test_what_is_no_number_is_bad(tmp_path, cell, reason):
    source = column("phq8", [3, cell, 24])
    values, bad = NumberColumn("phq8", (0, 24)).encode(source, tmp_path)
    assert values.tolist() == [[3], [0], [24]]
    assert set(bad) == {1} and bad[1].endswith(reason)


def test_an_embedding_has_a_class_and_a_subject(tmp_path):
    cells = [("b", 303), ("a", "304"), ("b", 303.0), ("c", None), (None, "305"), ("a", "")]
    source = Rows([{"kind": kind, "who": who} for kind, who in cells])
    both = EmbeddingColumn("kind", subject_column="who")
    assert both.columns == ("kind", "who") and both.column == "kind"
    values, bad = both.encode(source, tmp_path)
    assert values.dtype == np.int32 and values.shape == (6, 2)
    kinds, who = values.T.tolist()
    assert bad == {4: "label is empty"}
    assert kinds[0] == kinds[2] and kinds[1] == kinds[5]
    assert len({kinds[0], kinds[1], kinds[3]}) == 3 and min(kinds) == 0
    assert who[0] == who[2]
    assert len({who[0], who[1], who[3], who[5]}) == 4  # a row of nobody is nobody else's


def test_an_embedding_needs_no_column_at_all(tmp_path):
    made = EmbeddingColumn()
    assert made.columns == () and made.column == ""
    values, bad = made.encode(column("x", "abc"), tmp_path)
    assert values.tolist() == [[-1, 0], [-1, 1], [-1, 2]] and not bad


def test_an_embedding_may_have_the_classes_of_a_cut(tmp_path):
    values, bad = EmbeddingColumn("phq8", 10.0).encode(column("phq8", [12, 3, 4, 10]), tmp_path)
    assert values[:, 0].tolist() == [0, 1, 1, 0] and not bad


def test_sections_name_their_columns():
    assert target_of(MultiLabel("g", delimiter=","), ("a",)) == LabelColumn("g", ",", ("a",))
    assert target_of(MultiLabel("g", labels=("b",))) == LabelColumn("g", "|", ("b",))
    assert target_of(Classes("k"), ("a", "b")) == ClassColumn("k", ("a", "b"))
    assert target_of(Classes("n", cut=(10.0,))) == ClassColumn("n", ("no", "yes"), 10.0)
    named = Classes("n", cut=(10.0,), labels=("low", "high"))
    assert target_of(named) == ClassColumn("n", ("low", "high"), 10.0)
    assert target_of(Regression("n", limits=(0, 24))) == NumberColumn("n", (0, 24))
    section = Embedding("n", positives="both", cut=(0.0,), subject_column="who")
    assert target_of(section) == EmbeddingColumn("n", 0.0, "who")
    assert target_of(Embedding()).columns == ()


def test_names_are_those_of_the_section_or_of_the_training_split(tmp_path):
    source = Rows([{"g": "b|a", "k": "z", "n": 3}, {"g": "c|", "k": 1, "n": 4}, {"k": None}])
    train = Subset(source, np.array([0, 2]))
    assert labels_of(MultiLabel("g"), train, tmp_path) == ("a", "b")
    assert labels_of(MultiLabel("g", labels=("x",)), train, tmp_path) == ("x",)
    assert labels_of(Classes("k"), source, tmp_path) == ("1", "z")
    assert labels_of(Classes("k", labels=("q", "p")), source, tmp_path) == ("q", "p")
    assert labels_of(Classes("n", cut=(3.5,)), train, tmp_path) == ("no", "yes")
    assert labels_of(Regression("n"), train, tmp_path) == ()
    assert labels_of(Embedding("k", positives="class"), train, tmp_path) == ()
    with pytest.raises(DataError, match="rows has no label in column 'k'"):
        labels_of(Classes("k"), Subset(source, np.array([2])), tmp_path)


def test_cells_are_read_once(tmp_path, monkeypatch):
    source = column("phq8", [3, "x", 24])
    first = NumberColumn("phq8").encode(source, tmp_path)
    reads = source.reads
    ClassColumn("phq8", ("no", "yes"), 10.0).encode(source, tmp_path)
    EmbeddingColumn("phq8", 10.0).encode(source, tmp_path)
    part = Subset(source, np.array([1, 2]))
    monkeypatch.setattr(targets, "parse_number", None)
    values, bad = NumberColumn("phq8").encode(part, tmp_path)
    assert values.tolist() == [[0], [24]] and bad == {0: first[1][1]}
    assert source.reads == reads == 3
