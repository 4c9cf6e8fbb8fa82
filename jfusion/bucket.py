"""Folders in buckets: gs:// of Google Cloud Storage, s3:// of S3 and of what speaks like it.

Nothing is renamed in a bucket and nothing is appended to, so a run works in a local folder, and a
`Mirror` copies. What declares other files whole goes after them: a model's `model.json`, a
checkpoint's digests, and at last `summary.json`.

The packages that reach buckets are extras: `pip install 'jfusion[gcs]'` or `'jfusion[s3]'`. They
find credentials by themselves and try again where that helps.
"""

import contextlib
import os
import posixpath
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from jfusion.errors import UserError, first_line

_EXTRAS = {"gs": "gcs", "s3": "s3"}
_LISTINGS = 16  # folders that are listed at once


class BucketError(UserError):
    """A bucket that cannot be used as it is asked for."""


class Version(NamedTuple):
    """What tells one state of a file in a bucket from another.

    Attributes:
        size: In bytes.
        tag: The bucket's own mark, another for other content.
    """

    size: int
    tag: str


def is_url(path: str | Path) -> bool:
    """Whether a path is that of a bucket and not of a file system."""
    return "://" in str(path)


def require_local(flag: str, path: str) -> None:
    """Raises `BucketError` if what a flag names, and is to be written, is in a bucket."""
    if is_url(path):
        raise BucketError(f"--{flag}: {path} is in a bucket; write to a disk, and copy it there")


def split(url: str) -> tuple[str, str]:
    """Parts `s3://bucket/a/b` into `s3` and `bucket/a/b`.

    Raises:
        BucketError: It is no folder or file in a bucket.
    """
    scheme, _, rest = url.partition("://")
    rest = rest.strip("/")
    if scheme not in _EXTRAS or "/" not in rest or ".." in rest.split("/"):
        raise BucketError(
            f"{url} is no place in a bucket; it must be gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"
        )
    return scheme, rest


class Folder:
    """A folder in a bucket.

    Files are named by their path in it. All methods raise `BucketError` where the bucket is not
    there or may not be used, and `ConnectionError` where it could not be reached in spite of all
    attempts.

    Attributes:
        url: Its address.
    """

    def __init__(self, url: str):
        scheme, self._base = split(url)
        self.url = f"{scheme}://{self._base}"
        # Amazon's library has sums compared by itself.
        self._checked = {"consistency": "md5"} if scheme == "gs" else {}
        self._files = _file_system(scheme, self.url)

    def entries(self) -> set[str]:
        """The names of what lies directly in it."""
        return set(self._list(self._base, deep=False))

    def list(self, under: str = "") -> dict[str, Version]:
        """All files in it or in a folder of it, however deep."""
        found = self._list(self._at(under), deep=True)
        return {posixpath.join(under, name): version for name, version in found.items() if version}

    def look_up(self, names: Iterable[str]) -> dict[str, Version]:
        """Those of some files that are there."""
        wanted: dict[str, set[str]] = {}
        for name in names:
            wanted.setdefault(posixpath.dirname(name), set()).add(posixpath.basename(name))
        with ThreadPoolExecutor(_LISTINGS) as pool:  # a request per folder and not per file
            listed = pool.map(lambda under: self._list(self._at(under), deep=False), wanted)
            return {
                posixpath.join(under, name): version
                for (under, chosen), found in zip(wanted.items(), listed, strict=True)
                for name, version in found.items()
                if name in chosen and version
            }

    def get(self, names: Collection[str], into: Path) -> None:
        """Copies files into a local folder, under the same names."""
        if names:
            with self._reaching():
                self._files.get([self._at(x) for x in names], [str(into / x) for x in names])

    def put(self, names: Collection[str], origin: Path, at: str = "") -> None:
        """Copies files of a local folder into it or into a folder of it."""
        steps: dict[int, list[str]] = {}
        for name in names:
            steps.setdefault(_rank(name), []).append(name)
        for _, part in sorted(steps.items()):
            with self._reaching():
                self._files.put(
                    [str(origin / name) for name in part],
                    [self._at(posixpath.join(at, name)) for name in part],
                    **self._checked,
                )

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; those that declare others whole go before them."""
        steps: dict[int, list[str]] = {}
        for name in names:
            steps.setdefault(-_rank(name), []).append(self._at(name))
        for _, part in sorted(steps.items()):
            with self._reaching():
                self._files.rm(part)

    def move(self, name: str, to: str) -> None:
        """Moves a folder within it."""
        names = list(self.list(name))
        moved = [posixpath.join(to, x.removeprefix(f"{name}/")) for x in names]
        with self._reaching():
            self._files.copy([self._at(x) for x in names], [self._at(x) for x in moved])
        self.remove(names)

    def _at(self, name: str) -> str:
        return posixpath.join(self._base, name) if name else self._base

    def _list(self, place: str, deep: bool) -> dict[str, Version | None]:
        """What lies below a place, by its path from there; folders have no version."""
        with self._reaching():
            try:
                if deep:
                    infos = self._files.find(place, detail=True).values()
                else:
                    infos = self._files.ls(place, detail=True)
            except FileNotFoundError:  # in a bucket, a folder without files is none
                return {}
        found = {}
        for info in infos:
            name = info["name"].strip("/").removeprefix(f"{place}/")
            # A name is taken for a path, which must not lead out of the folder.
            if name != place and ".." not in PurePosixPath(name).parts:
                found[name] = _version(info) if info["type"] == "file" else None
        return found

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turns what the libraries raise into errors that name the address."""
        try:
            yield
        except Exception as error:  # each library has its own, and they share no base
            line = first_line(error)
            refused = isinstance(error, FileNotFoundError | PermissionError)
            if refused or "Credentials" in type(error).__name__ or line.startswith("Forbidden"):
                raise BucketError(
                    f"{self.url}: {line}; is there such a bucket, and may you use it?"
                ) from error
            raise ConnectionError(f"{self.url}: {type(error).__name__}: {line}") from error


class Mirror:
    """A local folder that stands for one in a bucket.

    There is no lock in a bucket: that nobody else works in the same folder is for people to see to.

    Args:
        url: The folder in the bucket.
        path: The local one.

    Attributes:
        folder: The folder in the bucket.
        path: The local one.
    """

    def __init__(self, url: str, path: Path):
        self.folder, self.path = Folder(url), path
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of what is there as it is here

    @property
    def url(self) -> str:
        """The address of the folder in the bucket."""
        return self.folder.url

    def under(self, name: str) -> "Mirror":
        """The same for a folder in both."""
        return Mirror(f"{self.url}/{name}", self.path / name) if name else self

    def fetch(self, *names: str) -> None:
        """Copies those of some files that are in the bucket here."""
        found = list(self.folder.look_up(names))
        self.folder.get(found, self.path)
        self._sent |= {name: _stamp(self.path / name) for name in found}

    def publish(self, *patterns: str) -> None:
        """Copies what is new or has changed here to the bucket, and removes there what has gone.

        Args:
            patterns: Which files, as `Path.glob` has it; hidden ones are never sent.
        """
        paths = {path for pattern in patterns for path in self.path.glob(pattern)}
        names = {path: path.relative_to(self.path) for path in paths if path.is_file()}
        now = {
            name.as_posix(): _stamp(path)
            for path, name in names.items()
            if not any(part.startswith(".") for part in name.parts)
        }
        changed = [name for name, stamp in sorted(now.items()) if self._sent.get(name) != stamp]
        self.folder.put(changed, self.path)
        gone = [name for name in self._sent if not (self.path / name).is_file()]
        self.folder.remove(gone)
        self._sent = {n: x for n, x in (self._sent | now).items() if n not in gone}


def _file_system(scheme: str, url: str) -> Any:
    # Else gcsfs asks Google for each bucket's layout, and complains where it may not.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        import fsspec

        # Listings are not kept: others write to the same bucket.
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS[scheme]
        raise BucketError(
            f"{url} needs a package that is not installed ({error}): pip install 'jfusion[{extra}]'"
        ) from None


def _version(info: dict[str, Any]) -> Version:
    marks = (info.get(key) for key in ("generation", "ETag", "etag", "md5Hash", "mtime"))
    tag = next((str(mark) for mark in marks if mark), "")
    return Version(int(info["size"]), tag)


def _rank(name: str) -> int:
    """In which order files are sent: what says that others are whole comes after them."""
    name = posixpath.basename(name)
    if name == "summary.json":
        return 2
    return 1 if name == "model.json" or name.startswith("digests") else 0


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
