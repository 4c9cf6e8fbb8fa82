import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from jfusion.pretrained import hub
from jfusion.pretrained.hub import WeightsError, find
from tests.pretrained.checkpoints import distilbert, write, write_shards

PINNED = hub._PINNED["distilbert/distilbert-base-uncased"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def in_cache(cache, repo, commit, branch=""):
    """A snapshot's folder in the cache."""
    base = cache / f"models--{repo.replace('/', '--')}"
    (base / "snapshots" / commit).mkdir(parents=True)
    if branch:
        (base / "refs").mkdir()
        (base / "refs" / branch).write_text(commit)
    return base / "snapshots" / commit


class Downloads:
    """Stands in for the hub's client: nothing is cached, and a download gives `result`."""

    def __init__(self, monkeypatch, result):
        self.result, self.calls = result, []
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self)
        monkeypatch.setattr(huggingface_hub, "model_info", self.model_info)

    def __call__(self, repo, *, local_files_only=False, **kwargs):
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not cached")
        self.calls.append((repo, kwargs["revision"], kwargs["allow_patterns"]))
        if isinstance(self.result, Exception):
            raise self.result
        return str(self.result)

    def model_info(self, repo):
        if isinstance(self.result, Exception):
            raise self.result
        return huggingface_hub.ModelInfo(id=repo, sha="c0ffee", tags=[])


def test_a_local_folder_is_itself(tmp_path):
    assert find(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/jfusion-nowhere", "a/b/c"])
def test_a_local_folder_that_is_not_there(name):
    with pytest.raises(WeightsError, match=f"{name} does not exist"):
        find(name)


def test_a_file_is_no_folder(tmp_path):
    file = write(tmp_path, distilbert()) / "model.safetensors"
    with pytest.raises(WeightsError, match="is a file, not a folder"):
        find(str(file))


def test_the_cache_serves_without_a_network(cache):
    folder = write(in_cache(cache, "someone/something", "abc123", "main"), distilbert())
    assert find("someone/something") == folder
    assert find("someone/something", "main") == folder


def test_shards_in_the_cache_count(cache):
    folder = in_cache(cache, "someone/something", "abc123", "main")
    write_shards(folder, distilbert())
    (folder / "config.json").write_text("{}")
    assert find("someone/something") == folder


@pytest.mark.parametrize("repo", ["distilbert-base-uncased", "distilbert/distilbert-base-uncased"])
def test_a_pinned_commit_under_the_old_and_the_new_name(cache, repo):
    folder = write(in_cache(cache, repo, PINNED), distilbert())
    assert find("distilbert-base-uncased") == folder


def test_another_commit_is_not_the_pinned_one(cache):
    folder = write(in_cache(cache, "distilbert-base-uncased", "abc123", "main"), distilbert())
    with pytest.raises(WeightsError, match=PINNED):
        find("distilbert-base-uncased")
    assert find("distilbert-base-uncased", "main") == folder


def test_offline_and_not_cached_says_what_to_do():
    with pytest.raises(WeightsError) as error:
        find("someone/something", key="inputs.plot.encoder.weights")
    message = str(error.value)
    assert "\n" not in message
    assert "someone/something is no folder here" in message
    assert "not in the Hugging Face cache" in message
    assert "--config.inputs.plot.encoder.weights=/path/to/folder" in message
    assert "train from scratch (--config.inputs.plot.encoder.weights='')" in message


def test_a_half_downloaded_snapshot_does_not_count(cache):
    folder = in_cache(cache, "someone/something", "abc123", "main")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError):
        find("someone/something")
    assert find("someone/something", weights=False) == folder


def test_a_download_asks_for_the_pinned_commit_and_never_for_pickles(tmp_path, monkeypatch):
    downloads = Downloads(monkeypatch, write(tmp_path / "snapshot", distilbert()))
    assert find("distilbert-base-uncased") == tmp_path / "snapshot"
    ((repo, revision, patterns),) = downloads.calls
    assert (repo, revision) == ("distilbert/distilbert-base-uncased", PINNED)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(patterns)
    assert not [pattern for pattern in patterns if pattern.endswith((".bin", ".pt", ".h5", "*"))]


def test_an_entry_without_a_pinned_commit_is_downloaded_only_at_a_named_one(tmp_path, monkeypatch):
    downloads = Downloads(monkeypatch, write(tmp_path / "snapshot", distilbert()))
    with pytest.raises(WeightsError) as raised:
        find("someone/something", key="inputs.plot.encoder.weights")
    assert "knows no commit of someone/something" in str(raised.value)
    assert "--config.inputs.plot.encoder.revision=c0ffee" in str(raised.value)
    assert not downloads.calls
    assert find("someone/something", "c0ffee") == tmp_path / "snapshot"


def test_a_revision_of_ones_own(tmp_path, monkeypatch):
    downloads = Downloads(monkeypatch, write(tmp_path / "snapshot", distilbert()))
    find("distilbert-base-uncased", "v2")
    assert downloads.calls[0][1] == "v2"


def test_a_tokenizer_alone_needs_no_weights(tmp_path, monkeypatch):
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    downloads = Downloads(monkeypatch, tmp_path)
    assert find("someone/something", weights=False) == tmp_path
    assert not [pattern for pattern in downloads.calls[0][2] if "safetensors" in pattern]


def test_a_hub_entry_without_safetensors(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    Downloads(monkeypatch, tmp_path)
    with pytest.raises(WeightsError, match=r"has no config\.json with model\.safetensors"):
        find("someone/something", "main")


def test_errors_of_the_hub_are_told_apart(monkeypatch):
    import httpx2

    response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.invalid"))
    for error, text in [
        (errors.RevisionNotFoundError("x", response=response), "has no revision 'v9'"),
        (errors.GatedRepoError("x", response=response), "asks for a login"),
        (errors.RepositoryNotFoundError("x", response=response), "neither a folder nor"),
        (httpx2.ConnectError("x"), "could not be downloaded: ConnectError"),
    ]:
        Downloads(monkeypatch, error)
        for revision in ("v9", "") if "v9" not in text else ("v9",):
            with pytest.raises(WeightsError, match=text) as raised:
                find("someone/something", revision)
            assert "--config.inputs.NAME.encoder.weights=" in str(raised.value)


def test_a_name_that_the_hub_cannot_have():
    with pytest.raises(WeightsError, match="neither a folder nor a Hugging Face hub entry"):
        find("two words")


def test_pins_are_commits():
    for repo, commit in hub._PINNED.items():
        assert "/" in repo and len(commit) == 40 and int(commit, 16)
    assert set(hub._RENAMED.values()) <= hub._PINNED.keys()
