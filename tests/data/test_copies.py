import json

import numpy as np
import pytest

from jfusion import bucket
from jfusion.config import Data
from jfusion.data import copies, table
from jfusion.data.builders import built, mm_imdb
from jfusion.data.cache import materialize
from jfusion.data.image import ImageInput
from jfusion.data.problems import DataError
from jfusion.data.sequence import SequenceInput
from tests import buckets
from tests.data.test_image import encoded, picture


def fill(url, folder):
    """The same table with pictures and sequences in a bucket and in a folder."""
    rows = ["id,poster,voice,split"]
    for i, split in enumerate(("train", "train", "val", "test")):
        rows.append(f"{i},posters/{i}.png,voice {i}.npy,{split}")
        (folder / "posters").mkdir(parents=True, exist_ok=True)
        (folder / f"posters/{i}.png").write_bytes(encoded(picture(40 + i)))
        np.save(folder / f"voice {i}.npy", np.arange(12.0).reshape(4, 3) + i)
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    buckets.fill(url, folder)


def test_a_table_in_a_bucket_gives_the_same_arrays(url, tmp_path):
    fill(url, tmp_path / "here")
    columns = ["poster", "voice"]
    for data, cache in (
        (Data(path=str(tmp_path / "here" / "t.csv"), split_column="split"), "one"),
        (Data(path=f"{url}/t.csv", split_column="split"), "other"),
        (Data(path=str(tmp_path / "here" / "t.csv"), root=url, split_column="split"), "third"),
    ):
        data = Data(**{**vars(data), "cache_dir": str(tmp_path / cache)})
        train = table.splits(data, pictures=columns)["train"]
        pixels = materialize(train, ImageInput("poster", size=16), tmp_path / cache, False)
        voice = SequenceInput.fit(train, "voice", steps=2, cache_dir=tmp_path / cache)
        frames = materialize(train, voice, tmp_path / cache, False)
        assert pixels.present.all() and frames.present.all()
        if cache == "one":
            expected = pixels.arrays["pixels"], frames.arrays["frames"]
        np.testing.assert_array_equal(pixels.arrays["pixels"], expected[0])
        np.testing.assert_array_equal(frames.arrays["frames"], expected[1])
    assert train.name == str(tmp_path / "here" / "t.csv")


def test_messages_name_the_address(url, tmp_path):
    buckets.write(f"{url}/a.png", encoded(picture()))
    buckets.write(f"{url}/t.csv", "image\na.png\nmissing.png\n../run/a.png\n/etc/passwd\n")
    source = table.read(f"{url}/t.csv", pictures=["image"], cache_dir=tmp_path)
    assert source.name == f"{url}/t.csv"
    assert source.locate(1) == f"{url}/t.csv row 2"
    bad = materialize(source, ImageInput("image", size=16), tmp_path, False).bad
    assert bad.keys() == {1, 2, 3}
    assert bad[1] == f"no file 'missing.png' in {url}"
    assert f"'../run/a.png' is outside the data folder {url}; set data.root" in bad[2]
    assert "outside the data folder" in bad[3]
    with pytest.raises(DataError, match=rf"^no table file '{url}/tt\.csv'; .*'t\.csv'"):
        table.read(f"{url}/tt.csv", cache_dir=tmp_path)


def test_the_fingerprint_is_that_of_what_lies_in_the_bucket(url, tmp_path):
    fill(url, tmp_path / "here")

    def fingerprint(cache):
        source = table.read(f"{url}/t.csv", pictures=["poster"], cache_dir=tmp_path / cache)
        return source.fingerprint

    first = fingerprint("one")
    assert fingerprint("one") == first == fingerprint("other")  # on another machine, too
    buckets.write(f"{url}/posters/9.png", b"that no row names")
    assert fingerprint("one") == first
    buckets.write(f"{url}/posters/1.png", encoded(picture(50)))
    changed = fingerprint("one")
    assert changed != first
    buckets.files(url.partition("://")[0]).rm_file(f"{url.partition('://')[2]}/posters/0.png")
    assert fingerprint("one") not in (first, changed)


def test_only_what_changed_is_copied_again(url, tmp_path, capsys):
    buckets.write(f"{url}/a/x", "one")
    buckets.write(f"{url}/y", "two")
    folder = copies.local(url, tmp_path)
    assert copies.shown(folder) == url and copies.shown(folder / "a" / "x") == f"{url}/a/x"
    assert (folder / "a" / "x").read_text() == "one"
    assert "copying 2 files" in capsys.readouterr().err
    copies.local(url, tmp_path)
    assert capsys.readouterr().err == ""
    buckets.write(f"{url}/y", "six")  # as long as before
    (folder / "a" / "x").write_text("bad")
    copies.local(url, tmp_path)
    assert "copying 2 files" in capsys.readouterr().err
    assert ((folder / "a" / "x").read_text(), (folder / "y").read_text()) == ("one", "six")
    copies.some(url, ["a/x", "gone"], tmp_path)
    assert capsys.readouterr().err == ""


def test_what_is_gone_in_the_bucket_is_gone_here(url, tmp_path):
    buckets.write(f"{url}/x", "one")
    root, found = copies.some(url, ["x", " ./x ", "y", "../secret", "/x", ""], tmp_path)
    assert found.keys() == {"x"} and (root / "x").is_file()
    kind, _, place = url.partition("://")
    buckets.files(kind).rm_file(f"{place}/x")
    assert copies.some(url, ["x"], tmp_path) == (root, {})
    assert not (root / "x").exists()


def test_no_file_lands_outside_the_folder(url, tmp_path, monkeypatch):
    buckets.write(f"{url}/fine", "1")
    folder = bucket.Folder(url)
    base = url.partition("://")[2]
    info = {"type": "file", "size": 1, "ETag": "x"}
    found = {name: {"name": f"{base}/{name}", **info} for name in ("fine", "../up", "a/../../up")}
    monkeypatch.setattr(folder._files, "find", lambda *args, **kwargs: found)
    assert folder.list().keys() == {"fine"}


def test_a_built_data_set_is_copied(url, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=f"^{url}: no mm_imdb was built there; .*copy it there$"):
        built.require_built(mm_imdb.MmImdb, url, tmp_path / "cache")
    with pytest.raises(DataError, match=f"^{url}: build it in a local folder, and copy"):
        built.build(mm_imdb.MmImdb, lambda scratch: scratch, url)
    opened = []
    monkeypatch.setattr(mm_imdb.MmImdb, "__init__", lambda self, data_dir: opened.append(data_dir))
    place = f"mm_imdb/{mm_imdb.MmImdb.VERSION}"
    buckets.write(f"{url}/{place}/dataset_info.json", json.dumps({}))
    buckets.write(f"{url}/something/else", "")
    built.open_built(mm_imdb.MmImdb, f"{url}/", tmp_path / "cache")
    assert [copies.shown(path) for path in opened] == [url]
    assert opened[0].is_relative_to(tmp_path / "cache")
    assert [path.name for path in opened[0].iterdir()] == ["mm_imdb"]
    assert (opened[0] / place / "dataset_info.json").is_file()
