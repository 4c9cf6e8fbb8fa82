"""Timing that two sides of a comparison share."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Side = tuple[Callable[[], Any], Callable[[Any], Any]]


def interleaved(sides: Mapping[str, Side], steps: int, rounds: int) -> dict[str, float]:
    """Times all sides in turns (A B A B ...), so that a busy moment of the machine meets each.

    A turn begins with a step that does not count: it finds caches and memory as the other side left
    them, which no step of a training run does.

    Args:
        sides: By name, a function that starts a step and one that waits for its result.
        steps: Counted steps of a turn; the last one's result is waited for.
        rounds: Turns of each side.

    Returns:
        Seconds per step of each side: the median over the rounds.
    """
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (start, finish) in sides.items():
            finish(start())
            begin = time.perf_counter()
            for _ in range(steps):
                result = start()
            finish(result)
            seconds[name].append((time.perf_counter() - begin) / steps)
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak_flops(dtype: str, size: int | None = None) -> float:
    """What the device reaches in one large square product of `dtype`, in operations per second."""
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    best = min(_seconds(lambda: product(a, a)) for _ in range(10))
    return 2 * size**3 / best


def bandwidth(size: int | None = None) -> float:
    """What the device moves to and from its memory in a sum over a large array, in bytes/s.

    As in STREAM (McCalpin 1995), each number is counted as read once and written once.

    Args:
        size: Numbers of the array; None: many times what caches hold.
    """
    size = size or (2**26 if jax.default_backend() == "cpu" else 2**28)
    a = jnp.zeros(size, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    _seconds(lambda: add(a))
    best = min(_seconds(lambda: add(a)) for _ in range(10))
    return 2 * a.nbytes / best


def _seconds(start: Callable[[], jax.Array]) -> float:
    begin = time.perf_counter()
    start().block_until_ready()
    return time.perf_counter() - begin
