"""Depthwise convolution in NHWC.

Grouped convolutions are slow in XLA:CPU: forward 20 to 90 times slower than a sum of shifted
products for the 7 x 7 kernels of ConvNeXt, backward more so. There the sums are written out, in
forms that XLA turns into vectorised loops over C; accelerators get the convolution.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jfusion.ops.fence import fence, stored

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def depthwise_conv2d(
    x: jax.Array, kernel: jax.Array, *, strides: Pair = (1, 1), padding: Sequence[Pair]
) -> jax.Array:
    """Convolves every channel with its own kernel.

    Args:
        x: Images [B, H, W, C].
        kernel: One filter per channel [kh, kw, 1, C], of the dtype of `x`.
        strides: Steps along H and W.
        padding: Zeros before and after along H and along W.

    Returns:
        [B, H', W', C], of the dtype of `x`.
    """
    strides, padding = tuple(strides), (tuple(padding[0]), tuple(padding[1]))
    if jax.default_backend() == "cpu":
        return _shifted(x, kernel[:, :, 0], strides, padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    return _sum_over_taps(x, kernel, strides, padding)


def _forward(x, kernel, strides, padding):
    return _sum_over_taps(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, saved, grad):
    x, kernel = saved
    return _input_gradient(x, kernel, grad, strides, padding), _kernel_gradient(
        x, kernel, grad, strides, padding
    )


_shifted.defvjp(_forward, _backward)


def _sum_over_taps(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution as one product per tap of the kernel; XLA makes one loop of them.

    Stored, as it would be computed again in each of the places that read it: up to seven in a block
    of ConvNeXt.
    """
    return stored(lambda: _taps(_pad(x, padding), kernel, strides).astype(x.dtype))


def _taps(x: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """The sum over the taps, of pictures that are padded; float32."""
    B, H, W, C = x.shape
    kh, kw, _ = kernel.shape
    height, width = (H - kh) // strides[0] + 1, (W - kw) // strides[1] + 1
    x, total = x.astype(jnp.float32), jnp.zeros((), jnp.float32)
    for i, j in itertools.product(range(kh), range(kw)):
        stop = (i + (height - 1) * strides[0] + 1, j + (width - 1) * strides[1] + 1)
        seen = lax.slice(x, (0, i, j, 0), (B, *stop, C), (1, *strides, 1))
        total += seen * kernel[i, j].reshape(1, 1, 1, C)
    return total


def _input_gradient(x, kernel, grad, strides, padding):
    """What each pixel of `x` got from the pixels of `grad` that saw it.

    With strides, the pixels that a tap reaches are every second (third, ...) one. So those with the
    same remainder are computed together, by the taps that reach them, without strides.
    """
    B, H, W, C = x.shape
    (vertical, horizontal), (top, left) = strides, (padding[0][0], padding[1][0])
    # In case the strides do not divide the size, the last of some remainders are cut off again.
    height, width = -(-H // vertical), -(-W // horizontal)

    def of_remainders(i: int, j: int) -> jax.Array:
        first = ((i + top) % vertical, (j + left) % horizontal)
        taps = kernel[first[0] :: vertical, first[1] :: horizontal][::-1, ::-1]
        if not taps.size:  # the strides skip these pixels
            return jnp.zeros((B, height, width, C), jnp.float32)
        # Where in `grad` the first of these pixels was seen by the last of the taps.
        start = (
            (i + top - first[0]) // vertical - (taps.shape[0] - 1),
            (j + left - first[1]) // horizontal - (taps.shape[1] - 1),
        )
        stop = (start[0] + height + taps.shape[0] - 1, start[1] + width + taps.shape[1] - 1)
        around = tuple((-start[n], stop[n] - grad.shape[1 + n]) for n in (0, 1))
        return _taps(_pad(grad, around), taps, (1, 1))

    def interleaved() -> jax.Array:
        rows = [
            jnp.stack([of_remainders(i, j) for j in range(horizontal)], axis=3)
            for i in range(vertical)
        ]
        whole = jnp.stack(rows, axis=2).reshape(B, height * vertical, width * horizontal, C)
        return whole[:, :H, :W].astype(x.dtype)

    return stored(interleaved)


def _kernel_gradient(x, kernel, grad, strides, padding):
    """Sums over the pixels of `grad`: what the kernel saw there, times the gradient there.

    A reduction over [B, H, W] that keeps C is not vectorised by XLA:CPU (2 GFLOP/s); a sum written
    out over the pixels of a block is (40 GFLOP/s), so it is a loop over blocks of about 7 x 7
    pixels. Blocks with many fewer or many more pixels are several times slower.
    """
    B, H, W, C = grad.shape
    kh, kw, _ = kernel.shape
    rows = _even_blocks(H, 8)
    columns = _even_blocks(W, 64 // rows)
    across = -(-W // columns)
    down = -(-H // rows)
    # Zeros of `grad` complete the last blocks; `x` is padded or cropped to what the blocks see.
    needed = ((down * rows - 1) * strides[0] + kh, (across * columns - 1) * strides[1] + kw)
    before = (padding[0][0], padding[1][0])
    after = (needed[0] - before[0] - x.shape[1], needed[1] - before[1] - x.shape[2])
    x = _pad(x, tuple(zip(before, after, strict=True)))
    grad = _pad(grad, ((0, down * rows - H), (0, across * columns - W)))
    window = ((rows - 1) * strides[0] + kh, (columns - 1) * strides[1] + kw)

    def add_block(n: jax.Array, total: jax.Array) -> jax.Array:
        top, left = n // across * rows, n % across * columns
        corner = (0, top * strides[0], left * strides[1], 0)
        seen = lax.dynamic_slice(x, corner, (B, *window, C)).astype(jnp.float32)
        part = lax.dynamic_slice(grad, (0, top, left, 0), (B, rows, columns, C))
        for r, c in itertools.product(range(rows), range(columns)):
            i, j = r * strides[0], c * strides[1]
            total += seen[:, i : i + kh, j : j + kw] * part[:, r : r + 1, c : c + 1]
        return total

    total = lax.fori_loop(0, down * across, add_block, jnp.zeros((B, kh, kw, C), jnp.float32))
    return fence(total).sum(axis=0).astype(kernel.dtype)


def _even_blocks(size: int, largest: int) -> int:
    """The size of the blocks when `size` is cut into as few equal ones as `largest` allows."""
    count = -(-size // largest)
    return -(-size // count)


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    """Pads H and W with zeros; negative amounts crop."""
    amounts = [(0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), amounts)
