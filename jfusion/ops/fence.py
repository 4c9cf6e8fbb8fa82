"""A border that XLA:CPU's library fusions do not cross."""

import jax
from jax import lax


def fence(x: jax.Array) -> jax.Array:
    """Returns `x` (float32) unchanged, and keeps XLA:CPU from dividing the loop that computes it.

    A reduction or product that reads `x` becomes a call of a library, which also takes over what
    it knows of the sums and products before it, and has every slice and broadcast that those read
    written to memory. It does not know this operation. (An `optimization_barrier` does not help: it
    is gone by then.)
    """
    return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)
