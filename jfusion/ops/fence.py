"""Borders that XLA:CPU's fusions do not cross."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

T = TypeVar("T")


def fence(x: jax.Array) -> jax.Array:
    """Returns `x` (float32) unchanged, and keeps XLA:CPU from dividing the loop that computes it.

    A reduction or product that reads `x` becomes a call of a library, which also takes over what
    it knows of the sums and products before it, and has every slice and broadcast that those read
    written to memory. It does not know this operation. (An `optimization_barrier` does not help: it
    is gone by then.)
    """
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)


def stored(make: Callable[[], T]) -> T:
    """Returns `make()`, arrays computed once and in loops of their own, which all cores share.

    XLA:CPU computes an elementwise result again in every loop that reads it, however dear it is,
    and with it the elementwise results that it comes from: along a chain of residual layers that
    is quadratic in their number. What a branch yields is stored; the barrier hides that the choice
    is none. (What a `scan` or `lax.map` yields is stored, too, but written by one core.) Other
    backends take it as it is.
    """
    if jax.default_backend() != "cpu":
        return make()
    always = lax.optimization_barrier(jnp.bool_(True))
    like = jax.eval_shape(make)
    return lax.cond(always, make, lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))
