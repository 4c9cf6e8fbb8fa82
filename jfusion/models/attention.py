"""The two halves of a transformer's layer, for networks that start from scratch.

B batch, T queries, S keys, D width.
"""

from typing import Unpack

import jax
from flax import nnx

from jfusion.models.layers import FAN_IN_INIT, Common, Dropout, Linear, dropout_key
from jfusion.ops.activations import gelu
from jfusion.ops.attention import attention


class Attention(nnx.Module):
    """Multi-head attention of one sequence to another, or to itself.

    Args:
        width: Features of both, which the heads share.
        heads: Number of heads.
        dropout: Rate on the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float, **common: Unpack[Common]):
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads={heads}")
        self.query = Linear(width, width, init=FAN_IN_INIT, **common)
        # A bias would add the same to all scores of a query, which the softmax does not see: it
        # could not be trained.
        self.key = Linear(width, width, init=FAN_IN_INIT, use_bias=False, **common)
        self.value = Linear(width, width, init=FAN_IN_INIT, **common)
        self.out = Linear(width, width, init=FAN_IN_INIT, **common)
        self.dropout = Dropout(dropout)
        self.heads = heads

    def __call__(
        self, x: jax.Array, source: jax.Array, mask: jax.Array, rngs: nnx.Rngs | None
    ) -> jax.Array:
        """What `x` [B, T, D] finds in `source` [B, S, D] where `mask` [B, S] is True: [B, T, D]."""

        def split(a: jax.Array) -> jax.Array:
            return a.reshape(*a.shape[:2], self.heads, -1)

        found = attention(
            split(self.query(x, rngs)),
            split(self.key(source, rngs)),
            split(self.value(source, rngs)),
            mask=mask,
            dropout_rate=self.dropout.rate,
            dropout_key=dropout_key(self.dropout, rngs),
        )
        return self.out(found.reshape(x.shape), rngs)


class FeedForward(nnx.Module):
    """Two fully connected layers with a GELU and dropout between them.

    Args:
        width: Features in and out.
        hidden: Features between.
        dropout: Rate after the GELU.
    """

    def __init__(self, width: int, hidden: int, dropout: float, **common: Unpack[Common]):
        self.widen = Linear(width, hidden, init=FAN_IN_INIT, **common)
        self.narrow = Linear(hidden, width, init=FAN_IN_INIT, **common)
        self.dropout = Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        return self.narrow(self.dropout(gelu(self.widen(x, rngs)), rngs=rngs), rngs)
