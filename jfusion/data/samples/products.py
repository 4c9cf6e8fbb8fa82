"""The embedded sample: invented product listings whose best possible score is known.

A listing belongs to one of twelve classes with numeric codes, which are told in four ways:

- `text`: three classes, one for each of three topics of the title; the picture shows packing.
- `picture`: three, one for each of three objects in the picture; the title tells no topic.
- `both`: four, one for each pair of two more topics and two more objects. The title alone leaves
  two of them open, and so does the picture.
- `price`: two. Title and picture tell nothing; what the thing is worth does, dear or cheap, and
  that follows from price and condition together: a worse condition takes one step off the price.

Prices and conditions of the other classes, and the numbers of reviews of all, tell nothing.
`NOISE` of the labels are wrong. `MISSING` of the listings lack the title, or the picture, or price,
reviews and condition together, and more of them lack one of these three. See `best_possible` for
what a model can reach.
"""

import functools
import itertools
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jfusion.data.samples import objects, titles
from jfusion.data.samples.invented import Invented, split_sizes
from jfusion.data.source import Row


class _Class(NamedTuple):
    """A class: how frequent it is, and what tells it (None: nothing of this kind)."""

    share: float
    topic: int | None = None
    shown: int | None = None
    dear: bool | None = None


_CLASSES = {
    "110": _Class(0.14, topic=0),
    "230": _Class(0.05, topic=3, shown=4),
    "1150": _Class(0.08, shown=1),
    "1270": _Class(0.09, dear=True),
    "1390": _Class(0.09, topic=3, shown=3),
    "2010": _Class(0.05, topic=2),
    "2120": _Class(0.13, shown=0),
    "2240": _Class(0.07, topic=4, shown=4),
    "2360": _Class(0.08, topic=1),
    "2480": _Class(0.11, dear=False),
    "2590": _Class(0.05, shown=2),
    "2910": _Class(0.06, topic=4, shown=3),
}
LABELS = tuple(_CLASSES)
COLUMNS = ("designation", "image", "price", "reviews", "condition")
CONDITIONS = ("new", "refurbished", "used")
NOISE = 0.03
MISSING = 0.03
ROWS = {"train": 2000, "val": 400, "test": 600}

_MODALITIES = (("designation",), ("image",), ("price", "reviews", "condition"))
# What may be missing by itself.
_GAPS = {"price": 0.02, "reviews": 0.15, "condition": 0.02}
_CHEAPEST, _STEP = 8.0, 2.2  # a price, and by what the next step of prices is higher


@dataclass(frozen=True)
class Traits:
    """What a listing shows.

    Attributes:
        label: Index into `LABELS`, of the class before noise.
        dear: Whether the thing is worth much; price and condition show it together.
        condition: Index into `CONDITIONS`.
    """

    label: int
    dear: bool
    condition: int

    @property
    def step(self) -> int:
        """The step of the price, 0 to 3: the worth less what the condition takes off."""
        return self.dear - self.condition + 2

    def seen(self, columns: Collection[str]) -> tuple:
        """What the given columns show."""
        told = _CLASSES[LABELS[self.label]]
        return (
            (told.topic,) if "designation" in columns else (),
            (told.shown,) if "image" in columns else (),
            (self.step,) if "price" in columns else (),
            (self.condition,) if "condition" in columns else (),
        )


class Products(Invented):
    """One split of the sample."""

    sample, version = "products", 1

    def __getitem__(self, index: int) -> Row:
        name, columns, traits = self._id(index), self.columns(index), self.traits(index)
        told = _CLASSES[LABELS[traits.label]]
        topic = None if told.topic is None else titles.TOPICS[told.topic]
        shown = None if told.shown is None else objects.OBJECTS[told.shown]
        cells = {
            "designation": titles.write(self._rng(index, "designation"), topic),
            "image": _draw(self._stream(index, "image"), shown),
            "price": _price(self._rng(index, "price"), traits.step),
            "reviews": int(self._rng(index, "reviews").expovariate(1 / 40)),
            "condition": CONDITIONS[traits.condition],
        }
        return {
            "id": name,
            **{column: cells[column] if column in columns else None for column in COLUMNS},
            "code": LABELS[self.label(index)],
        }

    def traits(self, index: int) -> Traits:
        """The hidden traits of a row."""
        rng = self._rng(index, "traits")
        shares = [told.share for told in _CLASSES.values()]
        (label,) = rng.choices(range(len(LABELS)), shares)
        dear, condition = rng.random() < 0.5, rng.randrange(len(CONDITIONS))
        told = _CLASSES[LABELS[label]].dear
        return Traits(label, dear if told is None else told, condition)

    def columns(self, index: int) -> tuple[str, ...]:
        """Which of `COLUMNS` a row has: title or picture at least."""
        rng = self._rng(index, "columns")
        gone = {column for column, share in _GAPS.items() if rng.random() < share}
        if rng.random() < MISSING:
            gone |= set(rng.choice(_MODALITIES))
        return tuple(column for column in COLUMNS if column not in gone)

    def label(self, index: int) -> int:
        """The class with noise, as in the row's cell: an index into `LABELS`."""
        rng, label = self._rng(index, "noise"), self.traits(index).label
        if rng.random() >= NOISE:
            return label
        return (label + rng.randrange(1, len(LABELS))) % len(LABELS)


def sources(rows: int = 0, seed: int = 0) -> dict[str, Products]:
    """The three splits.

    Args:
        rows: Listings altogether, shared among the splits as in `ROWS`; 0 for all of `ROWS`.
        seed: Another seed gives other listings.
    """
    sizes = split_sizes("products", ROWS, rows)
    return {split: Products(split, size, seed) for split, size in sizes.items()}


def best_possible(
    source: Products, columns: Collection[str] = COLUMNS, rows: Sequence[int] | None = None
) -> dict[str, float]:
    """The scores of readers who understand everything in the given columns.

    They know how listings are made and see what a row's cells in `columns` show. One predicts the
    class that is most probable given that, which makes the fewest errors. Where classes cannot be
    told apart, that gives up all but one of them, and macro F1 counts every class alike: another
    reader spreads its answers over them so that macro F1 is as high as can be expected. Both are
    scored, as a model is, against the labels of the split, wrong ones included.

    Args:
        source: A split of the sample.
        columns: Which of `COLUMNS` the readers see.
        rows: The rows to score, those that a model is scored on; None is all.

    Returns:
        The second reader's `macro_f1`, and the first one's `accuracy`.
    """
    known = _probabilities()
    counts: dict[tuple, np.ndarray] = {}
    for row in range(len(source)) if rows is None else rows:
        visible = [column for column in source.columns(row) if column in columns]
        seen = source.traits(row).seen(visible)
        counts.setdefault(seen, np.zeros(len(LABELS)))[source.label(row)] += 1
    here = np.stack(list(counts.values()))  # [S, C]: what is seen, and which label stands there
    probable = np.stack([known[seen] for seen in counts])
    right = np.take_along_axis(here, probable.argmax(1)[:, None], axis=1).sum()
    shares = _for_macro_f1(probable, here.sum(1))
    hits, made = (shares * here).sum(0), here.sum(1) @ shares + here.sum(0)
    f1 = np.divide(2 * hits, made, out=np.zeros(len(LABELS)), where=made > 0)
    return {"macro_f1": float(f1.mean()), "accuracy": float(right / here.sum())}


def _price(rng: random.Random, step: int) -> float:
    """A price within a step; between two steps no prices lie."""
    return round(_CHEAPEST * _STEP ** (step + rng.uniform(0.1, 0.9)), 2)


@functools.lru_cache(maxsize=8192)  # 20 MB: each pass over one column reads whole rows
def _draw(stream: str, shown: str | None) -> bytes:
    return objects.draw(random.Random(stream), shown)


@functools.cache
def _probabilities() -> dict[tuple, np.ndarray]:
    """What is seen -> the probability of each class [C], by listing every kind of listing."""
    weights: dict[tuple, np.ndarray] = {}
    for label, dear, condition in itertools.product(
        range(len(LABELS)), (False, True), range(len(CONDITIONS))
    ):
        told = _CLASSES[LABELS[label]]
        if told.dear not in (None, dear):
            continue
        traits = Traits(label, dear, condition)
        share = told.share if told.dear is not None else told.share / 2
        # Reviews tell nothing: with them or without, the same is seen.
        for size in range(len(COLUMNS)):
            for columns in itertools.combinations([c for c in COLUMNS if c != "reviews"], size):
                weight = weights.setdefault(traits.seen(columns), np.zeros(len(LABELS)))
                weight[label] += share
    wrong = NOISE / (len(LABELS) - 1)
    return {
        seen: wrong + (1 - NOISE - wrong) * weight / weight.sum()
        for seen, weight in weights.items()
    }


def _for_macro_f1(probable: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which share of its answers a reader gives to each class, for the highest macro F1.

    Args:
        probable: The probability of each class given what is seen [S, C].
        rows: In how many rows that is seen [S].

    Returns:
        [S, C], found by the method of Frank and Wolfe.
    """
    shares, expected = probable.copy(), rows @ probable
    for step in range(1000):
        hits, made = rows @ (shares * probable), rows @ shares + expected
        gain = (probable - hits / made) / made  # half the slope of the sum of 2 hits / made
        shares += (np.eye(len(expected))[gain.argmax(1)] - shares) / (step + 2)
    return shares
