"""Normalisation over the features of a token or a pixel."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jfusion.ops.fence import fence, stored


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
    if jax.default_backend() == "cpu":
        rows = _in_few_passes(x.reshape(-1, x.shape[-1]), scale, bias, epsilon)
        return rows.reshape(x.shape)
    return _normalise(x, scale, bias, epsilon)[0]


def _normalise(x, scale, bias, epsilon):
    """The normalised `x`, and what its gradient needs: mean and 1 / deviation of each row."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(axis=-1, keepdims=True)
    variance = jnp.square(x32 - mean).mean(axis=-1, keepdims=True)
    inverse = lax.rsqrt(variance + epsilon)
    y = (x32 - mean) * inverse * _like(scale, x) + _like(bias, x)
    return fence(y).astype(x.dtype), mean, inverse


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _in_few_passes(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Layer normalisation of rows [N, D], whose gradient XLA:CPU computes in few loops.

    Derived automatically, it is a dozen loops, and keeps three arrays of the size of `x`.
    """
    return _normalise(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    y, mean, inverse = stored(lambda: _normalise(x, scale, bias, epsilon))
    return y, (x, scale, bias, mean, inverse)


def _backward(epsilon, saved, grad):
    del epsilon
    # The barrier has the normalised rows computed again, and not kept from the forward pass.
    x, scale, bias, mean, inverse = lax.optimization_barrier(saved)
    grad = grad.astype(jnp.float32)
    normal = (x.astype(jnp.float32) - mean) * inverse
    product = fence(grad * normal)
    weights = _like(scale, x) / x.shape[-1]
    # As products with a vector, the rows' means need no pass that multiplies by the scale.
    average, slope = (a @ weights.T for a in (grad, product))  # [N, 1]
    dx = stored(lambda: (grad * _like(scale, x) - average - normal * slope) * inverse)
    dscale, dbias = product.sum(axis=0), grad.sum(axis=0)
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype)


_in_few_passes.defvjp(_forward, _backward)


def _like(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + vector.shape)
