"""A modality that joins a model which was trained without it.

B batch, D width of the modality's pooled feature, F fused width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.layers import FAN_IN_INIT, Linear
from jfusion.ops.linear import linear


class Attached(nnx.Module):
    """What a modality adds to the fused feature of the others: `gate * projection(pooled)`.

    The gate starts from 0: until it has learnt, the model answers what it answered before, to the
    last bit. In the very first step it alone has a gradient, and from then on the projection and
    the encoder have one, too. A row without the modality gets nothing added.

    Args:
        width: D.
        joint: F.

    Attributes:
        projection: From D to F, without a bias.
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
        self.projection = Linear(width, joint, init=FAN_IN_INIT, use_bias=False, **types)
        self.gate = nnx.Param(jnp.zeros((joint,), param_dtype))

    def __call__(self, pooled: jax.Array, present: jax.Array) -> jax.Array:
        """[B, D] and bool [B] -> [B, F]."""
        # On the kernel: some programs round a product only together with the sum that follows it.
        kernel = self.projection.kernel[...] * self.gate[...][None]
        x = linear(pooled.astype(self.projection.dtype), kernel.astype(self.projection.dtype))
        return jnp.where(present[:, None], x, 0)
