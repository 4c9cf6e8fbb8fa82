"""Token numbers of texts, laid into windows of one size.

n texts, W windows, N tokens of a window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Windows:
    """The room that each text has.

    Attributes:
        tokens: Tokens of a window N.
        count: Windows of a text W.
        pad: The number that fills the places after a text.
    """

    tokens: int
    count: int = 1
    pad: int = 0

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """`{array: (shape of a row, dtype)}`: `ids` int32 [N], `length` int32 []; with W > 1 `ids`
        int32 [W, N] and `length` int32 [W], 0 for a window that is not used."""
        several = (self.count,) if self.count > 1 else ()
        return {"ids": ((*several, self.tokens), np.int32), "length": (several, np.int32)}

    def cut(self, ids: list[int]) -> list[list[int]]:
        """Cuts a text without special tokens into windows, one at least."""
        return [ids[start : start + self.tokens] for start in range(0, len(ids) or 1, self.tokens)]

    def pack(
        self, texts: Mapping[int, list[list[int]]], rows: int, special: int = 0
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Lays texts into arrays.

        Args:
            texts: The windows of a text, by its row; if there are more than W, those that are
                taken are spread evenly over the text.
            rows: The number of rows n; those without a text are 0.
            special: Tokens of each window that are not the text's.

        Returns:
            The arrays, and which share of each text's tokens they hold, float32 [n].
        """
        ids = np.zeros((rows, self.count, self.tokens), np.int32)
        length = np.zeros((rows, self.count), np.int32)
        used = np.zeros(rows, np.float32)
        for row, windows in texts.items():
            taken = self._spread(windows)
            ids[row] = self.pad
            for w, window in enumerate(taken):
                length[row, w] = len(window)
                ids[row, w, : len(window)] = window
            inside, whole = (sum(len(x) - special for x in part) for part in (taken, windows))
            used[row] = inside / max(1, whole) if windows[1:] else 1
        shapes = {name: (rows, *shape) for name, (shape, _) in self.arrays.items()}
        return {
            "ids": ids.reshape(shapes["ids"]),
            "length": length.reshape(shapes["length"]),
        }, used

    def _spread(self, windows: Sequence[list[int]]) -> Sequence[list[int]]:
        """As many windows as there is room for, the first and the last among them."""
        if len(windows) <= self.count:
            return windows
        steps = np.linspace(0, len(windows) - 1, self.count)  # for W = 1 that is [0]
        return [windows[round(step)] for step in steps]
