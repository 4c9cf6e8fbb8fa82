"""A made-up archive with the layout of MM-IMDb and every oddity that the real one has.

write(folder) -> folder/split.json, folder/dataset/<id>.json, folder/dataset/<id>.jpeg
"""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

GENRES = (
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror"),
    *("Documentary", "Mystery", "Sci-Fi", "Fantasy", "Family", "Biography", "War", "History"),
    *("Music", "Animation", "Musical", "Western", "Sport", "Short", "Film-Noir"),
)
SEVERAL_PLOTS = ["Two words.", "The longest of the three: naïve “quotes”, 日本語.", "Neither, nor."]

_SPLITS = ("train", "train", "train", "train", "train", "train", "dev", "test", "test", "test")


def write(folder: Path, movies: int = 60, seed: int = 0) -> dict[str, str]:
    """Writes the archive.

    Args:
        folder: Where `split.json` and `dataset` go; made if it is not there.
        movies: How many, at least as many as there are oddities.
        seed: Another seed, other movies.

    Returns:
        Oddity -> id of the movie that has it.
    """
    if movies < len(_ODDITIES):
        raise ValueError(f"{len(_ODDITIES)} oddities do not fit into {movies} movies")
    rng = random.Random(seed)
    (folder / "dataset").mkdir(parents=True)
    ids = [f"{number:07d}" for number in rng.sample(range(1, 999_999), movies)]
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for row, movie_id in enumerate(ids):
        splits[_SPLITS[row % len(_SPLITS)]].append(movie_id)
        genres = rng.sample(GENRES, rng.randint(1, 4))
        metadata = _metadata(rng, movie_id, genres)
        picture = _poster(rng, genres)
        poster: bytes | None = _encoded(picture, "JPEG")
        if row < len(_ODDITIES):
            poster = _ODDITIES[list(_ODDITIES)[row]](metadata, picture, poster)
        (folder / "dataset" / f"{movie_id}.json").write_text(json.dumps(metadata))
        if poster is not None:
            (folder / "dataset" / f"{movie_id}.jpeg").write_bytes(poster)
    (folder / "split.json").write_text(json.dumps(splits))
    return dict(zip(_ODDITIES, ids, strict=False))


def _metadata(rng: random.Random, movie_id: str, genres: list[str]) -> dict[str, Any]:
    """Some of the keys of an IMDbPY dump, nested as there."""
    person = {"name": "Marlow, Ida", "long imdb name": "Ida Marlow", "billingPos": 1}
    plot = " ".join(f"A story of {genre.lower()} number {rng.randint(1, 9)}." for genre in genres)
    return {
        "title": f"Movie {movie_id}",
        "year": rng.randint(1920, 2015),
        "kind": "movie",
        "genres": genres,
        "plot": [plot],
        "plot outline": plot[:20],
        "cast": [person, {**person, "currentRole": {"name": "The Captain"}}],
        "director": [person],
        "production companies": [{"name": "Lantern Pictures", "country": "[us]"}],
        "languages": ["English"],
        "rating": rng.random() * 10,
        "votes": rng.randint(5, 100_000),
        "cover url": f"http://example.org/{movie_id}.jpg",
    }


def _poster(rng: random.Random, genres: list[str]) -> Image.Image:
    """A bar per genre on a plain ground; the bar's colour and place tell the genre."""
    picture = Image.new("RGB", (54, 80), tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    for genre in genres:
        place = GENRES.index(genre)
        pen.rectangle(
            [0, 3 * place + 6, 53, 3 * place + 8], fill=(11 * place, 255 - 11 * place, 128)
        )
    return picture


def _encoded(picture: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def _with(**changes: Any) -> Callable:
    """An oddity of the metadata; None takes a key away."""

    def change(metadata: dict[str, Any], picture: Image.Image, poster: bytes) -> bytes:
        metadata.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del metadata[key]
        return poster

    return change


def _picture(make: Callable[[Image.Image], bytes | None]) -> Callable:
    """An oddity of the poster."""
    return lambda metadata, picture, poster: make(picture)


_ODDITIES = {
    "grey": _picture(lambda p: _encoded(p.convert("L"), "JPEG")),
    "cmyk": _picture(lambda p: _encoded(p.convert("CMYK"), "JPEG")),
    "palette_png": _picture(lambda p: _encoded(p.convert("P"), "PNG")),
    "transparent_png": _picture(lambda p: _encoded(p.convert("RGBA"), "PNG")),
    "gif": _picture(lambda p: _encoded(p.convert("P"), "GIF")),
    "huge": _picture(lambda p: _encoded(Image.new("RGB", (3000, 4500), (90, 20, 20)), "JPEG")),
    "no_poster": _picture(lambda p: None),
    "empty_poster": _picture(lambda p: b""),
    "zero_labels": _with(genres=["News", "Adult"]),
    "no_genres": _with(genres=[]),
    "some_dropped": _with(genres=["News", "Drama", "Talk-Show", "Reality-TV"]),
    "repeated_genre": _with(genres=["War", "Drama", "War"]),
    "several_plots": _with(plot=SEVERAL_PLOTS),
    "empty_plot": _with(plot=["", "  \n"]),
    "no_plots": _with(plot=[]),
    "no_plot_key": _with(plot=None),
    "long_plot": _with(plot=["And then the captain laughed. " * 800]),
    "half_a_character": _with(plot=["Before \ud83d after."]),
    "wordless": lambda metadata, picture, poster: _with(plot=[])(metadata, picture, None),
}
