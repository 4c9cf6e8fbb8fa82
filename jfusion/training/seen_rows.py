"""Keeps the rows that an earlier model was trained on out of the test split."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jfusion.bucket import is_url
from jfusion.config import Config, ConfigError


def require_apart(key: str, where: Path, config: Config, origin: Mapping[str, Any]) -> None:
    """Raises unless a run divides its rows as the run did that left a model, if they are the same.

    Args:
        key: The config's key that names the model folder.
        where: The folder.
        config: The experiment.
        origin: What the folder's `model.json` says of its own: `data` and `seed`.

    Raises:
        ConfigError: Rows that the model was trained on could be among those of the test split.
    """
    data, there = asdict(config.data), {**asdict(config.data), **origin["data"]}
    if data["source"] != there["source"]:
        return
    if data["source"] == "table" and not _files(data) & _files(there):
        return
    asked, had = _division(data, config.seed), _division(there, origin["seed"])
    for name in asked | had:
        if asked.get(name) != had.get(name):
            raise ConfigError(
                f"{key}: {where} was trained on the same data with {name} {had.get(name)!r}, and "
                f"here it is {asked.get(name)!r}, so that rows it has learnt would be tested; "
                "divide them as there"
            )


def _files(data: Mapping[str, Any]) -> set[str]:
    """The files of a table."""
    return {_whole(data[name]) for name in ("path", "val_path", "test_path") if data[name]}


def _division(data: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """All that decides which row is in which split, by its key in the config."""
    found = {"data.fold": tuple(data["fold"])}
    drawn = bool(data["fold"])
    if data["source"] == "table":
        own = {f"data.{name}": _whole(data[name]) for name in ("val_path", "test_path")}
        found |= own | {"data.split_column": data["split_column"]}
        if not data["split_column"] and not all(own.values()):
            drawn = True
            names = ("val_fraction", "test_fraction")
            found |= {f"data.{name}": data[name] for name in names}
    if drawn:
        found |= {"data.group_column": data["group_column"], "seed": seed}
    return found


def _whole(path: str) -> str:
    return str(Path(path).resolve()) if path and not is_url(path) else path
