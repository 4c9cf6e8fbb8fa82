"""The folder of a run: made new, resumed, or refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jfusion.config import Config, ConfigError, to_dict


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes.

    Attributes:
        path: The folder.
        summary: What a finished run left in `summary.json`; None for a new or unfinished one.
    """

    path: Path
    summary: dict[str, Any] | None


def open_run(workdir: str, config: Config) -> RunFolder:
    """Makes or reopens the folder of a run.

    Args:
        workdir: The folder; empty makes a new `runs/<config>-<n>`.
        config: The experiment.

    Returns:
        The folder, with `config.json` written.

    Raises:
        ConfigError: It holds a run of another config, or something that is no run.
    """
    path = Path(workdir) if workdir else _new(config.name.replace(":", "-"))
    values = json.loads(json.dumps(to_dict(config)))
    recorded = path / "config.json"
    if recorded.exists():
        changes = _differences(json.loads(recorded.read_text()), values)
        if changes:
            raise ConfigError(
                f"--workdir: {path} holds a run of another config; choose another folder, or undo:"
                + "".join(f"\n  {change}" for change in changes)
            )
    elif path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"--workdir: {path} holds files but no run; choose another folder")
    path.mkdir(parents=True, exist_ok=True)
    write_json(recorded, values)
    finished = path / "summary.json"
    return RunFolder(path, json.loads(finished.read_text()) if finished.exists() else None)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file that is never seen half-written."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)


def _new(name: str) -> Path:
    n = 1
    while True:
        path = Path("runs") / f"{name}-{n}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            n += 1
        else:
            return path


def _differences(old: Any, new: Any, key: str = "config") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for name in sorted({*old, *new})
            for line in _differences(old.get(name), new.get(name), f"{key}.{name}")
        ]
    return [] if old == new else [f"{key}: {old!r} there, {new!r} now"]
