"""Normalisation of channels over a batch."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jfusion.ops.fence import fence


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    epsilon: float,
) -> jax.Array:
    """Normalises by given statistics.

    Args:
        x: [..., C].
        scale: [C].
        bias: [C].
        mean: [C].
        variance: [C].
        epsilon: Added to the variance.

    Returns:
        [..., C], of the dtype of `x`.
    """
    factor = scale.astype(jnp.float32) * lax.rsqrt(variance.astype(jnp.float32) + epsilon)
    shift = bias.astype(jnp.float32) - mean.astype(jnp.float32) * factor
    y = x.astype(jnp.float32) * _like(factor, x) + _like(shift, x)
    return y.astype(x.dtype)


def batch_norm_of_batch(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    share: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    epsilon: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the statistics of the batch itself, in float32.

    The gradient is written out, so that nothing of the size of `x` is kept for it but `x`.

    Args:
        x: [N, C].
        scale: [C].
        bias: [C].
        share: The part of each row in the statistics, float32 [N, 1] or [1, 1]: all are 0, or they
            are 1 in sum over the rows. It has no gradient.
        mean: [C], taken where all shares are 0, like the next.
        variance: [C].
        epsilon: Added to the variance.

    Returns:
        The normalised rows [N, C], of the dtype of `x`, and the mean and (biased) variance that
        they were normalised by, float32 [C], through which no gradient flows.
    """
    y, mean, variance = _normalise(x, scale, bias, share, mean, variance, epsilon)
    return y, lax.stop_gradient(mean), lax.stop_gradient(variance)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _normalise(x, scale, bias, share, mean, variance, epsilon):
    return _forward(x, scale, bias, share, mean, variance, epsilon)[0]


def _forward(x, scale, bias, share, mean, variance, epsilon):
    x32 = x.astype(jnp.float32)
    counted = share.max() > 0
    batch_mean = _total(x32 * share)
    # Two passes, as in PyTorch: a difference of means of squares loses digits.
    batch_variance = _total(jnp.square(x32 - batch_mean[None]) * share)
    mean = jnp.where(counted, batch_mean, mean.astype(jnp.float32))
    variance = jnp.where(counted, batch_variance, variance.astype(jnp.float32))
    y = batch_norm(x, scale, bias, mean, variance, epsilon)
    return (y, mean, variance), (x, scale, bias, share, mean, variance)


def _backward(epsilon, saved, gradients):
    x, scale, bias, share, mean, variance = saved
    grad = gradients[0].astype(jnp.float32)
    inverse = lax.rsqrt(variance + epsilon)
    normal = (x.astype(jnp.float32) - mean[None]) * inverse[None]
    dscale, dbias = _total(grad * normal), _total(grad)
    through_statistics = share * (dbias[None] + normal * dscale[None])
    dx = (scale.astype(jnp.float32) * inverse)[None] * (grad - through_statistics)
    return (
        dx.astype(x.dtype),
        dscale.astype(scale.dtype),
        dbias.astype(bias.dtype),
        jnp.zeros_like(share),
        jnp.zeros_like(mean),
        jnp.zeros_like(variance),
    )


_normalise.defvjp(_forward, _backward)


def _total(x: jax.Array) -> jax.Array:
    """The sum over rows, [N, C] -> [C]."""
    return (fence(x) if jax.default_backend() == "cpu" else x).sum(axis=0)


def _like(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
