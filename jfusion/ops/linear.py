"""The fully connected layer's product, and biases."""

import jax
import jax.numpy as jnp


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Computes `x @ kernel + bias`.

    The operands are two-dimensional whatever the rank of `x`, so that the kernel's gradient
    contracts one axis, not several: XLA:CPU is a quarter slower at the latter.

    Args:
        x: [..., I].
        kernel: [I, O].
        bias: [O], or None.

    Returns:
        [..., O].
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel
    if bias is not None:
        y = add_bias(y, bias)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds `bias` [O] to `x` [..., O], whose dtype the sum has.

    It adds in float32, so that the bias's gradient, a long sum, is summed in float32 too.
    """
    bias = bias.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + bias.shape)
    return (x.astype(jnp.float32) + bias).astype(x.dtype)
