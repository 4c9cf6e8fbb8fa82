"""A modality that joins a model which was trained without it.

B batch, D width of the modality's pooled feature, F fused width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.layers import FAN_IN_INIT, Linear


class Attached(nnx.Module):
    """What a modality adds to the fused feature of the others: `gate * projection(pooled)`.

    The gate starts from 0: until it has learnt, the model answers what it answered before, to the
    last bit. In the very first step it alone has a gradient, and from then on the projection and
    the encoder have one, too. A row without the modality gets nothing added.

    Args:
        width: D.
        joint: F.

    Attributes:
        projection: From D to F.
        gate: [F].
    """

    def __init__(
        self,
        width: int,
        joint: int,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        types = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.projection = Linear(width, joint, init=FAN_IN_INIT, **types)
        self.gate = nnx.Param(jnp.zeros((joint,), param_dtype))

    def __call__(self, pooled: jax.Array, present: jax.Array) -> jax.Array:
        """[B, D] and bool [B] -> [B, F]."""
        x = self.projection(pooled)
        gate = self.gate[...].astype(x.dtype)
        return jnp.where(present[:, None], gate[None] * x, 0)
