"""Sequences of feature frames to a fixed number of steps.

A sequence covers one stretch of time in equal frames. What is not known (NaN, and infinities) is
masked element by element, from the reader to the network; it is never taken for zero.

n: frames of a cell, F: features, T: steps.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.data.cache import remember
from jfusion.data.columns import Cells, is_empty, near
from jfusion.data.paths import inside
from jfusion.data.problems import BadCell, DataError
from jfusion.data.progress import track
from jfusion.data.source import Source

_CONSTANT = 1e-6  # a spread below this share of the mean is rounding


class SequenceInput:
    """A column of sequences, preprocessed to T steps of standardised features.

    A longer sequence is cut into T equal stretches of time and each feature averaged over the known
    elements of each; a shorter one is kept as it is, and the steps after it are not valid.

    Attributes:
        column: The column of the table.
        arrays: `{array: (shape of a row, dtype)}`: `frames` float32 [T, F], 0 where not valid, and
            `valid` bool [T, F].
        width: The number of features F.
    """

    kind = "sequence"
    notes = ("valid", "infinite")

    def __init__(
        self,
        column: str,
        *,
        features: Sequence[str] = (),
        pick: Sequence[int],
        total: int,
        steps: int,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        """What `fit` finds.

        Args:
            column: The column of the table.
            features: The names of the F features, where they have any.
            pick: Where in a frame they stand.
            total: How many features a frame has.
            steps: The number of steps T.
            mean: What to take from each feature.
            std: What to divide it by then.
        """
        self.column = column
        self.width = len(pick)
        self.arrays = {
            "frames": ((steps, self.width), np.float32),
            "valid": ((steps, self.width), bool),
        }
        self._features = list(features)
        self._pick = [int(index) for index in pick]
        self._total = int(total)
        self._steps = int(steps)
        self._mean = np.array(mean, np.float64)
        self._std = np.array(std, np.float64)

    @classmethod
    def fit(
        cls,
        source: Source,
        column: str,
        *,
        features: Sequence[str] = (),
        steps: int,
        cache_dir: str | Path = "",
    ) -> "SequenceInput":
        """Finds the features, and the mean and spread of each over its known elements.

        Args:
            source: What to learn from: the training split and nothing else. Cells that cannot be
                used are passed over.
            column: The column.
            features: Which features to take, by the names that the source has for them; empty takes
                all.
            steps: The number of steps.
            cache_dir: See `cache.cache_root`.

        Raises:
            DataError: The source has no such features, or no cell can be read.
        """
        names = tuple(getattr(source, "features", {}).get(column, ()))
        for feature in features:
            if not names:
                raise DataError(
                    f"{source.name}: the features of column {column!r} have no names; leave out "
                    "the input's features to take all"
                )
            if feature not in names:
                raise DataError(
                    f"{source.name}: column {column!r} has no feature {feature!r}"
                    f"{near(feature, names)}"
                )
        pick = [names.index(feature) for feature in features or names]
        key = ["sequence", source.fingerprint, column, len(names), pick]
        found = remember(cache_dir, key, lambda: _measure(source, column, len(names), pick))
        return cls(column, features=features or names, steps=steps, **found)

    def spec(self) -> dict[str, Any]:
        """All that fixes the result, JSON-ready."""
        return {
            "kind": self.kind,
            "column": self.column,
            "features": self._features,
            "pick": self._pick,
            "total": self._total,
            "steps": self._steps,
            "mean": self._mean.tolist(),
            "std": self._std.tolist(),
        }

    def save(self, folder: Path, name: str) -> None:
        """Writes nothing: the spec says all."""

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], folder: Path, name: str) -> "SequenceInput":
        """Makes the input that `spec` describes."""
        return cls(**{key: value for key, value in spec.items() if key != "kind"})

    def encode(self, cells: Sequence[Any], root: Path | None = None) -> Cells:
        """Reads and averages non-empty cells, one after the other in the calling thread.

        Args:
            cells: Arrays or nested lists [n, features of a frame], or paths relative to `root` of
                `.npy` files that hold such arrays.
            root: The folder that paths may not leave.

        Returns:
            `frames` and `valid`, [cells, T, F] each. The notes are the share of `valid` elements
            in a cell and the number of `infinite` ones.
        """
        shape = (len(cells), self._steps, self.width)
        frames, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
        notes = {name: np.zeros(len(cells), np.float32) for name in self.notes}
        bad = {}
        for i, cell in enumerate(cells):
            try:
                values = _values(_frames(cell, root, self._total), self._pick)
                known = np.isfinite(values)
                if not known.any():
                    raise BadCell("not one value is known")
            except BadCell as problem:
                bad[i] = str(problem)
                continue
            notes["valid"][i] = known.mean()
            notes["infinite"][i] = np.isinf(values).sum()
            means, there = _average(values, known, self._steps)
            with np.errstate(over="ignore"):
                scaled = ((means - self._mean[None]) / self._std[None]).astype(np.float32)
            there &= np.isfinite(scaled)  # what no float32 can hold is as good as infinite
            frames[i, : len(means)] = np.where(there, scaled, 0)
            valid[i, : len(means)] = there
        return Cells({"frames": frames, "valid": valid}, bad, notes)


def _frames(cell: Any, root: Path | None, total: int = 0) -> np.ndarray:
    """The frames of a cell, [n, total] numbers of any type; a total of 0 takes any width."""
    if isinstance(cell, str):
        cell = _open(cell.strip(), root)
    elif isinstance(cell, list | tuple):
        try:
            with np.errstate(over="ignore"):
                cell = np.array(cell, np.float32)
        except (ValueError, TypeError) as error:
            raise BadCell(f"not frames of equally many numbers: {error}") from None
    if not isinstance(cell, np.ndarray):
        raise BadCell(f"neither a path nor frames of numbers but {type(cell).__name__}")
    if cell.dtype.kind not in "fiub":
        raise BadCell(f"not numbers but {cell.dtype}")
    if cell.ndim != 2:
        shape = " x ".join(map(str, cell.shape)) or "a single number"
        raise BadCell(f"expected 2 dimensions (frames x features), got {cell.ndim}: {shape}")
    if not len(cell):
        raise BadCell("it has no frame")
    if not cell.shape[1]:
        raise BadCell("its frames have no feature")
    if total and cell.shape[1] != total:
        raise BadCell(f"expected frames of {total} features, got {cell.shape[1]}")
    return cell


def _open(cell: str, root: Path | None) -> np.ndarray:
    """The array in a `.npy` file; what is not asked for is not read."""
    path = inside(cell, root, "sequence")
    try:
        # Not numpy.load, which would take other kinds of files for pickles.
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise BadCell(f"{cell!r} cannot be read: {error.strerror}") from None
    except Exception as error:
        # A damaged header is answered with almost any exception: ValueError, EOFError, SyntaxError,
        # TypeError, MemoryError. Python objects end here, too, and are not unpickled.
        raise BadCell(f"{cell!r} is no .npy file of numbers, or damaged: {error}") from None


def _values(frames: np.ndarray, pick: list[int]) -> np.ndarray:
    """The chosen features of frames: float32 [n, F]; larger numbers become infinite."""
    with np.errstate(over="ignore"):
        return np.take(np.asarray(frames, np.float32), pick, axis=1)


def _average(values: np.ndarray, known: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal stretches of time: float64 and bool, [min(n, T), F] each.

    Args:
        values: float32 [n, F].
        known: bool [n, F], the elements to average.
        steps: The number of stretches T.
    """
    values = np.where(known, values, 0).astype(np.float64)
    if len(values) <= steps:
        return values, known.copy()
    # A frame belongs to the stretch that its middle lies in: (i + 1/2) / n in [t / T, (t + 1) / T).
    starts = -((steps - 2 * np.arange(steps) * len(values)) // (2 * steps))  # [T]
    counts = np.add.reduceat(known, starts, axis=0, dtype=np.int64)
    return np.add.reduceat(values, starts, axis=0) / np.maximum(counts, 1), counts > 0


def _measure(source: Source, column: str, total: int, pick: list[int]) -> dict[str, Any]:
    """The arguments of a `SequenceInput` that the data tell; all features if none are picked."""
    if not total:
        total = _common_width(source, column)
        pick = list(range(total))
    count, mean = np.zeros(len(pick)), np.zeros(len(pick))
    squares = np.zeros(len(pick))  # the sum of squared distances to the mean
    for frames in _readable(source, column, total):
        values = _values(frames, pick).astype(np.float64)
        known = np.isfinite(values)
        here = known.sum(0)
        # Means of parts and distances within them: sums of squares would lose the small spreads.
        part = np.where(known, values, 0).sum(0) / np.maximum(here, 1)
        apart = np.where(known, values - part[None], 0)
        both = np.maximum(count + here, 1)
        squares += (apart**2).sum(0) + (part - mean) ** 2 * count * here / both
        mean += (part - mean) * here / both
        count += here
    std = np.sqrt(squares / np.maximum(count, 1))
    std[std <= _CONSTANT * np.abs(mean)] = 1
    return {"pick": pick, "total": total, "mean": mean.tolist(), "std": std.tolist()}


def _common_width(source: Source, column: str) -> int:
    """The number of features that most cells have."""
    widths = collections.Counter(frames.shape[1] for frames in _readable(source, column))
    if not widths:
        raise DataError(f"{source.name} has no sequence that can be read in column {column!r}")
    return widths.most_common(1)[0][0]


def _readable(source: Source, column: str, total: int = 0) -> Iterator[np.ndarray]:
    """The cells of a column that are there and right."""
    with track(f"{source.name}: measuring column {column!r}", len(source)) as advance:
        for row in range(len(source)):
            cell = source[row].get(column)
            advance(1)
            if is_empty(cell):
                continue
            try:
                yield _frames(cell, source.root, total)
            except BadCell:
                continue  # it is reported when all splits are read
