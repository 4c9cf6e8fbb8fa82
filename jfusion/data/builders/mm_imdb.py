"""MM-IMDb as a TFDS data set in array_record files, built and read without TensorFlow.

Posters stay the bytes that the archive holds, whatever they are (grey, CMYK, a PNG by a wrong
name); they are decoded with every other picture, in `data/image.py`.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jfusion.data.builders import built
from jfusion.data.builders import mm_imdb_archive as archive
from jfusion.data.builders.built import BuiltSplit
from jfusion.data.builders.mm_imdb_archive import LABELS
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
        movies = archive.read(root, built.progress("Reading texts...", " movies"))
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


class MmImdbSplit(BuiltSplit):
    """One split of the built data set, a `Source`."""

    def __init__(self, builder: MmImdb, split: str):
        super().__init__(builder, split, {"poster": tfds.decode.SkipDecoding()})

    def row(self, record: dict[str, Any]) -> Row:
        """The movie that a record stands for."""
        return {
            "id": record["id"].decode(),
            "plot": record["plot"].decode() or None,
            "poster": record["poster"] or None,
            "genres": [LABELS[label] for label in record["genres"]],
        }


def open_built(data_dir: str | os.PathLike = "") -> MmImdb | None:
    """The built data set in `data_dir` (empty: the default), or None if it is not there."""
    return built.open_built(MmImdb, data_dir)


def build(source: str | os.PathLike, data_dir: str | os.PathLike = "") -> MmImdb:
    """Builds the data set unless it is built.

    Args:
        source: The folder that `mmimdb.tar.gz` unpacks to, the one above it, or that file.
        data_dir: Where to; empty: the default.

    Raises:
        DataError: The source is something else, or files of it are missing or broken.
    """
    source = Path(source).expanduser()
    root = None if source.is_file() else archive.find(source)

    def place(scratch: Path) -> Path:
        if root is None:
            archive.unpack(source, scratch, built.progress("Unpacking...", " files"))
        return root or scratch

    return built.build(MmImdb, place, data_dir)


def sources(
    data_dir: str | os.PathLike = "", cache_dir: str | os.PathLike = ""
) -> dict[str, MmImdbSplit]:
    """The splits `train`, `val` and `test` of the data set that was built in `data_dir`.

    One in a bucket is copied to `cache_dir`, see `cache.cache_root`.
    """
    builder = built.require_built(MmImdb, data_dir, cache_dir)
    return {split: MmImdbSplit(builder, split) for split in archive.SPLITS}


def tables(builder: MmImdb) -> dict[str, dict[str, list[int]]]:
    """What was built: heading -> row -> a number for each split."""
    splits = list(builder.info.metadata["counts"].values())
    kinds = ("movies", "without_plot", "without_poster", "without_label")
    labels = {label: [split["labels"][label] for split in splits] for label in LABELS}
    names = sorted({name for split in splits for name in split["dropped"]})
    return {
        "": {kind.replace("_", " "): [split[kind] for split in splits] for kind in kinds},
        "label": labels,
        "genre that is no label": {
            name: [split["dropped"].get(name, 0) for split in splits] for name in names
        },
    }


def remarks(builder: MmImdb) -> list[str]:
    """What else is to be told of what was built."""
    del builder
    return []
