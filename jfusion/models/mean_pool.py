"""The mean over time, the simplest reader of a sequence.

B batch, T frames, F features.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.encoded import Encoded
from jfusion.ops.masked_mean import masked_mean


class MeanPool(nnx.Module):
    """Averages every feature over the frames in which it is valid. It has no parameters.

    Args:
        features: Features per frame.

    Attributes:
        width: Features per token and of the pooled vector, those of a frame.
    """

    def __init__(
        self,
        features: int,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del param_dtype, rngs  # no parameters; taken like by every other network
        self.width = features
        self.dtype = dtype

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"frames": [B, T, F], "valid": bool [B, T, F]}`; see `Encoded`.

        The tokens are the frames, 0 where they are not valid; a frame without any valid feature is
        masked, and a feature without any valid frame is 0.
        """
        del rngs
        frames, valid = inputs["frames"], inputs["valid"]
        return Encoded(
            tokens=jnp.where(valid, frames, 0).astype(self.dtype),
            mask=valid.any(axis=-1),
            pooled=masked_mean(frames, valid).astype(self.dtype),
        )
