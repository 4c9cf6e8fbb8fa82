"""uint8 pictures to what an image network reads, on the device."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jfusion.models.layers import next_key

Array = TypeVar("Array", jax.Array, np.ndarray)


class Pixels(nnx.Module):
    """Flips pictures at random (training only) and normalises them.

    A quarter of the bytes of float32 travel to the device, and the host does no arithmetic.

    Args:
        mean: Channel means of pictures scaled to [0, 1], `[3]`.
        std: Channel standard deviations, `[3]`.
        flip: Probability of a horizontal flip per picture in training.
        dtype: Type of the result.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        flip: float = 0.0,
        *,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.mean, self.std = tuple(mean), tuple(std)
        self.flip = flip
        self.dtype = dtype
        self.deterministic = False

    def set_view(self, deterministic: bool | None = None):
        """Class method used by `nnx.view`; a deterministic view never flips."""
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(self, pixels: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Prepares `pixels`, uint8 `[B, H, W, 3]`; returns `[B, H, W, 3]` of `dtype`."""
        return self.prepare(pixels, self.draw(len(pixels), rngs))

    def draw(self, rows: int, rngs: nnx.Rngs | None) -> jax.Array | None:
        """Draws which pictures to flip, bool `[rows]`; None where none ever is."""
        if not self.flip or self.deterministic:
            return None
        return jax.random.bernoulli(next_key(rngs), self.flip, (rows,))

    def prepare(self, pixels: jax.Array, flipped: jax.Array | None = None) -> jax.Array:
        """As a call does, but flips what it is told to, bool `[B]`; None flips nothing."""
        if flipped is not None:
            pixels = jnp.where(flipped[:, None, None, None], mirror(pixels), pixels)
        scale = 1 / (255 * jnp.array(self.std, jnp.float32))
        shift = jnp.array(self.mean, jnp.float32) / jnp.array(self.std, jnp.float32)
        normalised = pixels.astype(jnp.float32) * scale[None, None, None] - shift[None, None, None]
        return normalised.astype(self.dtype)


def mirror(pixels: Array) -> Array:
    """Flips all pictures, `[B, H, W, 3]`, from left to right."""
    return pixels[:, :, ::-1]
