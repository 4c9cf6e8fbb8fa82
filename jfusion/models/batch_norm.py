"""Batch normalisation that knows which rows of a batch are real."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.ops.batch_norm import batch_norm, batch_norm_of_batch


class BatchNorm(nnx.Module):
    """Normalises every channel (last axis) over all other axes, with float32 statistics.

    In training the statistics are those of what counts in the batch, and the running ones follow
    them; if nothing counts, the running ones are used and stay. In evaluation, and where the
    module is frozen (`use_running_average`), the running ones are used and stay.

    The running variance is PyTorch's, the unbiased estimate (the sum of squared deviations divided
    by their number less one), while the batch is normalised by the biased one. TensorFlow keeps
    the biased one; the two differ by as little as there are many pixels.

    Args:
        features: Channels C.
        epsilon: Added to the variance.
        momentum: Share of the new batch in the running statistics, as PyTorch counts: 0.1 there by
            default, 0.01 in Keras, which calls it 0.99.

    Attributes:
        scale: [C].
        bias: [C].
        mean: Running mean [C].
        var: Running variance [C].
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # nothing random; taken like by every other layer
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = False
        self.dtype = dtype

    def set_view(self, use_running_average: bool | None = None):
        """Class method used by `nnx.view`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """Normalises a batch.

        Args:
            x: [B, ..., C].
            rows: What counts in the statistics, float32 [B] of 1 and 0, or with more of the axes
                of `x`; all of it, where it is None.

        Returns:
            The shape of `x`.
        """
        x = x.astype(self.dtype)
        scale, bias = self.scale[...], self.bias[...]
        if self.use_running_average:
            return batch_norm(x, scale, bias, self.mean[...], self.var[...], self.epsilon)
        share, count = _shares(x.shape[:-1], rows)
        flat = x.reshape(-1, x.shape[-1])
        y, mean, variance = batch_norm_of_batch(
            flat, scale, bias, share, self.mean[...], self.var[...], self.epsilon
        )
        unbiased = variance * (count / jnp.maximum(count - 1, 1))
        step = jnp.where(count > 0, self.momentum, 0.0)
        self.mean[...] += step * (mean - self.mean[...])
        self.var[...] += step * (unbiased - self.var[...])
        return y.reshape(x.shape)


def _shares(shape: tuple[int, ...], rows: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The part of each position in the statistics, [N, 1] or [1, 1], and how many count."""
    size = math.prod(shape)
    if rows is None:
        return jnp.full((1, 1), 1 / size, jnp.float32), jnp.float32(size)
    rows = rows.astype(jnp.float32)
    inner = math.prod(shape[rows.ndim :])
    count = rows.sum() * inner
    share = jnp.broadcast_to(rows.reshape(-1, 1), (rows.size, inner)).reshape(-1, 1)
    return share / jnp.maximum(count, 1), count
