"""Dropout."""

import jax
import jax.numpy as jnp
from jax import lax

from jfusion.ops.fence import stored


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Drops elements at random, and scales what stays so that the mean is kept.

    Args:
        x: At least one axis.
        rate: Probability of dropping, in [0, 1).
        key: Random key.

    Returns:
        Shape and dtype of `x`.
    """
    return jnp.where(keep_mask(key, rate, x.shape), x / (1 - rate), 0)


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws which elements stay, each with probability `1 - rate`.

    One random byte decides about an element, where `jax.random.bernoulli` spends a float of 32
    bits: a large attention map's dropout costs more than its products otherwise. Bytes know
    probabilities in steps of 1/256 only, so each row (all but the last axis) draws which of the
    two nearest steps it takes, with the odds that make the probability exact.

    Args:
        key: Random key.
        rate: Probability of dropping, in [0, 1).
        shape: At least one axis.

    Returns:
        bool of `shape`.
    """
    bits_key, step_key = jax.random.split(key)
    *rows, width = shape

    def draw() -> jax.Array:
        words = jax.random.bits(bits_key, (*rows, -(-width // 4)), jnp.uint32)
        draws = lax.bitcast_convert_type(words, jnp.uint8).reshape(*rows, -1)[..., :width]
        steps = jnp.floor((1 - rate) * 256 + jax.random.uniform(step_key, (*rows, 1)))
        return draws.astype(jnp.int32) < steps.astype(jnp.int32)

    return stored(draw)
