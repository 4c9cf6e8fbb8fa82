"""The embedded sample: invented movies whose best possible score is known.

Every movie has four hidden traits. The plot shows two of them (the hero's calling, love) and the
poster the other two (the scenery, the shadow of a blind), and the genres follow from them:

- Crime, War, Music: one for each calling; Romance: love. Only the plot tells.
- Western, Sci-Fi, Horror: one for each scenery; Film-Noir: the blind. Only the poster tells.
- Drama, Thriller, Adventure: by (calling + scenery) mod 3. Callings and sceneries are drawn
  independently and uniformly, so plot or poster alone says exactly nothing about these three.

Then each label is flipped with probability `NOISE`, and `MISSING` of the movies lack the plot or
the poster. Nobody can know the flips, which bounds every model's score: see `best_possible`.
"""

import functools
import itertools
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score

from jfusion.data.samples import plots, posters
from jfusion.data.samples.invented import Invented, split_sizes
from jfusion.data.source import Row

LABELS = (
    *("Crime", "War", "Music", "Romance"),
    *("Western", "Sci-Fi", "Horror", "Film-Noir"),
    *("Drama", "Thriller", "Adventure"),
)
COLUMNS = ("plot", "poster")
NOISE = 0.03
MISSING = 0.03
ROWS = {"train": 1600, "val": 300, "test": 500}

_LOVE = 0.4  # with both below one half, "no" is the best guess where the cue is not seen
_BLINDS = 0.35


@dataclass(frozen=True)
class Traits:
    """What a movie's genres follow from.

    Attributes:
        calling: Index into `plots.CALLINGS`; the plot shows it.
        love: Whether there is love; the plot shows it.
        scenery: Index into `posters.SCENERIES`; the poster shows it.
        blinds: Whether a blind throws its shadow; the poster shows it.
    """

    calling: int
    love: bool
    scenery: int
    blinds: bool

    def genres(self) -> np.ndarray:
        """The genres before noise: bool [C], in the order of `LABELS`."""
        one_of_three = np.eye(3, dtype=bool)
        return np.concatenate(
            [
                one_of_three[self.calling],
                [self.love],
                one_of_three[self.scenery],
                [self.blinds],
                one_of_three[(self.calling + self.scenery) % 3],
            ]
        )

    def seen(self, columns: Collection[str]) -> tuple:
        """The traits that the given columns show."""
        plot = (self.calling, self.love) if "plot" in columns else ()
        poster = (self.scenery, self.blinds) if "poster" in columns else ()
        return plot + poster


class Movies(Invented):
    """One split of the sample."""

    sample, version = "movies", 1

    def __getitem__(self, index: int) -> Row:
        traits, columns = self.traits(index), self.columns(index)
        plot = plots.write(self._rng(index, "plot"), plots.CALLINGS[traits.calling], traits.love)
        poster = _draw(self._stream(index, "poster"), traits.scenery, traits.blinds)
        return {
            "id": self._id(index),
            "plot": plot if "plot" in columns else None,
            "poster": poster if "poster" in columns else None,
            "genres": [LABELS[c] for c in np.flatnonzero(self.genres(index))],
        }

    def traits(self, index: int) -> Traits:
        """The hidden traits of a row."""
        rng = self._rng(index, "traits")
        return Traits(
            rng.randrange(3), rng.random() < _LOVE, rng.randrange(3), rng.random() < _BLINDS
        )

    def columns(self, index: int) -> tuple[str, ...]:
        """Which of `COLUMNS` a row has: one at least."""
        rng = self._rng(index, "columns")
        missing = rng.choice(COLUMNS) if rng.random() < MISSING else None
        return tuple(column for column in COLUMNS if column != missing)

    def genres(self, index: int) -> np.ndarray:
        """The genres with noise, as in the row's cell: bool [C]."""
        rng = self._rng(index, "noise")
        flips = np.array([rng.random() < NOISE for _ in LABELS])
        return self.traits(index).genres() ^ flips


def sources(rows: int = 0, seed: int = 0) -> dict[str, Movies]:
    """The three splits.

    Args:
        rows: Movies altogether, shared among the splits as in `ROWS`; 0 for all of `ROWS`.
        seed: Another seed gives other movies.
    """
    sizes = split_sizes("movies", ROWS, rows)
    return {split: Movies(split, size, seed) for split, size in sizes.items()}


def best_possible(
    source: Movies, columns: Collection[str] = COLUMNS, rows: Sequence[int] | None = None
) -> float:
    """The macro F1 of a reader who understands everything in the given columns.

    The reader knows how movies are made, sees the traits that a row's cells in `columns` show, and
    predicts a genre where its probability, given those, exceeds one half, which makes the fewest
    errors. It is scored, as a model is, against the labels of the split, flipped ones included.
    (F1 of a genre that cannot be known would gain from saying "yes" to every movie; a threshold of
    one half, here and in training, does not play that game.)

    Args:
        source: A split of the sample.
        columns: Which of `COLUMNS` the reader sees.
        rows: The rows to score, those that a model is scored on; None is all.
    """
    posterior = _posteriors()
    rows = range(len(source)) if rows is None else rows
    predicted = []
    for row in rows:
        visible = tuple(c for c in source.columns(row) if c in columns)
        predicted.append(posterior[visible, source.traits(row).seen(visible)] > 0.5)
    labels = np.stack([source.genres(row) for row in rows])
    return float(f1_score(labels, np.stack(predicted), average="macro", zero_division=0))


@functools.lru_cache(maxsize=4096)  # 20 MB: each pass over one column reads whole rows
def _draw(stream: str, scenery: int, blinds: bool) -> bytes:
    return posters.draw(random.Random(stream), posters.SCENERIES[scenery], blinds)


def _posteriors() -> dict[tuple, np.ndarray]:
    """(columns, seen traits) -> probability of each genre [C], by listing every kind of movie."""
    weights: dict[tuple, float] = {}
    sums: dict[tuple, np.ndarray] = {}
    for calling, love, scenery, blinds in itertools.product(
        range(3), (False, True), range(3), (False, True)
    ):
        traits = Traits(calling, love, scenery, blinds)
        weight = (_LOVE if love else 1 - _LOVE) * (_BLINDS if blinds else 1 - _BLINDS) / 9
        probability = np.where(traits.genres(), 1 - NOISE, NOISE)
        for columns in ((), ("plot",), ("poster",), COLUMNS):
            key = columns, traits.seen(columns)
            weights[key] = weights.get(key, 0.0) + weight
            sums[key] = sums.get(key, 0.0) + weight * probability
    return {key: total / weights[key] for key, total in sums.items()}
