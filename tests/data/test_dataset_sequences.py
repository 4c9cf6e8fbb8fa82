"""Tables and samples with sequences, numbers, groups and folds, as a config asks for them."""

import dataclasses
import re
import types

import numpy as np
import pytest

from jfusion import config as schema
from jfusion.data import dataset, notes, pipeline
from jfusion.data.problems import DataError
from jfusion.data.sequence import SequenceInput
from tests.data.rows import Rows

TARGETS = {
    "score": schema.Regression("phq8", limits=(0, 24)),
    "depressed": schema.Classes("phq8", cut=(10.0,)),
    "likeness": schema.Embedding("phq8", positives="class", cut=(10.0,), subject_column="who"),
}


def experiment(inputs=("words", "audio"), targets=("score",), network="mean_pool", **data):
    parts = {
        "words": schema.Text(schema.Encoder("bert"), "words", max_tokens=4, windows=2),
        "audio": schema.Frames(schema.Encoder(network), "audio", steps=5),
        "video": schema.Frames(schema.Encoder("mean_pool"), "video", steps=5, features=("b",)),
    }
    return schema.Config(
        inputs={name: parts[name] for name in inputs},
        targets={name: TARGETS[name] for name in targets},
        train=schema.Train(phases=(schema.Phase(1),), monitor="loss"),
        data=schema.Data(**data),
    )


@pytest.fixture
def folder(tmp_path):
    """A table of 40 interviews of 20 people, with frames in files."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    lines = ["id,who,words,audio,phq8,split"]
    for i in range(40):
        frames = rng.normal(i, 2, size=(3 + i, 3))
        frames[0, 0] = np.inf if i == 4 else np.nan
        np.save(tmp_path / "audio" / f"{i}.npy", frames)
        split = ("train", "train", "val", "test")[i % 20 % 4]
        lines.append(f"{i},{300 + i % 20},a b c d e,audio/{i}.npy,{i % 25},{split}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def replaced(folder, old, new):
    path = folder / "table.csv"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def load(folder, targets=("score",), **data):
    data = {"path": str(folder / "table.csv"), "cache_dir": str(folder / "cache")} | data
    return dataset.load(experiment(targets=targets, **data), {})


def test_a_table_with_sequences_and_every_kind_of_number(folder):
    loaded = load(folder, tuple(TARGETS), split_column="split", group_column="who")
    assert loaded.labels == {"score": (), "depressed": ("no", "yes"), "likeness": ()}
    assert loaded.inputs["audio"].width == 3 and loaded.best_possible == {}
    assert {name: len(split) for name, split in loaded.splits.items()} == {
        "train": 20,
        "val": 10,
        "test": 10,
    }
    for batch in pipeline.batches(loaded.splits["test"], 4, shuffle=False):
        real = batch["weight"] == 1
        scores = batch["row"][real] % 25
        assert batch["inputs"]["audio"]["frames"].shape == (4, 5, 3)
        assert batch["inputs"]["words"]["ids"].shape == (4, 2, 4)
        assert batch["targets"]["score"][real, 0].tolist() == scores.tolist()
        assert batch["targets"]["depressed"][real].tolist() == (scores >= 10).tolist()
        same = batch["targets"]["likeness"][real, 0]
        np.testing.assert_array_equal(
            same[:, None] == same[None], (scores >= 10)[:, None] == (scores >= 10)[None]
        )
    who = loaded.splits["train"].targets["likeness"][:, 1]
    np.testing.assert_array_equal(who, np.arange(40) % 20)


def test_scalers_are_fitted_on_the_training_split_only(folder):
    spec = load(folder, split_column="split").inputs["audio"].spec()
    train = [i for i in range(40) if i % 20 % 4 < 2]
    frames = np.concatenate([np.load(folder / "audio" / f"{i}.npy") for i in train])
    frames = np.where(np.isfinite(frames), frames, np.nan).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(spec["mean"], np.nanmean(frames, 0), rtol=1e-6)
    np.testing.assert_allclose(spec["std"], np.nanstd(frames, 0), rtol=1e-6)


def test_what_was_cut_and_masked_is_told(folder):
    loaded = load(folder, split_column="split")
    said = notes.lines(loaded.splits["train"], loaded.inputs)
    assert said[0] == "words: 20 of 20 rows cut to 2 windows of 4 tokens (60 % of their text used)"
    assert re.fullmatch(
        r"audio: 1 infinite values masked in 1 rows; 9\d % of the values k.*", said[1]
    )


def test_a_changed_file_of_frames_is_read_again(folder):
    first = load(folder, split_column="split").inputs["audio"].spec()
    np.save(folder / "audio" / "0.npy", np.full((90, 3), 1000.0))
    assert load(folder, split_column="split").inputs["audio"].spec()["mean"] != first["mean"]


def test_bad_sequences_and_numbers_are_bad_cells(folder):
    replaced(folder, "audio/3.npy,3,", "audio/nothing.npy,thirty,")
    replaced(folder, "audio/5.npy,5,", "../table.csv,55,")
    with pytest.raises(DataError) as caught:
        load(folder, tuple(TARGETS), split_column="split")
    reasons = {(problem.row, problem.column): problem.reason for problem in caught.value.problems}
    assert len(caught.value.problems) == 4 == len(reasons)
    assert reasons["row 4", "audio"].startswith("no file 'audio/nothing.npy'")
    assert reasons["row 6", "audio"].startswith("'../table.csv' is outside")
    assert reasons["row 4", "phq8"] == "'thirty' is not a number"
    assert reasons["row 6", "phq8"] == "55 is not within 0 to 24"


def test_nobody_is_in_two_splits(folder):
    replaced(folder, "24,304,", "24,303,")  # whose other interviews are in the test split
    load(folder, split_column="split")
    expected = r"who '303': .*row 25 is in train, .*row 4 in test"
    with pytest.raises(DataError, match=expected):
        load(folder, split_column="split", group_column="who")
    drawn = load(folder, group_column="who")
    who = [
        {split.source[row]["who"] for row in split.rows.tolist()} for split in drawn.splits.values()
    ]
    assert sum(map(len, who)) == len(set.union(*who)) == 20


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_test_split_without_answers_is_told_from_bad_cells(folder, on_error):
    path = folder / "table.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    tested = [line for line in lines if line[5] == "test"]
    for line in tested:
        line[4] = ""
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=r"column 'phq8' is empty in every row of test.*folds=5"):
        load(folder, tuple(TARGETS), split_column="split", on_error=on_error)
    folded = load(folder, tuple(TARGETS), split_column="split", fold=(0, 4))
    assert sum(len(split) for split in folded.splits.values()) == 40 - len(tested)
    tested[0][4] = "7"
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    if on_error == "skip":
        assert len(load(folder, split_column="split", on_error="skip").splits["test"]) == 1
    else:
        with pytest.raises(DataError, match="9 bad cells"):
            load(folder, split_column="split")


def test_folds_take_turns_and_keep_groups_together(folder):
    replaced(folder, "audio/7.npy,7,", "audio/7.npy,,")  # without a score
    tested = []
    for k in range(4):
        loaded = load(folder, tuple(TARGETS), split_column="split", group_column="who", fold=(k, 4))
        rows = [split.rows for split in loaded.splits.values()]
        assert sorted(np.concatenate(rows).tolist()) == [row for row in range(40) if row != 7]
        who = [{row % 20 for row in part.tolist()} for part in rows]
        assert sum(map(len, who)) == 20
        tested += loaded.splits["test"].keep.tolist()
    assert sorted(tested) == [row for row in range(40) if row != 7]


def test_a_fold_is_opened_again_as_it_was(folder):
    data = schema.Data(path=str(folder / "table.csv"), cache_dir=str(folder / "cache"), fold=(1, 4))
    config = dataclasses.replace(experiment(source="movies"), data=data, seed=3)
    loaded = dataset.load(config, {})
    targets = [dataset.target_of(section) for section in config.targets.values()]
    with pytest.raises(ValueError, match="folds depend on the targets"):
        dataset.open_sources(data, loaded.inputs.values(), 3)
    opened = dataset.open_sources(data, loaded.inputs.values(), 3, targets)
    for name, split in loaded.splits.items():
        np.testing.assert_array_equal(opened[name].rows, split.rows)


def test_columns_that_are_paths_are_known(folder):
    inputs = load(folder, split_column="split").inputs
    assert dataset.path_columns(inputs.values()) == ["audio"]
    assert dataset.path_columns(experiment(source="movies").inputs.values()) == ["audio"]


def test_an_input_comes_back_from_its_spec(folder):
    reader = load(folder, split_column="split").inputs["audio"]
    again = dataset.input_from_spec(reader.spec(), folder, "audio")
    assert isinstance(again, SequenceInput) and again.spec() == reader.spec()


def sample(split, count, best):
    """A split of a data set that names its features, and how well it can be read."""
    rng = np.random.default_rng(count)
    rows = [
        {
            "words": "a b" if i % 3 else None,
            "audio": rng.normal(size=(8, 4)).astype(np.float32),
            "video": rng.normal(size=(8, 2)).astype(np.float32),
            "who": f"{split}-{i}",
            "phq8": float(i % 25),
        }
        for i in range(count)
    ]
    features = {"audio": tuple("wxyz"), "video": ("a", "b")}
    source = Rows(rows, name=f"sample/{split}", features=features)
    source.best = best
    return source


@pytest.fixture
def asked(monkeypatch):
    """Stands a data set in for those that jfusion has; lists what it was asked."""
    asked = []

    def sources(where, cache_dir=""):
        asked.append((where, cache_dir))
        sizes = {"train": (20, 1.0), "val": (6, 2.0), "test": (9, 3.0)}
        return {name: sample(name, *size) for name, size in sizes.items()}

    def best_possible(source, columns, rows, order=True):
        asked.append((source.name, list(columns), list(rows), order))
        return {"rmse": source.best}

    module = types.SimpleNamespace(sources=sources, best_possible=best_possible)
    monkeypatch.setattr(dataset, "_data_set", lambda name: module)
    return asked


@pytest.mark.parametrize(
    ("source", "data"), [("interviews", {"rows": 35}), ("daic_woz", {"path": "p"})]
)
def test_data_sets_with_sequences(asked, tmp_path, source, data):
    config = experiment(("audio", "video"), source=source, cache_dir=str(tmp_path), **data)
    loaded = dataset.load(config, {})
    assert asked[0] == ((35, "") if source == "interviews" else ("p", str(tmp_path)))
    assert loaded.inputs["audio"].spec()["features"] == list("wxyz")
    assert loaded.inputs["video"].spec()["pick"] == [1]
    assert loaded.best_possible == ({"rmse": 3.0} if source == "interviews" else {})
    video = schema.Frames(schema.Encoder("mean_pool"), "video", features=("c",))
    config = dataclasses.replace(config, inputs={"video": video})
    with pytest.raises(DataError, match="column 'video' has no feature 'c'; there are: 'a', 'b'"):
        dataset.load(config, {})


def test_the_best_possible_score_depends_on_what_is_read(asked, tmp_path):
    options = {"source": "interviews", "cache_dir": str(tmp_path)}
    dataset.load(experiment(("words",), on_error="skip", **options), {})
    assert asked[-1] == ("sample/test", ["words"], [1, 2, 4, 5, 7, 8], False)
    dataset.load(experiment(("audio", "video"), **options), {})
    assert asked[-1] == ("sample/test", ["audio", "video"], list(range(9)), False)
    loaded = dataset.load(experiment(targets=TARGETS, network="temporal_cnn", **options), {})
    assert asked[-1] == ("sample/test", ["words", "audio"], list(range(9)), True)
    assert loaded.best_possible == {"score/rmse": 3.0}
    depressed = experiment(targets=("depressed",), **options)
    assert dataset.load(depressed, {}).best_possible == {}


def test_the_best_possible_score_of_a_fold_is_that_of_its_rows(asked, tmp_path):
    options = {"source": "interviews", "cache_dir": str(tmp_path), "group_column": "who"}
    loaded = dataset.load(experiment(fold=(2, 5), **options), {})
    parts = {name: (len(rows), name) for name, _, rows, _ in asked[1:]}
    assert len(parts) > 1 and sum(count for count, _ in parts.values()) == 7
    best = {"sample/train": 1.0, "sample/val": 2.0, "sample/test": 3.0}
    squares = sum(count * best[name] ** 2 for count, name in parts.values())
    assert loaded.best_possible["rmse"] == pytest.approx((squares / 7) ** 0.5)
    for name, split in loaded.splits.items():
        assert len(split) == {"train": 21, "val": 7, "test": 7}[name]
