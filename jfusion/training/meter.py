"""Watches the training steps: their speed, and numbers that are not finite."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jfusion.errors import UserError
from jfusion.training import sharding

_NAMED_ROWS = 20


class NonFinite(UserError):
    """Training met NaN or infinity; the text names the step and its rows."""


class Meter:
    """Counts rows and seconds of training, and checks what every step gave.

    Losses stay on the device until a lap ends, so the host never holds the device up.

    Args:
        describe: Row number -> how a person finds the row.

    Attributes:
        rows: Rows of all laps.
        seconds: Seconds of all laps.
    """

    def __init__(self, describe: Callable[[int], str]):
        self._describe = describe
        self._unchecked: list[tuple[int, np.ndarray, dict[str, jax.Array]]] = []
        self._last: tuple[int, np.ndarray] | None = None
        self._lap_rows, self._lap_start = 0, time.monotonic()
        self.rows, self.seconds = 0, 0.0

    def add(self, step: int, rows: np.ndarray, scalars: Mapping[str, jax.Array]) -> None:
        """Counts a step that was just begun.

        Args:
            step: Its number.
            rows: This process's rows of its batch, -1 in padding, int64 [B / processes].
            scalars: What the step returned.
        """
        self._lap_rows += int((rows >= 0).sum()) * jax.process_count()  # all have about as many
        # With dynamic loss scaling a gradient may overflow: the step was skipped.
        names = ("loss",) if "loss_scale" in scalars else ("loss", "gradient_norm")
        self._unchecked.append((step, rows, {name: scalars[name] for name in names}))
        self._last = step, rows

    def lap(self) -> float | None:
        """Ends a lap and begins the next: waits for the device, checks the steps.

        Returns:
            Rows per second of the lap; None if it had no step.

        Raises:
            NonFinite: A loss or a gradient was NaN or infinite.
        """
        self._check_steps()
        rows, seconds = self._lap_rows, time.monotonic() - self._lap_start
        self.rows, self.seconds = self.rows + rows, self.seconds + seconds
        self._begin()
        return rows / seconds if rows else None

    def discard(self) -> None:
        """Begins a lap without counting what was since the last: a compilation, an evaluation.

        Raises:
            NonFinite: A loss or a gradient was NaN or infinite.
        """
        self._check_steps()
        self._begin()

    def check(self, state: Any) -> None:
        """Checks the steps and the state that they led to.

        A loss and a gradient may be finite while the update is not, which the next step would show.

        Raises:
            NonFinite: Something was NaN or infinite.
        """
        self._check_steps()
        if not _finite(state):
            step, rows = self._last or (int(state.step), np.array([], np.int64))
            raise self._error(f"the parameters are not finite after step {step}", rows)

    def _begin(self) -> None:
        self._lap_rows, self._lap_start = 0, time.monotonic()

    def _check_steps(self) -> None:
        unchecked, self._unchecked = self._unchecked, []
        fetched = jax.device_get([values for _, _, values in unchecked])
        for (step, rows, _), values in zip(unchecked, fetched, strict=True):
            for name, value in values.items():
                if not np.isfinite(value):
                    raise self._error(
                        f"the {name.replace('_', ' ')} of step {step} is {value}", rows
                    )

    def _error(self, what: str, rows: np.ndarray) -> NonFinite:
        numbers = [int(row) for row in rows if row >= 0]
        named = ", ".join(self._describe(row) for row in numbers[:_NAMED_ROWS])
        more = f" and {len(numbers) - _NAMED_ROWS} more" if len(numbers) > _NAMED_ROWS else ""
        batch = f"; its batch: {named}{more}" if named else ""
        return NonFinite(f"{what}{batch}. Lower the learning rate, or look at these rows")


def _finite(tree: Any) -> bool:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    # One small program per shape; a single one over all leaves takes seconds to compile.
    return all(jax.device_get([sharding.settle(_all_finite(x)) for x in floats]))


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(x))
