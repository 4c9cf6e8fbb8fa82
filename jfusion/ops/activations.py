"""Activations."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jfusion.ops.fence import fence


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x * P(X <= x) for a standard normal X.

    Args:
        x: Any shape.

    Returns:
        Shape and dtype of `x`.
    """
    if jax.default_backend() == "cpu":
        return _gelu_of_erf(x)
    return jax.nn.gelu(x, approximate=False)


@jax.custom_vjp
def _gelu_of_erf(x: jax.Array) -> jax.Array:
    """By the error function, as PyTorch has it, which XLA:CPU vectorises.

    (`jax.nn.gelu` takes the complementary one, which is an exponential and a choice of two
    fractions.) The gradient keeps nothing but `x`.
    """
    x32 = x.astype(jnp.float32)
    return fence(x32 * _normal_cdf(x32)).astype(x.dtype)


def _forward(x):
    return _gelu_of_erf(x), x


def _backward(x, grad):
    # The barrier has the error function computed again, and not kept from the forward pass.
    x32 = lax.optimization_barrier(x).astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(x32)) / math.sqrt(2 * math.pi)
    return ((grad.astype(jnp.float32) * (_normal_cdf(x32) + x32 * density)).astype(x.dtype),)


_gelu_of_erf.defvjp(_forward, _backward)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))
