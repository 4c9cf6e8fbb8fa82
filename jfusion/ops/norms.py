"""Normalisation over the features of a token or a pixel."""

import jax
import jax.numpy as jnp
from jax import lax


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Layer normalisation over the last axis, with float32 statistics.

    The variance is the mean of squared deviations (two passes), as in PyTorch: the difference of
    means of squares loses digits where the mean is large.

    Args:
        x: [..., D].
        scale: [D].
        bias: [D].
        epsilon: Added to the variance.

    Returns:
        [..., D], of the dtype of `x`.
    """
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    y = centred * lax.rsqrt(variance + epsilon)
    shape = (1,) * (x.ndim - 1) + scale.shape
    return (y * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)
