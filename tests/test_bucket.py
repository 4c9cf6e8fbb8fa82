import email.parser

import pytest

from jfusion import bucket, config_file, run_folder
from jfusion.config import ConfigError
from tests import buckets
from tests.training import runs


def test_files_go_there_and_back(url, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "top").write_text("1")
    (tmp_path / "a" / "b" / "deep [1]").write_bytes(b"\0\1")
    folder = bucket.Folder(f"{url}/")
    folder.put(["top", "a/b/deep [1]"], tmp_path)
    folder.put(["top"], tmp_path, "other")
    assert folder.url == url
    assert folder.entries() == {"top", "a", "other"}
    assert folder.list().keys() == {"top", "a/b/deep [1]", "other/top"}
    assert folder.list("a").keys() == {"a/b/deep [1]"}
    assert folder.look_up(["top", "a/b/deep [1]", "a", "a/b", "no", "no/no"]).keys() == {
        "top",
        "a/b/deep [1]",
    }
    folder.get(["a/b/deep [1]"], tmp_path / "back")
    assert (tmp_path / "back" / "a" / "b" / "deep [1]").read_bytes() == b"\0\1"
    folder.move("other", "moved")
    folder.remove(["top"])
    assert folder.list().keys() == {"a/b/deep [1]", "moved/top"}


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\n\n--==0==--\n", b""])
def test_every_byte_arrives(url, tmp_path, end):
    (tmp_path / "file").write_bytes(b"\n\n\0" + end)
    folder = bucket.Folder(url)
    folder.put(["file"], tmp_path)
    folder.get(["file"], tmp_path / "back")
    assert (tmp_path / "back" / "file").read_bytes() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("bucket_url", ["gs"], indirect=True)
def test_what_arrives_otherwise_is_an_error(url, tmp_path, monkeypatch):
    from gcp_storage_emulator import server

    # It loses a byte at the end of what it is sent, see `buckets`.
    monkeypatch.setattr(server, "BytesParser", email.parser.BytesParser)
    (tmp_path / "file").write_bytes(b"text\r")
    with pytest.raises(ConnectionError, match=f"^{url}: ChecksumError: MD5 checksum failed"):
        bucket.Folder(url).put(["file"], tmp_path)


def test_another_content_is_another_version(url):
    folder = bucket.Folder(url)
    buckets.write(f"{url}/x", "one")
    before = folder.look_up(["x"])
    assert folder.look_up(["x"]) == folder.list() == before
    assert before["x"].size == 3 and before["x"].tag
    buckets.write(f"{url}/x", "two")
    assert folder.look_up(["x"]) != before


def test_a_folder_that_is_not_there_is_empty(url):
    folder = bucket.Folder(url)
    assert (folder.entries(), folder.list(), folder.look_up(["x"])) == (set(), {}, {})
    folder.remove([])


def test_a_bucket_that_is_not_there_is_named(bucket_url):
    url = bucket_url.replace("bucket", "no-such-bucket") + "/run"
    with pytest.raises(ConfigError, match=f"^--workdir: {url}: .*is there such a bucket"):
        run_folder.open_run(url, a_config())


def test_what_says_that_others_are_whole_is_sent_last(url, tmp_path, monkeypatch):
    sent = []
    folder = bucket.Folder(url)
    monkeypatch.setattr(folder._files, "put", lambda local, there, **_: sent.append(there))
    folder.put(
        ["summary.json", "model/model.json", "metrics.jsonl", "model/w", "s/digests.json"], tmp_path
    )
    place = url.partition("://")[2]
    assert sent == [
        [f"{place}/metrics.jsonl", f"{place}/model/w"],
        [f"{place}/model/model.json", f"{place}/s/digests.json"],
        [f"{place}/summary.json"],
    ]


def test_a_mirror_sends_what_changed(url, tmp_path, monkeypatch):
    for name in ("a", ".hidden", "model/w", "checkpoints/1/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    mirror = bucket.Mirror(url, tmp_path)
    mirror.publish("*", "model/**/*")
    assert buckets.names(url) == ["a", "model/w"]
    (tmp_path / "a").write_text("changed")
    sent = []
    put = mirror.folder._files.put
    monkeypatch.setattr(
        mirror.folder._files, "put", lambda x, there, **_: (sent.extend(there), put(x, there))
    )
    mirror.publish("*", "model/**/*")
    mirror.publish("*", "model/**/*")
    assert [place.rpartition("/")[2] for place in sent] == ["a"]
    assert buckets.read(f"{url}/a") == b"changed"
    (tmp_path / "model" / "w").unlink()
    buckets.write(f"{url}/of-somebody-else", "stays")
    mirror.publish("*")
    assert buckets.names(url) == ["a", "of-somebody-else"]

    other = bucket.Mirror(url, tmp_path / "elsewhere").under("")
    other.fetch("a", "absent")
    assert [path.name for path in other.path.iterdir()] == ["a"]
    sub = other.under("run-1")
    assert (sub.url, sub.path) == (f"{url}/run-1", other.path / "run-1")


@pytest.mark.parametrize("scheme, extra", [("s3", "s3"), ("gs", "gcs")])
def test_a_package_that_is_missing_is_named(monkeypatch, scheme, extra):
    def refuse(scheme, **options):
        raise ImportError(f"install what opens {scheme}")

    monkeypatch.setattr("fsspec.filesystem", refuse)
    with pytest.raises(bucket.BucketError) as caught:
        bucket.Folder(f"{scheme}://bucket/run")
    assert str(caught.value) == (
        f"{scheme}://bucket/run needs a package that is not installed (install what opens "
        f"{scheme}): pip install 'jfusion[{extra}]'"
    )


def test_what_cannot_be_reached_is_no_mistake_of_a_person(url, monkeypatch, tmp_path):
    folder = bucket.Folder(url)

    def fail(*args, **kwargs):
        raise TimeoutError("no answer\nat all")

    monkeypatch.setattr(folder._files, "put", fail)
    with pytest.raises(ConnectionError, match=f"^{url}: TimeoutError: no answer$"):
        folder.put(["x"], tmp_path)


def test_what_is_written_by_hand_goes_to_a_disk():
    bucket.require_local("output", "predicted.csv")
    with pytest.raises(bucket.BucketError, match=r"^--output: gs://a/b\.csv is in a bucket; write"):
        bucket.require_local("output", "gs://a/b.csv")


def a_config(**train):
    values = {**runs.CONFIG, "name": "small", "train": {**runs.CONFIG["train"], **train}}
    return config_file.resolve(values)


def test_the_folder_of_a_run(url):
    with run_folder.open_run(url, a_config()) as folder:
        assert (folder.name, folder.leads, folder.summary) == (url, True, None)
        assert [path.name for path in folder.path.iterdir()] == ["config.json"]
    assert not folder.path.exists()
    assert buckets.names(url) == ["config.json"]
    run_folder.open_run(url, a_config(batch_size=16)).close()  # it never began
    buckets.write(f"{url}/metrics.jsonl", "")
    with pytest.raises(ConfigError, match=f"^--workdir: {url} holds a run of another config"):
        run_folder.open_run(url, a_config())
    buckets.write(f"{url}/summary.json", '{"best_step": 3}')
    with run_folder.open_run(url, a_config(batch_size=16)) as folder:
        assert folder.summary == {"best_step": 3}
        second = run_folder.open_shared(
            url, a_config(), lambda do: {"name": url, "summary": folder.summary}
        )
        assert (second.name, second.leads, second.summary) == (url, False, folder.summary)
        assert second.path != folder.path
        second.close()


def test_a_folder_that_is_no_run_is_refused(url):
    buckets.write(f"{url}/thesis.tex", "years of work")
    with pytest.raises(ConfigError, match=f"^--workdir: {url} holds files but no run"):
        run_folder.open_run(url, a_config())
    assert buckets.names(url) == ["thesis.tex"]
