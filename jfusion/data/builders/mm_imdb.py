"""MM-IMDb as a TFDS data set in array_record files, built and read without TensorFlow.

Posters stay the bytes that the archive holds, whatever they are (grey, CMYK, a PNG by a wrong
name); they are decoded with every other picture, in `data/image.py`.
"""

import contextlib
import functools
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jfusion.data.builders import mm_imdb_archive as archive
from jfusion.data.builders.mm_imdb_archive import LABELS
from jfusion.data.cache import cache_root
from jfusion.data.problems import DataError
from jfusion.data.source import Row


class MmImdb(tfds.core.GeneratorBasedBuilder):
    """25,959 movies with plots, posters and 23 genres (Arevalo et al. 2017, arXiv 1702.01992)."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder that mmimdb.tar.gz unpacks to, with split.json."

    # Nothing is downloaded. To find that out, TFDS 4.9 would need `importlib_resources`, which it
    # does not install.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "plot": tfds.features.Text(),
                    "poster": tfds.features.Image(),
                    "genres": tfds.features.Sequence(tfds.features.ClassLabel(names=LABELS)),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # row n is the n-th movie of its list in split.json
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        root = Path(dl_manager.manual_dir)
        movies = archive.read(root, _progress("Reading texts...", " movies"))
        self.info.metadata["counts"] = {s: archive.summary(rows) for s, rows in movies.items()}
        self.info.metadata["fingerprints"] = {}
        return {split: self._generate_examples(split, rows) for split, rows in movies.items()}

    def _generate_examples(
        self, split: str, movies: list[archive.Movie]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        digest = hashlib.sha256()
        for row, movie in enumerate(movies):
            poster = movie.poster.read_bytes() if movie.poster else b""
            for part in (movie.id, movie.plot, "|".join(movie.genres)):
                digest.update(f"{len(part)} {part}".encode())
            digest.update(hashlib.sha256(poster).digest())
            yield (
                row,
                {
                    "id": movie.id,
                    "plot": movie.plot,
                    "poster": io.BytesIO(poster),  # a file object: bytes are not looked into
                    "genres": list(movie.genres),
                },
            )
        # TFDS writes the metadata when all splits are generated.
        self.info.metadata["fingerprints"][split] = digest.hexdigest()


class MmImdbSplit:
    """One split of the built data set, a `Source`.

    Attributes:
        name: For messages, `mm_imdb/train`.
        fingerprint: A digest of every cell.
        root: None: posters are bytes.
    """

    root = None

    def __init__(self, builder: MmImdb, split: str):
        self.name = f"mm_imdb/{split}"
        self.fingerprint = builder.info.metadata["fingerprints"][split]
        self._records = builder.as_data_source(
            split, decoders={"poster": tfds.decode.SkipDecoding()}
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows; there is no row {index + 1}")
        record = self._records[index]
        return {
            "id": record["id"].decode(),
            "plot": record["plot"].decode() or None,
            "poster": record["poster"] or None,
            "genres": [LABELS[label] for label in record["genres"]],
        }

    def locate(self, index: int) -> str:
        """Where a person finds the row."""
        return f"{self.name} row {index + 1} (id {self[index]['id']})"


def default_data_dir() -> Path:
    """Where `jfusion.prepare` writes to if it is not told."""
    return cache_root("") / "tfds"


def open_built(data_dir: str | os.PathLike = "") -> MmImdb | None:
    """The built data set in `data_dir` (empty: the default), or None if it is not there."""
    data_dir = Path(data_dir or default_data_dir()).expanduser()
    if not (data_dir / MmImdb.name / str(MmImdb.VERSION)).is_dir():
        return None  # not asked of TFDS, which warns of what is not there
    return MmImdb(data_dir=data_dir)


def build(source: str | os.PathLike, data_dir: str | os.PathLike = "") -> MmImdb:
    """Builds the data set unless it is built.

    Args:
        source: The folder that `mmimdb.tar.gz` unpacks to, the one above it, or that file.
        data_dir: Where to; empty: the default.

    Raises:
        DataError: The source is something else, or files of it are missing or broken.
    """
    source = Path(source).expanduser()
    packed = source.is_file()
    root = None if packed else archive.find(source)
    data_dir = Path(data_dir or default_data_dir()).expanduser()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{data_dir}: cannot be made: {error.strerror}") from error
    builder = MmImdb(data_dir=data_dir, file_format="array_record")
    with tempfile.TemporaryDirectory(prefix="preparing-", dir=data_dir) as scratch:
        if packed:
            root = Path(scratch, "unpacked")
            archive.unpack(source, root, _progress("Unpacking...", " files"))
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download
            builder.download_and_prepare(
                download_dir=Path(scratch, "downloads"),
                download_config=tfds.download.DownloadConfig(manual_dir=root),
            )
    return builder


def sources(data_dir: str | os.PathLike = "") -> dict[str, MmImdbSplit]:
    """The splits `train`, `val` and `test` of the data set that was built in `data_dir`."""
    builder = open_built(data_dir)
    if builder is None:
        where = Path(data_dir or default_data_dir())
        raise DataError(
            f"{where}: no mm_imdb was built there; build it with python -m jfusion.prepare "
            "--dataset mm_imdb --source FOLDER" + (f" --data_dir {where}" if data_dir else "")
        )
    return {split: MmImdbSplit(builder, split) for split in archive.SPLITS}


def _progress(what: str, unit: str) -> archive.Progress:
    """TFDS's own bar, which `tfds.disable_progress_bar` turns off."""
    return functools.partial(tfds.core.utils.tqdm, desc=what, unit=unit, leave=False)
