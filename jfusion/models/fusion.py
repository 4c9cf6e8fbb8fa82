"""Fusion: the encodings of a row's modalities to one vector."""

import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.models.encoded import Encoded
from jfusion.models.layers import FAN_IN_INIT, Linear


class Concat(nnx.Module):
    """Concatenates the pooled features and applies fully connected layers.

    Each layer is Linear, ReLU, dropout. With a single modality this is the classifier on top of one
    encoder.

    Args:
        widths: Width of each modality's pooled feature.
        hidden: Widths of the fully connected layers; none returns the concatenation itself.
        dropout: Rate after each layer.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        hidden: Sequence[int] = (512,),
        dropout: float = 0.0,
        *,
        dtype: jnp.dtype = jnp.float32,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        sizes = [sum(widths.values()), *hidden]
        self.layers = nnx.List(
            Linear(i, o, init=FAN_IN_INIT, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for i, o in itertools.pairwise(sizes)
        )
        self.dropout = nnx.Dropout(dropout)
        self.width = sizes[-1]

    def __call__(
        self,
        encoded: Mapping[str, Encoded],
        present: Mapping[str, jax.Array],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Joins the modalities, sorted by name.

        Args:
            encoded: The encodings; where a modality is absent its `pooled` is the learnt vector.
            present: Which rows have which modality, bool `[B]` each; not needed by this fusion.
            rngs: Streams for dropout.

        Returns:
            The joint feature, `[B, F]`.
        """
        x = jnp.concatenate([encoded[name].pooled for name in sorted(encoded)], axis=-1)
        for layer in self.layers:
            x = self.dropout(jax.nn.relu(layer(x)), rngs=rngs)
        return x  # [B, F]
