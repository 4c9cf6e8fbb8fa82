"""Convolution over time."""

import jax
import jax.numpy as jnp

from jfusion.ops.linear import linear


def conv1d(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, *, dilation: int = 1
) -> jax.Array:
    """Convolves frames, with zeros around them so that there are as many after as before.

    One matrix product over what each frame sees, side by side: XLA:CPU runs convolutions far
    slower than products, and elsewhere this is as good.

    Args:
        x: Frames [B, T, C].
        kernel: One matrix per frame seen, [k, C, O]; of an odd number the middle one is for the
            frame itself, of an even number the one before the middle.
        bias: [O], or None.
        dilation: Distance between the frames seen.

    Returns:
        [B, T, O].
    """
    k, C, width = kernel.shape
    T = x.shape[1]
    around = (k - 1) * dilation
    before = around // 2
    padded = jnp.pad(x, ((0, 0), (before, around - before), (0, 0)))
    seen = [padded[:, i * dilation : i * dilation + T] for i in range(k)]
    return linear(jnp.concatenate(seen, axis=-1), kernel.reshape(k * C, width), bias)
