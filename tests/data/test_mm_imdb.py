import io
import json
import shutil
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from jfusion.data.builders import mm_imdb, mm_imdb_archive
from jfusion.data.problems import DataError
from jfusion.data.source import Source
from tests.standins import mm_imdb as standin


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """(folder with split.json, oddity -> id)."""
    folder = tmp_path_factory.mktemp("archive") / "mmimdb"
    return folder, standin.write(folder)


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    """(data_dir, the builder)."""
    data_dir = tmp_path_factory.mktemp("tfds")
    return data_dir, mm_imdb.build(archive[0], data_dir)


@pytest.fixture(scope="module")
def splits(built):
    return mm_imdb.sources(built[0])


@pytest.fixture(scope="module")
def odd(archive, splits):
    """Oddity -> the built row that has it."""
    rows = {
        row["id"]: row
        for source in splits.values()
        for row in map(source.__getitem__, range(len(source)))
    }
    return {oddity: rows[movie_id] for oddity, movie_id in archive[1].items()}


@pytest.fixture
def broken(archive, tmp_path):
    """A copy of the archive, to be broken."""
    return shutil.copytree(archive[0], tmp_path / "mmimdb")


def _metadata(folder, movie_id):
    return json.loads((folder / "dataset" / f"{movie_id}.json").read_text())


def test_no_tensorflow_is_imported(splits):
    assert splits["train"][0]["id"]
    assert "tensorflow" not in sys.modules


def test_splits_are_those_of_the_archive_in_its_order(archive, splits):
    listed = json.loads((archive[0] / "split.json").read_text())
    assert list(splits) == ["train", "val", "test"]
    for split, source in splits.items():
        assert isinstance(source, Source)
        ids = [source[row]["id"] for row in range(len(source))]
        assert ids == listed["dev" if split == "val" else split]
        assert all(len(movie_id) == 7 for movie_id in ids)
    assert any(movie_id.startswith("0") for movie_id in listed["train"])


def test_cells_are_those_of_the_archive(archive, splits):
    dataset = archive[0] / "dataset"
    for source in splits.values():
        for index in range(len(source)):
            row = source[index]
            metadata = _metadata(archive[0], row["id"])
            poster = dataset / f"{row['id']}.jpeg"
            assert (row["poster"] or b"") == (poster.read_bytes() if poster.exists() else b"")
            longest = max(metadata.get("plot", []), key=len, default="").strip()
            assert (row["plot"] or "") == longest.replace("\ud83d", "?")
            assert set(row["genres"]) == set(metadata["genres"]) & set(mm_imdb.LABELS)


def test_rows_are_found_by_position_and_id(archive, splits):
    test = splits["test"]
    first = json.loads((archive[0] / "split.json").read_text())["test"][0]
    assert test.locate(0) == f"mm_imdb/test row 1 (id {first})"
    with pytest.raises(IndexError, match=f"no row {len(test) + 1}"):
        test[len(test)]
    with pytest.raises(IndexError):
        test[-1]


def test_threads_read_the_same_rows(splits):
    train = splits["train"]
    order = list(range(len(train))) * 20
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(train.__getitem__, order))
    assert [row["id"] for row in rows] == [train[index]["id"] for index in order]


@pytest.mark.parametrize(
    ("oddity", "form", "mode"),
    [
        ("grey", "JPEG", "L"),
        ("cmyk", "JPEG", "CMYK"),
        ("palette_png", "PNG", "P"),
        ("transparent_png", "PNG", "RGBA"),
        ("gif", "GIF", "P"),
        ("huge", "JPEG", "RGB"),
    ],
)
def test_odd_posters_pass_through(odd, oddity, form, mode):
    picture = Image.open(io.BytesIO(odd[oddity]["poster"]))
    assert (picture.format, picture.mode) == (form, mode)
    if oddity == "huge":
        assert picture.size == (3000, 4500)


def test_absent_modalities_are_empty_cells(odd):
    for oddity in ("no_poster", "empty_poster", "wordless"):
        assert odd[oddity]["poster"] is None
    for oddity in ("empty_plot", "no_plots", "no_plot_key", "wordless"):
        assert odd[oddity]["plot"] is None
    assert odd["empty_plot"]["poster"]


def test_plots_and_genres_of_odd_movies(odd):
    assert odd["several_plots"]["plot"] == standin.SEVERAL_PLOTS[1]
    assert len(odd["long_plot"]["plot"]) > 20_000
    assert odd["zero_labels"]["genres"] == []
    assert odd["no_genres"]["genres"] == []
    assert odd["some_dropped"]["genres"] == ["Drama"]
    assert sorted(odd["repeated_genre"]["genres"]) == ["Drama", "War"]


def test_labels_are_the_23_in_order_of_frequency():
    assert mm_imdb.LABELS == standin.GENRES
    assert len(mm_imdb.LABELS) == 23


def test_counts_are_kept_with_the_data(archive, built, splits):
    counts = mm_imdb.open_built(built[0]).info.metadata["counts"]
    assert {split: count["movies"] for split, count in counts.items()} == {
        split: len(source) for split, source in splits.items()
    }
    for split, source in splits.items():
        rows = [source[index] for index in range(len(source))]
        assert counts[split]["without_plot"] == sum(row["plot"] is None for row in rows)
        assert counts[split]["without_poster"] == sum(row["poster"] is None for row in rows)
        assert counts[split]["without_label"] == sum(not row["genres"] for row in rows)
        frequency = Counter(genre for row in rows for genre in row["genres"])
        assert counts[split]["labels"] == {label: frequency[label] for label in mm_imdb.LABELS}
    dropped = sum((Counter(count["dropped"]) for count in counts.values()), Counter())
    assert dropped == {"News": 2, "Adult": 1, "Talk-Show": 1, "Reality-TV": 1}


def test_a_tar_file_gives_the_same_data(archive, built, tmp_path):
    packed = tmp_path / "mmimdb.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(archive[0], "mmimdb")
        for name in ("mmimdb/../../outside.json", "/mmimdb/dataset/0000001.json"):
            tar.addfile(tarfile.TarInfo(name))
    mm_imdb.build(packed, tmp_path / "tfds")
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["mm_imdb"]
    assert {path.name for path in tmp_path.iterdir()} == {"mmimdb.tar.gz", "tfds"}
    packed_splits, splits = mm_imdb.sources(tmp_path / "tfds"), mm_imdb.sources(built[0])
    for split, source in splits.items():
        assert packed_splits[split].fingerprint == source.fingerprint
    assert packed_splits["val"][0] == splits["val"][0]


def test_the_fingerprint_follows_the_content(built, broken, tmp_path):
    movie_id = json.loads((broken / "split.json").read_text())["dev"][0]
    with (broken / "dataset" / f"{movie_id}.jpeg").open("ab") as file:
        file.write(b"\0")
    mm_imdb.build(broken, tmp_path / "tfds")
    before, after = mm_imdb.sources(built[0]), mm_imdb.sources(tmp_path / "tfds")
    assert before["val"].fingerprint != after["val"].fingerprint
    assert before["train"].fingerprint == after["train"].fingerprint


def test_what_is_built_stays_as_it_is(built, tmp_path):
    before = mm_imdb.open_built(built[0]).info.metadata["fingerprints"]
    other = tmp_path / "mmimdb"
    standin.write(other, seed=1)
    mm_imdb.build(other, built[0])
    assert mm_imdb.open_built(built[0]).info.metadata["fingerprints"] == before


def test_reading_what_was_not_built_says_how_to_build_it(tmp_path):
    with pytest.raises(DataError, match=r"no mm_imdb .* jfusion\.prepare .* --data_dir"):
        mm_imdb.sources(tmp_path)
    assert mm_imdb.open_built(tmp_path) is None
    with pytest.raises(DataError, match="no mm_imdb was built there") as error:
        mm_imdb.sources()
    assert "--data_dir" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "no such folder"), ("empty", "has no split.json")]
)
def test_a_source_without_the_archive_is_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"{name}: {message}"):
        mm_imdb.build(tmp_path / name, tmp_path / "tfds")
    assert not (tmp_path / "tfds").exists()


def test_a_data_dir_that_cannot_be_is_refused(archive, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: cannot be made"):
        mm_imdb.build(archive[0], tmp_path / "file")


def test_a_file_that_is_no_whole_tar_is_refused(archive, tmp_path):
    text = tmp_path / "text.tar.gz"
    text.write_text("not a tar file")
    with pytest.raises(DataError, match=r"text\.tar\.gz: not a whole tar file"):
        mm_imdb.build(text, tmp_path / "tfds")
    whole, half = tmp_path / "whole.tar.gz", tmp_path / "half.tar.gz"
    with tarfile.open(whole, "w:gz") as tar:
        tar.add(archive[0] / "dataset", "mmimdb/dataset")
    with pytest.raises(DataError, match=r"whole\.tar\.gz: has no split\.json"):
        mm_imdb.build(whole, tmp_path / "tfds")
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=r"half\.tar\.gz: not a whole tar file"):
        mm_imdb.build(half, tmp_path / "tfds")
    assert list((tmp_path / "tfds").iterdir()) == []


def test_every_faulty_movie_is_named_at_once(broken, tmp_path):
    ids = json.loads((broken / "split.json").read_text())["train"][-5:]
    files = [broken / "dataset" / f"{movie_id}.json" for movie_id in ids]
    files[0].unlink()
    files[1].write_text('{"plot": ["cut')
    files[2].write_text('["a list"]')
    files[3].write_text('{"plot": [7], "genres": []}')
    files[4].write_text('{"plot": [], "genres": "Drama"}')
    with pytest.raises(DataError) as error:
        mm_imdb.build(broken, tmp_path / "tfds")
    reasons = {problem.file: (problem.column, problem.reason) for problem in error.value.problems}
    assert reasons[str(files[0])] == ("plot, genres", "no such file")
    assert reasons[str(files[1])][1].startswith("not JSON: Unterminated string")
    assert reasons[str(files[2])] == ("plot, genres", "not a JSON object")
    assert reasons[str(files[3])] == ("plot", "not a list of texts")
    assert reasons[str(files[4])] == ("genres", "not a list of texts")
    assert all(str(file) in str(error.value) for file in files)
    assert mm_imdb.open_built(tmp_path / "tfds") is None


def test_after_a_failure_the_mended_archive_builds(broken, tmp_path):
    file = next((broken / "dataset").glob("*.json"))
    good = file.read_bytes()
    file.write_text("{")
    with pytest.raises(DataError, match=file.name):
        mm_imdb.build(broken, tmp_path / "tfds")
    file.write_bytes(good)
    mm_imdb.build(broken, tmp_path / "tfds")
    assert len(mm_imdb.sources(tmp_path / "tfds")["train"]) == 36


def test_ids_stand_once_and_are_texts_of_digits(broken):
    file = broken / "split.json"
    listed = json.loads(file.read_text())
    twice, thrice = listed["train"][0], listed["train"][1]
    listed["test"].append(twice)
    listed["train"].append(thrice)
    listed["dev"] += [12345, "../0012345", "tt0012345"]
    file.write_text(json.dumps(listed))
    with pytest.raises(DataError) as error:
        mm_imdb_archive.read(broken)
    told = {(problem.row, problem.reason) for problem in error.value.problems}
    assert told == {
        ("train entry 37", f"{thrice} stands at train entry 2 too"),
        ("dev entry 7", "12345 is not a text of 7 digits"),
        ("dev entry 8", "'../0012345' is not a text of 7 digits"),
        ("dev entry 9", "'tt0012345' is not a text of 7 digits"),
        ("test entry 19", f"{twice} stands at train entry 1 too"),
    }
    assert {(problem.file, problem.column) for problem in error.value.problems} == {
        (str(file), "id")
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": ["0000001"], "test": ["0000002"]}', "'dev' is not a list of movies"),
        ('{"train": ["0000001"], "dev": {}, "test": ["0000002"]}', "'dev' is not a list of movies"),
        ("[]", "not a JSON object"),
        ('{"train": [', "not JSON"),
    ],
)
def test_a_wrong_split_file_is_named(broken, content, message):
    (broken / "split.json").write_text(content)
    with pytest.raises(DataError, match=rf"split\.json: {message}"):
        mm_imdb_archive.read(broken)
