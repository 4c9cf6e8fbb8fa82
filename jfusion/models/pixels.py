"""uint8 pictures to what an image network reads, on the device."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.models.layers import next_key


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
        if self.flip and not self.deterministic:
            flipped = jax.random.bernoulli(next_key(rngs), self.flip, (pixels.shape[0], 1, 1, 1))
            pixels = jnp.where(flipped, pixels[:, :, ::-1], pixels)
        scale = 1 / (255 * jnp.array(self.std, jnp.float32))
        shift = jnp.array(self.mean, jnp.float32) / jnp.array(self.std, jnp.float32)
        normalised = pixels.astype(jnp.float32) * scale[None, None, None] - shift[None, None, None]
        return normalised.astype(self.dtype)
