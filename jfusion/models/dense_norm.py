"""A fully connected layer with batch normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.batch_norm import BatchNorm
from jfusion.models.layers import FAN_IN_INIT, Dropout, Linear


class DenseNorm(nnx.Module):
    """Linear, BatchNorm, ReLU, dropout.

    Args:
        in_features: Features of the input.
        out_features: Features of the output.
        dropout: Rate on the output.
        epsilon: Of the normalisation, Keras's.
        momentum: Of the normalisation, see `BatchNorm`. Keras's 0.01 would need hundreds of steps
            to forget the values that it began with, more than a small table has.

    Attributes:
        width: Features of the output.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dropout: float = 0.0,
        *,
        epsilon: float = 1e-3,
        momentum: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        types = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.linear = Linear(in_features, out_features, init=FAN_IN_INIT, **types)
        self.norm = BatchNorm(out_features, epsilon=epsilon, momentum=momentum, **types)
        self.dropout = Dropout(dropout)
        self.width = out_features

    def __call__(
        self, x: jax.Array, rows: jax.Array | None = None, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Maps [B, I] to [B, O]; for `rows` see `BatchNorm`."""
        x = self.norm(self.linear(x, rngs), rows)
        return self.dropout(jax.nn.relu(x), rngs=rngs)
