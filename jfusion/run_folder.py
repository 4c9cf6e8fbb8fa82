"""The folder of a run: made new, resumed, or refused."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jfusion.config import Config, ConfigError, to_dict

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"


class RunFolder:
    """Where a run writes. As long as it is open, no other run gets the same folder.

    Args:
        path: The folder.
        lock: The file descriptor that holds the lock; None if another process of this run has it.
        summary: See below.

    Attributes:
        path: The folder.
        leads: Whether this process writes what there is one of.
        summary: What a finished run left in `summary.json`; None for a new or unfinished one.
    """

    def __init__(self, path: Path, lock: int | None, summary: dict[str, Any] | None):
        self.path, self.summary = path, summary
        self._lock, self.leads = lock, lock is not None

    def close(self) -> None:
        """Lets another process have the folder; the end of the process does, too."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_run(workdir: str, config: Config) -> RunFolder:
    """Makes or reopens the folder of a run.

    Args:
        workdir: The folder; empty makes a new `runs/<config>-<n>`.
        config: The experiment.

    Returns:
        The folder, with `config.json` written.

    Raises:
        ConfigError: It holds a run of another config, or something that is no run, or another
            process is at work in it, or it cannot be written, or it is a bucket.
    """
    if "://" in workdir:
        raise ConfigError(
            f"--workdir: {workdir} is no folder of a file system, and buckets cannot be written "
            "yet; mount it, and give the folder"
        )
    try:
        path = Path(workdir) if workdir else _new(config.name.replace(":", "-"))
        path.mkdir(parents=True, exist_ok=True)
        return _open(path, json.loads(json.dumps(to_dict(config))))
    except OSError as error:
        raise ConfigError(f"--workdir: {error.filename}: {error.strerror}") from None


def open_shared(
    workdir: str, config: Config, first_decides: Callable[[Callable], Any]
) -> RunFolder:
    """The same for one of several processes: the first opens the folder, the others join it.

    Args:
        workdir: See `open_run`.
        config: The experiment.
        first_decides: See `processes.first_decides`.

    Raises:
        ConfigError: As in `open_run`, or this process does not see the folder.
    """
    mine: list[RunFolder] = []

    def open_here() -> dict[str, Any]:
        mine.append(open_run(workdir, config))
        return {"path": str(mine[0].path), "summary": mine[0].summary}

    opened = first_decides(open_here)
    if mine:
        return mine[0]
    path = Path(opened["path"])
    if not (path / CONFIG_FILE).is_file():
        raise ConfigError(
            f"--workdir: {path}, which the first process writes, is not to be seen from "
            f"{Path.cwd()}; give a folder on a disk that all processes share"
        )
    return RunFolder(path, None, opened["summary"])


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file that is never seen half-written."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
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


def _open(path: Path, values: dict[str, Any]) -> RunFolder:
    with contextlib.ExitStack() as undo:
        lock = _lock(path)
        undo.callback(os.close, lock)
        _require_same(path, values)
        summary = _read(path / SUMMARY_FILE)
        if summary is None:
            write_json(path / CONFIG_FILE, values)
        undo.pop_all()
        return RunFolder(path, lock, summary)


def _lock(path: Path) -> int:
    """Locks a folder until the descriptor is closed, which the end of a process does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks; then nothing guards the folder.
        if error.errno == errno.EWOULDBLOCK:
            os.close(descriptor)
            raise ConfigError(f"--workdir: another process is at work in {path}") from None
    return descriptor


def _require_same(path: Path, values: Mapping[str, Any]) -> None:
    """Raises unless the folder is empty, or that of a run of the same config."""
    # Hidden files are no work of anybody's: what a killed start left, or a file manager's.
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    if not names or names == {CONFIG_FILE}:
        return  # a run that failed before it began may go on with a mended config
    recorded = _read(path / CONFIG_FILE)
    if recorded is None:
        raise ConfigError(f"--workdir: {path} holds files but no run; choose another folder")
    # Another mesh changes where numbers lie and not what they are.
    changes = _differences(recorded, {**values, "mesh": recorded.get("mesh")})
    if changes:
        raise ConfigError(
            f"--workdir: {path} holds a run of another config; choose another folder, or undo:"
            + "".join(f"\n  {change}" for change in changes)
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"--workdir: {path} is damaged ({error}); choose another folder"
        ) from None


def _differences(old: Any, new: Any, key: str = "config") -> list[str]:
    """One line per value that differs, by its key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        pairs = [(name, old.get(name), new.get(name)) for name in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = list(zip(range(len(old)), old, new, strict=True))
    else:
        return [] if old == new else [f"{key}: {old!r} there, {new!r} now"]
    return [
        line for name, one, other in pairs for line in _differences(one, other, f"{key}.{name}")
    ]
