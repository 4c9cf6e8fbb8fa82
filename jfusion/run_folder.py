"""The folder of a run: made new, resumed, or refused.

A run in a bucket works in a temporary folder, which a mirror copies; `$TMPDIR` says on which disk.
"""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from jfusion import bucket
from jfusion.config import Config, ConfigError, to_dict

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"


class RunFolder:
    """Where a run writes. As long as it is open, no other run gets the same folder of a disk.

    Args:
        path: The folder.
        undo: Gives it back.
        summary: See below.
        leads: See below.
        mirror: See below.

    Attributes:
        path: The folder; for a run in a bucket, the local one that stands for it.
        name: What people call it: the path, or the address of the bucket.
        summary: What a finished run left in `summary.json`; None for a new or unfinished one.
        leads: Whether this process writes what there is one of.
        mirror: What copies the folder to the bucket; None where there is no bucket.
    """

    def __init__(
        self,
        path: Path,
        undo: contextlib.ExitStack,
        summary: dict[str, Any] | None,
        leads: bool = True,
        mirror: bucket.Mirror | None = None,
    ):
        self.path, self.summary, self.leads, self.mirror = path, summary, leads, mirror
        self.name = mirror.url if mirror else str(path)
        self._undo = undo

    def close(self) -> None:
        """Lets another process have the folder; the end of the process does, too."""
        self._undo.close()

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
            process is at work in it (which a bucket cannot tell), or it cannot be written.
        ConnectionError: The bucket cannot be reached.
    """
    values = json.loads(json.dumps(to_dict(config)))
    try:
        if bucket.is_url(workdir):
            return _open_in_bucket(workdir, values)
        path = Path(workdir) if workdir else _new(config.name.replace(":", "-"))
        path.mkdir(parents=True, exist_ok=True)
        return _open(path, values)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        raise ConfigError(f"--workdir: {error.filename}: {error.strerror}") from None
    except bucket.BucketError as error:
        raise ConfigError(f"--workdir: {error}") from None


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
        return {"name": mine[0].name, "summary": mine[0].summary}

    opened = first_decides(open_here)
    if mine:
        return mine[0]
    if bucket.is_url(opened["name"]):
        with contextlib.ExitStack() as undo:
            mirror = bucket.Mirror(opened["name"], _local(undo))
            return RunFolder(mirror.path, undo.pop_all(), opened["summary"], False, mirror)
    path = Path(opened["name"])
    if not (path / CONFIG_FILE).is_file():
        raise ConfigError(
            f"--workdir: {path}, which the first process writes, is not to be seen from "
            f"{Path.cwd()}; give a folder on a disk that all processes share, or in a bucket"
        )
    return RunFolder(path, contextlib.ExitStack(), opened["summary"], leads=False)


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
        undo.callback(os.close, _lock(path))
        summary = _begin(path, str(path), {entry.name for entry in path.iterdir()}, values)
        return RunFolder(path, undo.pop_all(), summary)


def _open_in_bucket(url: str, values: dict[str, Any]) -> RunFolder:
    with contextlib.ExitStack() as undo:
        mirror = bucket.Mirror(url, _local(undo))
        names = mirror.folder.entries()
        mirror.fetch(CONFIG_FILE, SUMMARY_FILE)
        summary = _begin(mirror.path, mirror.url, names, values)
        mirror.publish(CONFIG_FILE)
        return RunFolder(mirror.path, undo.pop_all(), summary, mirror=mirror)


def _local(undo: contextlib.ExitStack) -> Path:
    """A folder that stands for one in a bucket, until it is given back."""
    folder = tempfile.TemporaryDirectory(prefix="jfusion-", ignore_cleanup_errors=True)
    return Path(undo.enter_context(folder))


def _begin(
    path: Path, name: str, names: Collection[str], values: dict[str, Any]
) -> dict[str, Any] | None:
    """Writes the config, or finds that of the same run; returns the summary of a finished one."""
    _require_same(path, name, names, values)
    summary = _read(path / SUMMARY_FILE)
    if summary is None:
        write_json(path / CONFIG_FILE, values)
    return summary


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


def _require_same(
    path: Path, shown: str, names: Collection[str], values: Mapping[str, Any]
) -> None:
    """Raises unless the folder is empty, or that of a run of the same config."""
    # Hidden files are no work of anybody's: what a killed start left, or a file manager's.
    names = {name for name in names if not name.startswith(".")}
    if not names or names == {CONFIG_FILE}:
        return  # a run that failed before it began may go on with a mended config
    recorded = _read(path / CONFIG_FILE)
    if recorded is None:
        raise ConfigError(f"--workdir: {shown} holds files but no run; choose another folder")
    # Another mesh changes where numbers lie and not what they are.
    changes = _differences(recorded, {**values, "mesh": recorded.get("mesh")})
    if changes:
        raise ConfigError(
            f"--workdir: {shown} holds a run of another config; choose another folder, or undo:"
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
