"""What the samples share: splits of rows that are made when they are asked for."""

import abc
import hashlib
import random
from collections.abc import Mapping
from typing import ClassVar

from jfusion.data.problems import DataError
from jfusion.data.source import Row


class Invented(abc.ABC):
    """One split of a sample, a `Source`.

    Attributes:
        sample: The sample's name.
        version: To be raised with every change of what the same seed gives: the cache goes by it.
        name: For messages, `movies/train`.
        fingerprint: Changes with the generator, the seed, the split and its size.
        root: None: no cell is a path.
    """

    sample: ClassVar[str]
    version: ClassVar[int]
    root = None

    def __init__(self, split: str, rows: int, seed: int = 0):
        self.name = f"{self.sample}/{split}"
        self.fingerprint = hashlib.sha256(
            f"{self.sample} {self.version} {seed} {split} {rows}".encode()
        ).hexdigest()
        self._split, self._rows, self._seed = split, rows, seed

    def __len__(self) -> int:
        return self._rows

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Row: ...

    def locate(self, index: int) -> str:
        """Where a person finds the row."""
        return f"{self.name} row {index + 1} (id {self._id(index)})"

    def _id(self, index: int) -> str:
        if not 0 <= index < self._rows:
            raise IndexError(f"{self.name} has {self._rows} rows; there is no row {index + 1}")
        return f"{self._split}-{index + 1:04d}"

    def _rng(self, index: int, purpose: str) -> random.Random:
        return random.Random(self._stream(index, purpose))

    def _stream(self, index: int, purpose: str) -> str:
        # Each cell has a seed of its own: a new word in a text moves no label.
        return f"{self._seed}/{self._split}/{index}/{purpose}"


def split_sizes(sample: str, usual: Mapping[str, int], rows: int) -> dict[str, int]:
    """Rows of each split.

    Args:
        sample: The sample's name.
        usual: Rows of `train`, `val` and `test` as they usually are.
        rows: Rows altogether, shared among the splits as those are; 0 for all of those.

    Raises:
        DataError: Fewer than 10 rows.
    """
    total = sum(usual.values())
    rows = rows or total
    if rows < 10:
        raise DataError(f"the {sample} sample needs at least 10 rows for its 3 splits, got {rows}")
    sizes = {split: max(1, rows * usual[split] // total) for split in ("val", "test")}
    return {"train": rows - sum(sizes.values()), **sizes}
