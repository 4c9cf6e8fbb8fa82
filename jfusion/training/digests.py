"""Digests of a checkpoint's files, beside them: Orbax alone would not notice a changed byte.

One file has those of all. Where processes without a common disk write a checkpoint, each keeps
those of its own files in `digests-<process>-of-<processes>.json`, and it is whole with all of them.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from jfusion.errors import first_line

_NAME = "digests.json"
# Each process has these, but with another content: times, and where they lie.
_PERSONAL = ("commit_success.txt", "_CHECKPOINT_METADATA")
_PART = re.compile(r"digests-(\d+)-of-(\d+)\.json")


def write(folder: Path, part: tuple[int, int] | None = None) -> list[str]:
    """Writes the digests of the files in a folder.

    Args:
        folder: A checkpoint's folder.
        part: This process and the number of processes, if this folder has its share only.

    Returns:
        The files, and last that of the digests, by their paths in the folder.
    """
    name = _NAME if part is None else f"digests-{part[0]}-of-{part[1]}.json"
    names = [x for x in _files(folder) if part is None or part[0] == 0 or _is_own(x)]
    same = [x for x in names if part is None or Path(x).name not in _PERSONAL]
    digests = json.dumps({x: _digest(folder / x) for x in same})
    temporary = folder / f".{_NAME}"
    temporary.write_text(digests)
    temporary.replace(folder / name)
    return [*names, name]


def are_all(names: Iterable[str]) -> bool:
    """Whether all digests of a checkpoint are among the files of its folder."""
    names = set(names)
    counts = {int(match[2]) for match in map(_PART.fullmatch, names) if match}
    parts = ({f"digests-{i}-of-{count}.json" for i in range(count)} for count in counts)
    return _NAME in names or any(part <= names for part in parts)


def damage(folder: Path) -> str:
    """What is wrong with the files of a folder that has digests; empty if they are whole."""
    try:
        names = [path.name for path in folder.glob("digests*.json")]
        if not are_all(names):
            return f"{_NAME} is missing"
        digests = {}
        for name in names:
            digests |= json.loads((folder / name).read_text())
        lost = [name for name in digests if not (folder / name).is_file()]
        if lost:
            return f"{lost[0]} is missing"
        changed = [name for name in digests if _digest(folder / name) != digests[name]]
        return f"{changed[0]} is not as it was written" if changed else ""
    except (OSError, ValueError, TypeError) as error:
        return first_line(error)


def _files(folder: Path) -> list[str]:
    """The files of a checkpoint's items; those of the checkpoint itself are written later."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(name) for name in files if len(name.parts) > 1)


def _is_own(name: str) -> bool:
    """Whether a file is written by one process only, and not by all alike."""
    path = Path(name)
    return path.parts[0] in ("state", "params") and (
        path.name.split(".")[0].isdigit() or path.parent.name == "array_metadatas"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()
