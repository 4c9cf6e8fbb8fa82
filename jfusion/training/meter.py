"""Watches the training steps: their speed, and losses that are not finite."""

import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jfusion.errors import UserError


class NonFiniteLoss(UserError):
    """The loss became NaN or infinite; the text names the step and its rows."""


class Meter:
    """Counts rows and seconds of training, and checks every step's loss.

    The losses stay on the device until a lap ends, so the host never holds the device up.

    Args:
        describe: Row number -> how a person finds the row.

    Attributes:
        rows: Rows of all laps.
        seconds: Seconds of all laps.
    """

    def __init__(self, describe: Callable[[int], str]):
        self._describe = describe
        self._unchecked: list[tuple[int, np.ndarray, jax.Array]] = []
        self._lap_rows, self._lap_start = 0, time.monotonic()
        self.rows, self.seconds = 0, 0.0

    def add(self, step: int, rows: np.ndarray, scalars: Mapping[str, jax.Array]) -> None:
        """Counts a step that was just begun."""
        self._lap_rows += int((rows >= 0).sum())
        self._unchecked.append((step, rows, scalars["loss"]))

    def lap(self) -> float:
        """Ends a lap and begins the next: waits for the device, checks the losses.

        Returns:
            Rows per second of the lap.

        Raises:
            NonFiniteLoss: A loss was NaN or infinite.
        """
        self._check()
        rows, seconds = self._lap_rows, time.monotonic() - self._lap_start
        self.rows, self.seconds = self.rows + rows, self.seconds + seconds
        self._begin()
        return rows / seconds

    def discard(self) -> None:
        """Begins a lap without counting what was since the last: a compilation, an evaluation."""
        self._check()
        self._begin()

    def _begin(self) -> None:
        self._lap_rows, self._lap_start = 0, time.monotonic()

    def _check(self) -> None:
        unchecked, self._unchecked = self._unchecked, []
        values = jax.device_get([loss for _, _, loss in unchecked])
        for (step, rows, _), loss in zip(unchecked, values, strict=True):
            if not np.isfinite(loss):
                named = [self._describe(int(row)) for row in rows if row >= 0]
                more = f" and {len(named) - 20} more" if len(named) > 20 else ""
                raise NonFiniteLoss(
                    f"the loss of step {step} is {loss}; its batch: {', '.join(named[:20])}{more}. "
                    "Lower the learning rate, or look at these rows; the last checkpoint is whole"
                )
