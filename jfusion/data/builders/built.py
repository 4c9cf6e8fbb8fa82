"""What the data sets have in common that TFDS builds: where they lie, how they are built and read.

They lie in array_record files, which are written and read without TensorFlow.
"""

import abc
import contextlib
import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jfusion.bucket import is_url
from jfusion.data import copies
from jfusion.data.cache import cache_root
from jfusion.data.problems import DataError
from jfusion.data.source import Row

Builder = tfds.core.GeneratorBasedBuilder


class BuiltSplit(abc.ABC):
    """One split of a built data set, a `Source`; a subclass tells what a record holds.

    Attributes:
        name: For messages, `mm_imdb/train`.
        fingerprint: A digest of every cell.
        root: None: no cell is a path.
    """

    root = None

    def __init__(self, builder: Builder, split: str, decoders: dict[str, Any] | None = None):
        self.name = f"{builder.name}/{split}"
        self.fingerprint = builder.info.metadata["fingerprints"][split]
        self._records = builder.as_data_source(split, decoders=decoders)

    @abc.abstractmethod
    def row(self, record: dict[str, Any]) -> Row:
        """The row that a record stands for."""

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows; there is no row {index + 1}")
        return self.row(self._records[index])

    def locate(self, index: int) -> str:
        """Where a person finds the row."""
        return f"{self.name} row {index + 1} (id {self[index]['id']})"


def default_data_dir() -> Path:
    """Where `jfusion.prepare` writes to if it is not told."""
    return cache_root("") / "tfds"


def open_built(
    kind: type[Builder], data_dir: str | os.PathLike = "", cache_dir: str | os.PathLike = ""
) -> Builder | None:
    """The built data set in `data_dir` (empty: the default), or None if it is not there.

    One in a bucket is copied to `cache_dir`, since its records are read from files only.
    """
    if is_url(data_dir):
        place = f"{kind.name}/{kind.VERSION}"
        copy = copies.local(f"{str(data_dir).rstrip('/')}/{place}", cache_dir)
        data_dir = copy.parents[1]
    data_dir = Path(data_dir or default_data_dir()).expanduser()
    if not (data_dir / kind.name / str(kind.VERSION)).is_dir():
        return None  # not asked of TFDS, which warns of what is not there
    return kind(data_dir=data_dir)


def require_built(
    kind: type[Builder], data_dir: str | os.PathLike = "", cache_dir: str | os.PathLike = ""
) -> Builder:
    """The built data set in `data_dir`, or a `DataError` that says how to build it."""
    builder = open_built(kind, data_dir, cache_dir)
    if builder is None:
        where = data_dir or default_data_dir()
        raise DataError(
            f"{where}: no {kind.name} was built there; build it with python -m jfusion.prepare "
            f"--dataset {kind.name} --source FOLDER"
            + (", and copy it there" if is_url(where) else f" --data_dir {where}" * bool(data_dir))
        )
    return builder


def build(
    kind: type[Builder], place: Callable[[Path], Path], data_dir: str | os.PathLike = ""
) -> Builder:
    """Builds a data set unless it is built.

    Args:
        kind: Which.
        place: Given a folder that is gone afterwards, it returns the one that holds what the data
            set's authors hand out.
        data_dir: Where to; empty: the default.

    Raises:
        DataError: Files of the source are missing or broken, or `data_dir` cannot be made.
    """
    if is_url(data_dir):
        raise DataError(f"{data_dir}: build it in a local folder, and copy that to the bucket")
    data_dir = Path(data_dir or default_data_dir()).expanduser()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{data_dir}: cannot be made: {error.strerror}") from error
    builder = kind(data_dir=data_dir, file_format="array_record")
    with tempfile.TemporaryDirectory(prefix="preparing-", dir=data_dir) as scratch:
        root = place(Path(scratch, "unpacked"))
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download
            builder.download_and_prepare(
                download_dir=Path(scratch, "downloads"),
                download_config=tfds.download.DownloadConfig(manual_dir=root),
            )
    return builder


def progress(what: str, unit: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """TFDS's own bar, which `tfds.disable_progress_bar` turns off."""
    return functools.partial(tfds.core.utils.tqdm, desc=what, unit=unit, leave=False)
