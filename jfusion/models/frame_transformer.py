"""A transformer over frames.

B batch, T frames, F features of a frame, D width.
"""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.attention import Attention, FeedForward
from jfusion.models.encoded import Encoded
from jfusion.models.layers import FAN_IN_INIT, Common, Dropout, Embed, LayerNorm, Linear
from jfusion.ops.masked_mean import masked_mean


class Layer(nnx.Module):
    """Self-attention and two fully connected layers, each beside a residual and normalised first.

    Normalised after the sum, as in BERT, it would need a long warm-up to train from scratch.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, **common: Unpack[Common]
    ):
        self.attention_norm = LayerNorm(width, epsilon=1e-5, **common)
        self.attention = Attention(width, heads, dropout, **common)
        self.feed_forward_norm = LayerNorm(width, epsilon=1e-5, **common)
        self.feed_forward = FeedForward(width, hidden, dropout, **common)
        self.dropout = Dropout(dropout)

    def __call__(self, x: jax.Array, mask: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]; frames attend to those where `mask` [B, T] is True."""
        y = self.attention_norm(x)
        x = x + self.dropout(self.attention(y, y, mask, rngs), rngs=rngs)
        y = self.feed_forward(self.feed_forward_norm(x), rngs)
        return x + self.dropout(y, rngs=rngs)


class FrameTransformer(nnx.Module):
    """A linear layer, learnt positions, and transformer layers (arXiv 1706.03762).

    Args:
        features: Features per frame.
        width: Features inside.
        layers: Number of layers.
        heads: Attention heads; they share the width.
        hidden: Features inside the fully connected part of a layer.
        dropout: Rate on the attention weights and in and after each half of a layer.
        max_steps: Longest sequence.

    Attributes:
        width: Features per token and of the pooled vector.
    """

    def __init__(
        self,
        features: int,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        hidden: int = 512,
        dropout: float = 0.1,
        max_steps: int = 1000,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.projection = Linear(features, width, init=FAN_IN_INIT, **common)
        self.positions = Embed(max_steps, width, **common)
        self.dropout = Dropout(dropout)
        self.layers = nnx.List(
            Layer(width, heads, hidden, dropout, **common) for _ in range(layers)
        )
        self.norm = LayerNorm(width, epsilon=1e-5, **common)
        self.max_steps = max_steps
        self.width = width
        self.dtype = dtype

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"frames": [B, T, F], "valid": bool [B, T, F]}`; see `Encoded`.

        A frame without any valid feature is masked and changes no other. The pooled feature is the
        mean over the others, 0 where there are none.
        """
        valid = inputs["valid"]
        T = valid.shape[1]
        if T > self.max_steps:
            raise ValueError(
                f"sequences of {T} frames, but the network has {self.max_steps} positions; raise "
                "max_steps"
            )
        mask = valid.any(axis=-1)
        x = self.projection(jnp.where(valid, inputs["frames"], 0), rngs)
        x = self.dropout(x + self.positions.first(T)[None], rngs=rngs)
        for layer in self.layers:
            x = layer(x, mask, rngs)
        x = jnp.where(mask[:, :, None], self.norm(x), 0)
        return Encoded(tokens=x, mask=mask, pooled=masked_mean(x, mask))
