"""Fusion by concatenation: the pooled features of a row's modalities to one vector."""

import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.models.encoded import Encoded, Fused
from jfusion.models.layers import FAN_IN_INIT, Common, LayerNorm, Linear


class Concat(nnx.Module):
    """Concatenates the pooled features and applies fully connected layers.

    A learnt vector stands for the pooled feature of an absent modality. Each layer is Linear,
    LayerNorm if wanted, ReLU, dropout. With a single modality this is the classifier on top of one
    encoder.

    Args:
        widths: Width of each modality's pooled feature.
        hidden: Widths of the fully connected layers; none returns the concatenation itself.
        dropout: Rate after each layer.
        project: Width that a linear layer brings each pooled feature to first; 0 has none.
        norm: LayerNorm after each projection, and in each layer before its ReLU.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        hidden: Sequence[int] = (512,),
        dropout: float = 0.0,
        project: int = 0,
        norm: bool = False,
        *,
        dtype: jnp.dtype = jnp.float32,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        names = sorted(widths)
        sizes = [len(names) * project if project else sum(widths.values()), *hidden]
        projected = names if project else []
        self.projections = nnx.Dict(
            {n: Linear(widths[n], project, init=FAN_IN_INIT, **common) for n in projected}
        )
        self.projection_norms = nnx.Dict(
            {n: LayerNorm(project, epsilon=1e-5, **common) for n in projected if norm}
        )
        self.layers = nnx.List(
            Linear(i, o, init=FAN_IN_INIT, **common) for i, o in itertools.pairwise(sizes)
        )
        self.norms = nnx.List(LayerNorm(size, epsilon=1e-5, **common) for size in sizes[1:] if norm)
        self.missing = nnx.Dict(
            {
                name: nnx.Param(
                    0.02 * jax.random.normal(rngs.params(), (widths[name],), param_dtype)
                )
                for name in names
            }
        )
        self.dropout = nnx.Dropout(dropout)
        self.project, self.norm = project, norm
        self.width = sizes[-1]

    def __call__(
        self,
        encoded: Mapping[str, Encoded],
        present: Mapping[str, jax.Array],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Fused:
        """Joins the modalities, sorted by name.

        Args:
            encoded: The encodings.
            present: Which rows have which modality, bool `[B]` each.
            rngs: Streams for dropout.

        Returns:
            The joint feature, `[B, F]`; this fusion has no others and no weights.
        """
        features = [
            self._feature(name, encoded[name].pooled, present[name]) for name in sorted(encoded)
        ]
        x = jnp.concatenate(features, axis=-1)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if self.norm:
                x = self.norms[index](x)
            x = self.dropout(jax.nn.relu(x), rngs=rngs)
        return Fused(joint=x, each={}, weights={})

    def _feature(self, name: str, pooled: jax.Array, present: jax.Array) -> jax.Array:
        """A modality's part of the concatenation."""
        missing = self.missing[name][...].astype(pooled.dtype)
        x = jnp.where(present[:, None], pooled, missing[None])
        if self.project:
            x = self.projections[name](x)
            if self.norm:
                x = self.projection_norms[name](x)
        return x
