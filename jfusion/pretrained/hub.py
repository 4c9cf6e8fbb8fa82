"""Where a network's files are: a local folder, the Hugging Face cache, or the hub."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jfusion.errors import UserError

_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_OTHER_FILES = (
    "config.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

# Names from before the hub had owners, and what it calls them now.
_RENAMED = {
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "distilbert-base-uncased": "distilbert/distilbert-base-uncased",
}
# The commits that are downloaded unless the caller names another revision. Of other entries no
# weights are downloaded without one: those on a branch today may not be there tomorrow.
_PINNED = {
    "distilbert/distilbert-base-uncased": "12040accade4e8a0f71eabdb258fecc2e7e948be",
    "google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "timm/convnext_tiny.fb_in1k": "b43a6303c9fcf176d2d707478a128c2c91e93528",
    "timm/convnext_tiny.in12k_ft_in1k": "aa096f03029c7f0ec052013f64c819b34f8ad790",
}


class WeightsError(UserError):
    """Pretrained weights that cannot be found, read or fitted to the network."""


def find(
    name: str,
    revision: str = "",
    *,
    weights: bool = True,
    key: str = "inputs.NAME.encoder.weights",
) -> Path:
    """Finds the folder with a network's files; downloads them where they are not here yet.

    Args:
        name: A local folder, or an id of the Hugging Face hub such as `distilbert-base-uncased`.
        revision: Commit, tag or branch on the hub. Empty takes the commit that jfusion pins, or
            else `main`, of which weights are taken from the cache only.
        weights: Whether the weights are needed; False is satisfied with the tokenizer's files.
        key: The config key that `name` stands in, for the error message.

    Returns:
        The folder. One of the Hugging Face cache is named after its commit.

    Raises:
        WeightsError: There is no such folder, nor anything of that name in the cache or on the
            hub; it holds no safetensors; or it would have to be downloaded and neither jfusion nor
            `revision` says which commit.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    if local.exists() or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        reason = "is a file, not a folder" if local.exists() else "does not exist"
        raise WeightsError(f"{name} {reason}. {_ways_out(key, weights)}")
    return _from_hub(name, revision, weights, key)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights in a folder: one, or those its index names.

    Raises:
        WeightsError: There are none, or one that the index names is missing.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if index.exists():
        return _shards(index)
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    if pickles:
        raise WeightsError(
            f"{folder} holds {', '.join(pickles)} but no model.safetensors. A .bin file is a "
            "pickle, which can run code when it is opened, so jfusion does not read it; convert "
            "it with transformers: AutoModel.from_pretrained(folder).save_pretrained(new_folder)"
        )
    raise WeightsError(f"{folder} holds no model.safetensors")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [index.parent / Path(name).name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} is no index of safetensors files: {error!r}") from error
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise WeightsError(f"{index.parent} lacks {', '.join(missing)}, which {index.name} names")
    return files


def _from_hub(name: str, revision: str, weights: bool, key: str) -> Path:
    import huggingface_hub  # slow to import, and not needed for a local folder

    repo = _RENAMED.get(name, name)
    pinned = revision or _PINNED.get(repo, "")
    revision = pinned or "main"
    wanted = {
        "revision": revision,
        "allow_patterns": [*_OTHER_FILES, *_WEIGHT_FILES] if weights else [*_OTHER_FILES],
    }
    for cached in dict.fromkeys((repo, name)):
        try:
            folder = huggingface_hub.snapshot_download(cached, local_files_only=True, **wanted)
        except (OSError, ValueError):  # not cached, or no valid name: the download will tell
            continue
        if _complete(Path(folder), weights):
            return Path(folder)
    ways_out = _ways_out(key, weights)
    if weights and not pinned:
        with _explained(repo, revision, ways_out):
            newest = huggingface_hub.model_info(repo).sha
        raise WeightsError(
            f"jfusion knows no commit of {repo}, and without one the same config could bring other "
            f"weights tomorrow. Today's is {newest}: "
            f"--config.{key.removesuffix('weights')}revision={newest}"
        )
    with _explained(repo, revision, ways_out):
        folder = Path(huggingface_hub.snapshot_download(repo, **wanted))
    if not _complete(folder, weights):
        lacking = "config.json with model.safetensors" if weights else "tokenizer.json or vocab.txt"
        raise WeightsError(
            f"{repo} (revision {revision}) has no {lacking}, and jfusion reads nothing else. "
            f"{ways_out}"
        )
    return folder


def _complete(folder: Path, weights: bool) -> bool:
    """Whether a snapshot holds what is needed: it may have been fetched file by file."""
    if not weights:
        return any((folder / file).exists() for file in ("tokenizer.json", "vocab.txt"))
    try:
        weight_files(folder)
    except WeightsError:
        return False
    return (folder / "config.json").exists()


@contextmanager
def _explained(repo: str, revision: str, ways_out: str) -> Iterator[None]:
    """Makes one clear error of whatever asking the hub raises."""
    try:
        yield
    except Exception as error:  # the client's and its transport's errors have no common base
        raise WeightsError(f"{_why(repo, revision, error)}. {ways_out}") from error


def _why(repo: str, revision: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r} on the Hugging Face hub"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} asks for a login on the Hugging Face hub (hf auth login)"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return f"there is neither a folder nor a Hugging Face hub entry {repo!r}"
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return (
        f"{repo} is no folder here, is not in the Hugging Face cache (revision {revision}) and "
        f"could not be downloaded{offline}: {type(error).__name__}"
    )


def _ways_out(key: str, weights: bool) -> str:
    if not weights:
        return (
            f"Point to a folder with tokenizer.json or vocab.txt (--config.{key}=/path/to/folder)"
        )
    return (
        f"Point to a folder with config.json and model.safetensors (--config.{key}=/path/to/folder)"
        f" or train from scratch (--config.{key}='')"
    )
