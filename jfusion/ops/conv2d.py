"""Convolution of few channels in NHWC."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jfusion.ops.linear import linear

Pair = tuple[int, int]


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Sequence[Pair]) -> jax.Array:
    """Convolves pictures.

    On a CPU it is one matrix product over what every pixel of the result sees, side by side.

    Args:
        x: Pictures [B, H, W, I].
        kernel: [kh, kw, I, O], of the dtype of `x`.
        stride: Step along H and W.
        padding: Zeros before and after along H and along W.

    Returns:
        [B, H', W', O].
    """
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            tuple(padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    kh, kw, channels, width = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    B, H, W, _ = x.shape
    h, w = (H - kh) // stride + 1, (W - kw) // stride + 1
    seen = [
        lax.slice(
            x,
            (0, i, j, 0),
            (B, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for i, j in itertools.product(range(kh), range(kw))
    ]
    return linear(jnp.concatenate(seen, axis=-1), kernel.reshape(kh * kw * channels, width))
