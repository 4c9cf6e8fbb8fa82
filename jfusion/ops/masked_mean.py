"""The mean of what is real."""

import jax
import jax.numpy as jnp


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over the second axis of the elements that a mask marks, summed in float32.

    What is not marked may hold anything, NaN too; it has no part in the mean nor in its gradient.

    Args:
        x: [B, N, D].
        mask: Which elements are real, bool [B, N, D], or which positions, bool [B, N].

    Returns:
        [B, D], of the dtype of `x`; 0 where nothing is marked.
    """
    if mask.ndim == 2:
        mask = mask[:, :, None]
    total = jnp.where(mask, x, 0).sum(axis=1, dtype=jnp.float32)
    return (total / jnp.maximum(mask.sum(axis=1), 1)).astype(x.dtype)
