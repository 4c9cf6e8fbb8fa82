"""The embedded sample: invented interviews whose best possible score is known.

Every interview has five hidden traits, from which a score like that of the PHQ-8 follows:

- `mood`, one of three: only the words of the transcript tell.
- `loud`: some features of the audio are higher on average.
- `voice_order`: two events in the voice come in pairs, a few steps apart; which of the two comes
  first? Only the audio's order in time tells.
- `face_order`: the same in the video, with a frown and a smile.
- The low mood turns part of the effect of `voice_order` around: this part takes both modalities.

The two orders are each other's mirror images in time, so that an average over time, of the features
or of anything computed from single frames, has the same distribution with either.

To the score comes noise with a standard deviation of `NOISE`; then it is rounded and clipped to 0
to 24. Features of a frame may be unknown (NaN) or infinite, and `MISSING` of the interviews lack
one modality. See `best_possible` for what a model can reach.
"""

import functools
import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from jfusion.data.builders.daic_woz_frames import AUDIO, VIDEO_DEFAULT
from jfusion.data.samples import answers
from jfusion.data.samples.invented import Invented, split_sizes
from jfusion.data.source import Row

COLUMNS = ("transcript", "audio", "video")
FEATURES = {"audio": AUDIO, "video": VIDEO_DEFAULT}
HIGHEST = 24
NOISE = 1.5
MISSING = 0.04
ROWS = {"train": 600, "val": 150, "test": 250}

_TWICE = 0.3  # of the pairs of neighbouring rows are of the same participant
_FRAMES = (120, 240)

# What the traits add to the score.
_BASE = 7.0
_MOOD = (-3.8, -1.2, 5.0)
_LOUD = 2.2
_VOICE_ORDER = 2.6
_FACE_ORDER = 2.8
_TOGETHER = 1.6

# What the traits do to the features, in standard deviations of the noise in a frame.
_LOUD_FEATURES = ("MCEP_0", "HMPDD_0", "HMPDD_1")
_LOUDER = 0.5
_EVENTS = {
    "audio": (
        tuple(f"MCEP_{n}" for n in range(1, 11)),
        tuple(f"MCEP_{n}" for n in range(11, 21)),
    ),
    "video": (("AU04_r", "AU15_r"), ("AU06_r", "AU12_r")),  # a frown, a smile
}
_PEAK = 6.0
# Of events, in shares of the interview: half their width, and how far those of a pair are apart.
_WIDTH = 0.01
_APART = (0.045, 0.065)

# Shares of what is not known, and of audios with infinite elements.
_UNVOICED = 0.1
_FACE_LOST = 0.5
_INFINITE = 0.1


@dataclass(frozen=True)
class Traits:
    """What an interview's score follows from.

    Attributes:
        mood: Index into `answers.MOODS`.
        loud: Whether the voice is loud.
        voice_order: Whether the second of the voice's events comes first.
        face_order: Whether the smile comes before the frown.
    """

    mood: int
    loud: bool
    voice_order: bool
    face_order: bool

    def centre(self) -> float:
        """The score before noise, rounding and clipping."""
        together = (self.mood == 2) != self.voice_order
        return (
            _BASE
            + _MOOD[self.mood]
            + _LOUD * _sign(self.loud)
            + _VOICE_ORDER * _sign(self.voice_order)
            + _FACE_ORDER * _sign(self.face_order)
            + _TOGETHER * _sign(together)
        )

    def seen(self, columns: Collection[str], order: bool = True) -> tuple:
        """The traits that the given columns show, with or without their order in time."""
        words = (self.mood,) if "transcript" in columns else ()
        voice = (self.loud, self.voice_order if order else None) if "audio" in columns else ()
        face = (self.face_order,) if "video" in columns and order else ()
        return words, voice, face


class Interviews(Invented):
    """One split of the sample. A participant has one or two interviews, in the same mood.

    Attributes:
        features: Column -> the names of its features.
    """

    sample, version = "interviews", 2
    features = FEATURES

    def __getitem__(self, index: int) -> Row:
        name, columns, traits = self._id(index), self.columns(index), self.traits(index)
        cells = {
            "transcript": lambda: answers.write(
                self._rng(index, "transcript"), answers.MOODS[traits.mood]
            ),
            "audio": lambda: self._audio(index, traits),
            "video": lambda: self._video(index, traits),
        }
        return {
            "id": name,
            "participant": f"{self._split}-p{self._first(index) + 1:04d}",
            **{column: cells[column]() if column in columns else None for column in COLUMNS},
            "phq8": self.score(index),
        }

    def traits(self, index: int) -> Traits:
        """The hidden traits of a row."""
        rng = self._rng(index, "traits")
        mood = self._rng(self._first(index), "mood").randrange(3)
        return Traits(mood, *(rng.random() < 0.5 for _ in range(3)))

    def columns(self, index: int) -> tuple[str, ...]:
        """Which of `COLUMNS` a row has: all, or all but one."""
        rng = self._rng(index, "columns")
        missing = rng.choice(COLUMNS) if rng.random() < MISSING else None
        return tuple(column for column in COLUMNS if column != missing)

    def score(self, index: int) -> float:
        """The score with noise, as in the row's cell."""
        noisy = self.traits(index).centre() + self._rng(index, "noise").gauss(0, NOISE)
        return float(min(max(math.floor(noisy + 0.5), 0), HIGHEST))

    def _audio(self, index: int, traits: Traits) -> np.ndarray:
        """float32 [frames, 74]."""
        rng = self._generator(index, "audio")
        frames = self._noise(rng, index, "audio", traits.voice_order)
        frames[:, _places("audio", _LOUD_FEATURES)] += _LOUDER * _sign(traits.loud)
        frames = _scaled(frames, "audio")
        # Frames without voice have no pitch and no shape of the glottis; the spectrum stays.
        frames[rng.random(len(frames)) < _UNVOICED, :10] = np.nan
        if rng.random() < _INFINITE:
            where = rng.integers(frames.size, size=rng.integers(1, 5))
            frames.flat[where] = rng.choice([-np.inf, np.inf], size=len(where))
        return frames

    def _video(self, index: int, traits: Traits) -> np.ndarray:
        """float32 [frames, 10]."""
        rng = self._generator(index, "video")
        frames = _scaled(self._noise(rng, index, "video", traits.face_order), "video")
        if rng.random() < _FACE_LOST:
            length = rng.integers(2, 13)
            start = rng.integers(len(frames) - length + 1)
            frames[start : start + length] = np.nan
        return frames

    def _noise(
        self, rng: np.random.Generator, index: int, column: str, second_first: bool
    ) -> np.ndarray:
        """Noise and pairs of events: float32 [frames, features]."""
        count = self._rng(index, "frames").randint(*_FRAMES)  # audio and video have one clock
        frames = rng.standard_normal((count, len(FEATURES[column])), np.float32)
        early, late = _pairs(rng, count)
        if second_first:
            early, late = late, early
        first, second = (_places(column, names) for names in _EVENTS[column])
        frames[:, first] += early[:, None]
        frames[:, second] += late[:, None]
        return frames

    def _first(self, index: int) -> int:
        """The first row of the row's participant."""
        pair = index - index % 2
        return pair if self._rng(pair, "participant").random() < _TWICE else index

    def _generator(self, index: int, purpose: str) -> np.random.Generator:
        return np.random.default_rng(self._rng(index, purpose).getrandbits(128))


def sources(rows: int = 0, seed: int = 0) -> dict[str, Interviews]:
    """The three splits.

    Args:
        rows: Interviews altogether, shared among the splits as in `ROWS`; 0 for all of `ROWS`.
        seed: Another seed gives other interviews.
    """
    sizes = split_sizes("interviews", ROWS, rows)
    return {split: Interviews(split, size, seed) for split, size in sizes.items()}


def best_possible(
    source: Interviews,
    columns: Collection[str] = COLUMNS,
    rows: Sequence[int] | None = None,
    *,
    order: bool = True,
) -> dict[str, float]:
    """The RMSE of a reader who understands everything in the given columns.

    The reader knows how interviews are made, sees the traits that a row's cells in `columns` show,
    and predicts the mean score of all interviews with these. It is scored, as a model is, against
    the scores of the split, noise included.

    Args:
        source: A split of the sample.
        columns: Which of `COLUMNS` the reader sees.
        rows: The rows to score, those that a model is scored on; None is all.
        order: Whether the reader sees the order in time; otherwise means over time alone.
    """
    means = _means(order)
    errors = []
    for row in range(len(source)) if rows is None else rows:
        visible = tuple(c for c in source.columns(row) if c in columns)
        seen = source.traits(row).seen(visible, order)
        errors.append(means[seen] - source.score(row))
    return {"rmse": float(np.sqrt(np.mean(np.square(errors))))}


def _sign(value: bool) -> int:
    return 1 if value else -1


def _pairs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The course of the early and of the late events of two or three pairs: float32 [count] each.

    Mirrored in time they have the same distribution, early and late exchanged.
    """
    slots = rng.permutation(3)[: rng.integers(2, 4)]
    middles = (slots + rng.uniform(0.25, 0.75, len(slots))) / 3
    half = rng.uniform(*_APART, len(slots)) / 2
    clock = (np.arange(count) + 0.5) / count

    def course(centres: np.ndarray) -> np.ndarray:
        bumps = np.exp(-0.5 * ((clock[:, None] - centres[None]) / _WIDTH) ** 2)
        return (_PEAK * bumps.sum(axis=1)).astype(np.float32)

    return course(middles - half), course(middles + half)


@functools.cache
def _places(column: str, names: tuple[str, ...]) -> list[int]:
    return [FEATURES[column].index(name) for name in names]


@functools.cache
def _scales(column: str) -> tuple[np.ndarray, np.ndarray]:
    """Offset and unit of each feature, which differ as those of real ones do."""
    rng = np.random.default_rng(len(FEATURES[column]))
    units = 10 ** rng.uniform(-1, 2, len(FEATURES[column]))
    offsets = units * rng.uniform(-3, 3, len(units))
    return offsets.astype(np.float32), units.astype(np.float32)


def _scaled(frames: np.ndarray, column: str) -> np.ndarray:
    offsets, units = _scales(column)
    return offsets[None] + units[None] * frames


@functools.cache
def _means(order: bool) -> dict[tuple, float]:
    """Seen traits -> mean of the score, by listing every kind of interview."""
    sums: dict[tuple, list[float]] = {}
    for kind in itertools.product(range(3), *[(False, True)] * 3):  # all equally frequent
        traits = Traits(*kind)
        mean = _mean_score(traits.centre())
        for size in range(len(COLUMNS) + 1):
            for columns in itertools.combinations(COLUMNS, size):
                sums.setdefault(traits.seen(columns, order), []).append(mean)
    return {seen: float(np.mean(means)) for seen, means in sums.items()}


def _mean_score(centre: float) -> float:
    """The mean of the score after noise, rounding and clipping."""
    # The sum over k from 1 on of P(score >= k), that is of P(centre + noise >= k - 1/2).
    deviations = ((k - 0.5 - centre) / NOISE for k in range(1, HIGHEST + 1))
    return sum(math.erfc(z / math.sqrt(2)) / 2 for z in deviations)
