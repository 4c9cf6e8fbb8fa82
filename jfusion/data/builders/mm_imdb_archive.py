"""Reads MM-IMDb as it is handed out: `split.json`, `dataset/<id>.json`, `dataset/<id>.jpeg`.

The whole of the text is read and checked before anything is built, so that every fault of an
archive is told at once.
"""

import gzip
import json
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jfusion.data.problems import DataError, Problem

# In order of frequency over the whole data set, the order of `multimodal_imdb.hdf5`.
LABELS = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror"),
    *("Documentary", "Mystery", "Sci-Fi", "Fantasy", "Family", "Biography", "War", "History"),
    *("Music", "Animation", "Musical", "Western", "Sport", "Short", "Film-Noir"),
)
SPLITS = {"train": "train", "val": "dev", "test": "test"}
"""jfusion's name of a split -> its key in `split.json`."""

_ID = re.compile(r"[0-9]{7,8}")
_MEMBER = re.compile(r"(?:\./)?(?:mmimdb/)?(split\.json|dataset/[0-9]{7,8}\.(?:json|jpeg))")

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Movie:
    """One movie of the archive.

    Attributes:
        id: The digits that name its files, leading zeros included.
        plot: The longest of its plots; empty where it has none.
        genres: Those of `LABELS`.
        dropped: Its other genres.
        poster: The picture's file; None where there is none or it has no bytes.
    """

    id: str
    plot: str
    genres: tuple[str, ...]
    dropped: tuple[str, ...]
    poster: Path | None


def find(folder: Path) -> Path:
    """The folder that holds `split.json`: the one given, or `mmimdb` in it."""
    if not folder.exists():
        raise DataError(f"{folder}: no such folder or file")
    for root in (folder, folder / "mmimdb"):
        if (root / "split.json").is_file():
            return root
    raise DataError(
        f"{folder}: has no split.json; expected the folder that mmimdb.tar.gz unpacks to "
        "(split.json and dataset/), or that file"
    )


def unpack(source: Path, folder: Path, progress: Progress = iter) -> None:
    """Unpacks what belongs to the data set, and nothing else that a tar file can hold."""
    (folder / "dataset").mkdir(parents=True)
    try:
        with tarfile.open(source) as tar:
            for member in progress(tar):
                match = _MEMBER.fullmatch(member.name)
                if match and member.isfile():
                    (folder / match[1]).write_bytes(tar.extractfile(member).read())
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{source}: not a whole tar file: {error}") from error
    if not (folder / "split.json").is_file():
        raise DataError(f"{source}: has no split.json; is it mmimdb.tar.gz?")


def read(root: Path, progress: Progress = iter) -> dict[str, list[Movie]]:
    """Reads and checks every movie of the archive.

    Args:
        root: The folder that holds `split.json`.
        progress: Wraps the ids as they are gone through.

    Returns:
        The movies of `train`, `val` and `test`, in the order of `split.json`.

    Raises:
        DataError: Names every file that is missing or broken.
    """
    ids, problems = _read_ids(root / "split.json")
    movies: dict[str, list[Movie]] = {split: [] for split in ids}
    everything = [(split, movie_id) for split, listed in ids.items() for movie_id in listed]
    for split, movie_id in progress(everything):
        movie = _read_movie(root, movie_id)
        if isinstance(movie, Movie):
            movies[split].append(movie)
        else:
            problems.append(movie)
    if problems:
        raise DataError(f"{root}: this is not MM-IMDb as it is handed out", problems)
    return movies


def summary(movies: Iterable[Movie]) -> dict[str, Any]:
    """Counts of a split, ready for JSON."""
    movies = list(movies)
    genres = Counter(genre for movie in movies for genre in movie.genres)
    dropped = Counter(genre for movie in movies for genre in movie.dropped)
    return {
        "movies": len(movies),
        "without_plot": sum(not movie.plot for movie in movies),
        "without_poster": sum(movie.poster is None for movie in movies),
        "without_label": sum(not movie.genres for movie in movies),
        "labels": {label: genres[label] for label in LABELS},
        "dropped": dict(dropped.most_common()),
    }


def _read_ids(file: Path) -> tuple[dict[str, list[str]], list[Problem]]:
    """The good ids of each split, and what is wrong with the others."""
    content = _read_json(file)
    if isinstance(content, str):
        raise DataError(f"{file}: {content}")
    lists = {split: content.get(key) for split, key in SPLITS.items()}
    for split, listed in lists.items():
        if not isinstance(listed, list) or not listed:
            raise DataError(f"{file}: {SPLITS[split]!r} is not a list of movies")
    ids: dict[str, list[str]] = {split: [] for split in lists}
    problems, first = [], {}
    for split, listed in lists.items():
        for place, movie_id in enumerate(listed, start=1):
            here = f"{SPLITS[split]} entry {place}"
            if not isinstance(movie_id, str) or not _ID.fullmatch(movie_id):
                reason = f"{movie_id!r} is not a text of 7 digits"
            elif movie_id in first:
                reason = f"{movie_id} stands at {first[movie_id]} too"
            else:
                first[movie_id] = here
                ids[split].append(movie_id)
                continue
            problems.append(Problem(str(file), here, "id", reason))
    return ids, problems


def _read_movie(root: Path, movie_id: str) -> Movie | Problem:
    file = root / "dataset" / f"{movie_id}.json"

    def problem(column: str, reason: str) -> Problem:
        return Problem(str(file), f"(id {movie_id})", column, reason)

    content = _read_json(file)
    if isinstance(content, str):
        return problem("plot, genres", content)
    plots, genres = content.get("plot") or [], content.get("genres") or []
    if isinstance(plots, str):
        plots = [plots]
    if not _are_texts(plots):
        return problem("plot", "not a list of texts")
    if not _are_texts(genres):
        return problem("genres", "not a list of texts")
    poster = file.with_suffix(".jpeg")
    return Movie(
        id=movie_id,
        plot=max((_clean(plot) for plot in plots), key=len, default=""),
        genres=tuple(label for label in LABELS if label in genres),
        dropped=tuple(genre for genre in dict.fromkeys(genres) if genre not in LABELS),
        poster=poster if poster.is_file() and poster.stat().st_size else None,
    )


def _read_json(file: Path) -> dict[str, Any] | str:
    """The JSON object of a file, or what is wrong with it."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return content if isinstance(content, dict) else "not a JSON object"


def _clean(text: str) -> str:
    # JSON can hold halves of surrogate pairs, which no other format takes.
    return text.encode("utf-8", "replace").decode().strip()


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
