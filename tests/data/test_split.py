import random

import numpy as np
import pytest

from jfusion.data import table, targets
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError
from jfusion.data.sequence import SequenceInput
from jfusion.data.split import prepare_split
from jfusion.data.targets import ClassColumn, EmbeddingColumn, LabelColumn, NumberColumn
from jfusion.data.text import TextInput, Vocabulary
from tests.data.rows import Rows
from tests.standins.tables import BAD, BAD_POSTERS, NEVER_USED, ROWS, write, write_pictures

GENRES = LabelColumn("genres", "|", ("Comedy", "Drama"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of pictures, good and bad, with another one beside it."""
    folder = tmp_path_factory.mktemp("tables") / "data"
    folder.mkdir()
    write_pictures(folder)
    return folder


def readers(max_tokens=8):
    return {
        "plot": TextInput("plot", Vocabulary.fit(["a heist"], 10), max_tokens=max_tokens),
        "poster": ImageInput("poster", size=16),
    }


def prepare(folder, on_error, targets=True, names=tuple(ROWS)):
    path = write(folder / "movies.csv", names)
    source = table.read(path, pictures=["poster"], id_column="id")
    targets = {"genres": GENRES} if targets else None
    return prepare_split(source, readers(), targets, on_error=on_error)


def names_of(split, rows):
    return [list(ROWS)[row] for row in rows]


def test_every_bad_cell_is_named_with_file_row_column_and_reason(folder):
    with pytest.raises(DataError) as caught:
        prepare(folder, "raise")
    problems = caught.value.problems
    assert [problem.row for problem in problems] == [
        f"row {row + 1} (id {'fine' if name == 'repeated id' else name})"
        for row, name in enumerate(ROWS)
        if name in BAD
    ]
    columns = {"unknown label": "genres", "empty label": "genres", "repeated id": "id"}
    columns["nothing"] = "plot, poster"
    for name, problem in zip(BAD, problems, strict=True):
        assert problem.file == str(folder / "movies.csv")
        assert problem.column == columns.get(name, "poster")
        assert problem.reason.startswith(ROWS[name][3])
    message = str(caught.value)
    assert message.startswith("12 bad cells in the data; mend them, or set data.on_error to")
    assert (
        f"{folder / 'movies.csv'} row 5 (id zero bytes), column 'poster': 'empty.png' h" in message
    )


@pytest.mark.parametrize("name", BAD)
def test_each_bad_cell_alone_ends_a_run_that_is_to_raise(folder, name):
    names = ["fine", name]
    with pytest.raises(DataError) as caught:
        prepare(folder, "raise", names=names)
    (problem,) = caught.value.problems
    assert problem.reason.startswith(ROWS[name][3])
    assert str(caught.value).startswith("1 bad cell in the data")


def test_missing_takes_bad_cells_for_absent_ones(folder):
    split = prepare(folder, "missing")
    kept = [name for name in ROWS if name not in NEVER_USED]
    assert names_of(split, split.keep) == kept
    absent = [name for row, name in enumerate(ROWS) if not split.present["poster"][row]]
    assert absent == ["no poster", *BAD_POSTERS, "nothing", "bad alone"]
    assert split.counts() == {"ok": 2, "missing": 2 + len(BAD_POSTERS), "skipped": 5}
    assert len(split.problems) == len(BAD)
    assert not split.inputs["poster"]["pixels"][~split.present["poster"]].any()
    assert (split.inputs["plot"]["length"][split.present["plot"]] == 4).all()


def test_skip_leaves_rows_with_bad_cells_out(folder):
    split = prepare(folder, "skip")
    assert names_of(split, split.keep) == ["fine", "no plot", "no labels", "no poster"]
    assert split.counts() == {"ok": 2, "missing": 2, "skipped": len(BAD)}
    assert len(split.problems) == len(BAD)


def test_labels_become_zeros_and_ones(folder):
    targets = prepare(folder, "missing").targets["genres"]
    assert targets.dtype == np.float32
    assert targets[:4].tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]
    for name in ("unknown label", "empty label"):
        assert not targets[list(ROWS).index(name)].any()


def test_every_row_has_a_status(folder):
    split = prepare(folder, "missing", targets=False)
    status = {name: split.status(row) for row, name in enumerate(ROWS)}
    for name in ("fine", "no labels", "unknown label", "empty label"):
        assert status[name] == "ok"
    assert status["no plot"] == "missing: plot"
    assert status["no poster"] == "missing: poster"
    assert status["zero bytes"] == "missing: poster ('empty.png' has zero bytes)"
    assert status["nothing"] == "bad: plot, poster: every input of the row is empty"
    assert status["bad alone"] == "bad: poster: 'empty.png' has zero bytes"
    assert status["repeated id"].startswith("bad: id: id 'fine' is already")
    assert split.targets == {}
    skipped = prepare(folder, "skip", targets=False)
    assert skipped.status(list(ROWS).index("absent")).startswith("bad: poster: no file")


@pytest.mark.parametrize("on_error", ["raise", "missing", "skip"])
def test_the_second_time_bad_cells_are_known_without_reading_them(folder, on_error, monkeypatch):
    def act():
        try:
            split = prepare(folder, on_error)
            return split.keep.tolist(), split.problems, split.counts()
        except DataError as error:
            return str(error), error.problems

    first = act()
    monkeypatch.setattr(ImageInput, "encode", None)
    monkeypatch.setattr(TextInput, "encode", None)
    monkeypatch.setattr(targets, "parse_labels", lambda cell, delimiter: 1 / 0)
    assert act() == first


@pytest.mark.parametrize("on_error", ["missing", "skip"])
@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_counted_once(tmp_path, folder, on_error, seed):
    names = random.Random(seed).choices(list(ROWS), k=40)
    path = write(tmp_path / "movies.csv", names)
    source = table.read(path, root=folder, pictures=["poster"], id_column="id" if seed else "")
    split = prepare_split(source, readers(), {"genres": GENRES}, on_error=on_error)
    counts = split.counts()
    assert sum(counts.values()) == len(source) == 40
    states = [split.status(row) for row in range(40)]
    kept = set(split.keep.tolist())
    assert counts["skipped"] == sum(state.startswith("bad: ") for state in states) == 40 - len(kept)
    assert counts["missing"] == sum(state.startswith("missing: ") for state in states)
    assert counts["ok"] == states.count("ok")
    assert all((row in kept) == (not state.startswith("bad")) for row, state in enumerate(states))


def test_one_modality_may_be_all_there_is(folder):
    path = write(folder / "one.csv", ROWS)
    source = table.read(path, pictures=["poster"])
    split = prepare_split(source, {"poster": readers()["poster"]}, on_error="missing")
    usable = ["fine", "no plot", "no labels", "unknown label", "empty label", "repeated id"]
    assert names_of(split, split.keep) == usable
    assert split.counts() == {"ok": 6, "missing": 0, "skipped": 10}
    assert split.status(3) == "bad: poster: every input of the row is empty"
    assert split.notes == {"poster": {}}


def test_targets_of_one_column_report_a_bad_cell_once(tmp_path):
    cells = [("a b", 3), ("a", None), ("b", "25"), ("a", "ten"), ("b", 24), (None, "x")]
    source = Rows([{"plot": plot, "phq8": phq8, "who": "p"} for plot, phq8 in cells])
    targets = {
        "score": NumberColumn("phq8", (0, 24)),
        "depressed": ClassColumn("phq8", ("no", "yes"), 10.0),
        "likeness": EmbeddingColumn("phq8", 10.0, "who"),
    }
    inputs = {"plot": readers()["plot"]}
    split = prepare_split(source, inputs, targets, on_error="missing", cache_dir=tmp_path)
    assert [(problem.row, problem.column, problem.reason) for problem in split.problems] == [
        ("row 2", "phq8", "number is empty"),
        ("row 3", "phq8", "25 is not within 0 to 24"),
        ("row 4", "phq8", "'ten' is not a number"),
        ("row 6", "phq8", "'x' is not a number"),
    ]
    assert split.keep.tolist() == [0, 4]
    assert split.status(3) == "bad: phq8: 'ten' is not a number"
    assert split.targets["score"][split.keep].tolist() == [[3], [24]]
    assert split.targets["depressed"][split.keep].tolist() == [0, 1]
    assert len(set(split.targets["likeness"][split.keep, 0])) == 2


def test_a_target_without_a_column_needs_none(tmp_path):
    source = Rows([{"plot": "a", "who": "p"}, {"plot": "b", "who": None}])
    inputs = {"plot": readers()["plot"]}
    split = prepare_split(source, inputs, {"likeness": EmbeddingColumn()}, cache_dir=tmp_path)
    assert split.targets["likeness"].tolist() == [[-1, 0], [-1, 1]]
    subjects = {"likeness": EmbeddingColumn(subject_column="whom")}
    with pytest.raises(DataError, match="rows has no column 'whom'; near it: 'who'"):
        prepare_split(source, inputs, subjects, cache_dir=tmp_path)


def test_sequences_are_read_beside_the_others(tmp_path):
    holes = np.array([[np.nan, 1], [np.inf, 3]])
    cells = [np.ones((3, 2)), None, np.ones((3, 3)), holes]
    source = Rows([{"plot": "a b", "audio": cell} for cell in cells])
    inputs = {
        "plot": readers()["plot"],
        "audio": SequenceInput("audio", pick=[0, 1], total=2, steps=4, mean=[1, 1], std=[2, 2]),
    }
    split = prepare_split(source, inputs, on_error="missing", cache_dir=tmp_path)
    assert split.present["audio"].tolist() == [True, False, False, True]
    assert split.counts() == {"ok": 2, "missing": 2, "skipped": 0}
    assert split.status(2) == "missing: audio (expected frames of 2 features, got 3)"
    assert split.inputs["audio"]["frames"][3].tolist() == [[0, 0], [0, 1], [0, 0], [0, 0]]
    assert split.notes["audio"]["infinite"].tolist() == [0, 0, 0, 1]
    assert split.notes["audio"]["valid"].tolist() == [1, 0, 0, 0.5]
    assert split.notes["plot"]["used"].tolist() == [1] * 4


def test_a_source_without_rows_is_an_error():
    class Empty:
        name, fingerprint, root = "empty", "0", None

        def __len__(self):
            return 0

    with pytest.raises(DataError, match="empty has no rows"):
        prepare_split(Empty(), readers())
