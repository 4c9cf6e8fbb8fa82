"""Finds the files of DAIC-WOZ: sessions as folders or as the zip files that are handed out."""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jfusion.data.problems import DataError, Problem

LABEL_FILES = {
    "train": "train_split_Depression_AVEC2017.csv",
    "val": "dev_split_Depression_AVEC2017.csv",
    "test": "test_split_Depression_AVEC2017.csv",
}
"""jfusion's name of a split -> the file that lists it."""
SCORED_TEST = "full_test_split.csv"
"""The test split with its scores, which not every copy of the corpus has."""

_SESSION = re.compile(r"([0-9]{3})_P(?:\.zip)?")
# RuntimeError is an encrypted member, or one packed in a way that Python does not know.
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


class BrokenFile(ValueError):
    """A file that is there and cannot be used.

    Attributes:
        problem: Which file, which line of it, and why.
    """

    def __init__(self, file: str, line: int | None, column: str, reason: str):
        self.problem = Problem(file, f"line {line}" if line else "(whole)", column, reason)
        super().__init__(str(self.problem))


@dataclass(frozen=True)
class File:
    """A file of a session.

    Attributes:
        name: For messages; a member of a zip file is `300_P.zip/300_COVAREP.csv`.
        data: Its bytes.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class Session:
    """Where the files of one interview lie.

    Attributes:
        id: The three digits that all its files begin with.
        places: Its folder, its zip file, or both; what the folder lacks is looked for in the zip.
    """

    id: str
    places: tuple[Path, ...]

    def read(self, *endings: str) -> File | None:
        """The first file that is there, `<id>_<ending>`; None if there is none of them."""
        for place in self.places:
            read = _read_zipped if place.suffix == ".zip" else _read_file
            for ending in endings:
                if file := read(place, f"{self.id}_{ending}"):
                    return file
        return None


@dataclass(frozen=True)
class Corpus:
    """What was found.

    Attributes:
        root: The folder that was given.
        sessions: Those that are there, by id.
        labels: Name of a label file -> where it is.
    """

    root: Path
    sessions: Mapping[str, Session]
    labels: Mapping[str, Path]


def find(folder: Path) -> Corpus:
    """Finds sessions and label files.

    Sessions lie in the folder itself, or else in folders in it; the label files there too, or in
    the folder above.

    Raises:
        DataError: There are no sessions, or label files are missing; it names them.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    inner = [p for p in sorted(folder.iterdir()) if p.is_dir() and not _SESSION.fullmatch(p.name)]
    sessions = _sessions([folder]) or _sessions(inner)
    if not sessions:
        raise DataError(
            f"{folder}: has no session of DAIC-WOZ; expected folders such as 300_P, or 300_P.zip, "
            "as they are handed out"
        )
    labels = {}
    for place in (folder, *inner, folder.resolve().parent):
        for name in (*LABEL_FILES.values(), SCORED_TEST):
            if (place / name).is_file():
                labels.setdefault(name, place / name)
    either = {LABEL_FILES["test"], SCORED_TEST}
    missing = [name for name in LABEL_FILES.values() if name not in labels | dict.fromkeys(either)]
    if not either & labels.keys():
        missing.append(f"{LABEL_FILES['test']} (or {SCORED_TEST})")
    if missing:
        raise DataError(f"{folder}: has no {', no '.join(missing)}, nor has the folder above")
    return Corpus(folder, sessions, labels)


def _sessions(folders: list[Path]) -> dict[str, Session]:
    places: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):  # 300_P comes before 300_P.zip
            match = _SESSION.fullmatch(path.name)
            if match and path.is_dir() != (path.suffix == ".zip"):
                places.setdefault(match[1], []).append(path)
    for key, paths in places.items():
        if len({path.parent for path in paths}) > 1:
            raise DataError(f"session {key} is there twice: {paths[0]} and {paths[-1]}")
    return {key: Session(key, tuple(paths)) for key, paths in sorted(places.items())}


def _read_file(folder: Path, name: str) -> File | None:
    path = folder / name
    try:
        return File(str(path), path.read_bytes()) if path.is_file() else None
    except OSError as error:
        raise BrokenFile(str(path), None, "", f"cannot be read: {error.strerror}") from error


def _read_zipped(path: Path, name: str) -> File | None:
    """Members may lie in a folder of the zip file."""
    try:
        with zipfile.ZipFile(path) as packed:
            for member in _members(packed, name):
                return File(f"{path}/{name}", packed.read(member))
    except OSError as error:
        raise BrokenFile(str(path), None, name, f"cannot be read: {error.strerror}") from error
    except _ZIP_FAULTS as error:
        raise BrokenFile(str(path), None, name, f"not a whole zip file: {error}") from error
    return None


def _members(packed: zipfile.ZipFile, name: str) -> Iterator[zipfile.ZipInfo]:
    return (member for member in packed.infolist() if member.filename.rpartition("/")[2] == name)
