"""Fusion by concatenation: the pooled features of a row's modalities to one vector."""

import functools
import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.models.batch_norm import BatchNorm
from jfusion.models.encoded import Encoded, Fused
from jfusion.models.layers import FAN_IN_INIT, Common, Dropout, LayerNorm, Linear

_NORMS = {
    "none": None,
    "layer": functools.partial(LayerNorm, epsilon=1e-5),
    "batch": functools.partial(BatchNorm, epsilon=1e-3, momentum=0.1),  # see DenseNorm
}


class Concat(nnx.Module):
    """Concatenates the pooled features and applies fully connected layers.

    A learnt vector stands for the pooled feature of an absent modality. Each layer is Linear,
    normalisation if wanted, ReLU, dropout. With a single modality this is the classifier on top of
    one encoder.

    Args:
        widths: Width of each modality's pooled feature.
        hidden: Widths of the fully connected layers; none returns the concatenation itself.
        dropout: Rate after each layer.
        project: Width that a linear layer brings each pooled feature to first; 0 has none.
        norm: `layer` or `batch` normalises after each projection, and in each layer before its
            ReLU; `none` does not.
        dropouts: A rate for each layer, in place of `dropout`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        hidden: Sequence[int] = (512,),
        dropout: float = 0.0,
        project: int = 0,
        norm: str = "none",
        dropouts: Sequence[float] = (),
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
        kind = _NORMS[norm]
        self.projection_norms = nnx.Dict({n: kind(project, **common) for n in projected if kind})
        self.layers = nnx.List(
            Linear(i, o, init=FAN_IN_INIT, **common) for i, o in itertools.pairwise(sizes)
        )
        self.norms = nnx.List(kind(size, **common) for size in sizes[1:] if kind)
        self.missing = nnx.Dict(
            {
                name: nnx.Param(
                    0.02 * jax.random.normal(rngs.params(), (widths[name],), param_dtype)
                )
                for name in names
            }
        )
        self.dropouts = nnx.List(Dropout(r) for r in dropouts or [dropout] * len(hidden))
        self.project = project
        self.width = sizes[-1]

    def __call__(
        self,
        encoded: Mapping[str, Encoded],
        present: Mapping[str, jax.Array],
        weight: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Fused:
        """Joins the modalities, sorted by name.

        Args:
            encoded: The encodings.
            present: Which rows have which modality, bool `[B]` each.
            weight: Float32 `[B]`, 0 for rows that are padding; None: all are real.
            rngs: Streams for dropout.

        Returns:
            The joint feature, `[B, F]`; this fusion has no others and no weights.
        """
        features = [
            self._feature(name, encoded[name].pooled, present[name], weight)
            for name in sorted(encoded)
        ]
        x = jnp.concatenate(features, axis=-1)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if len(self.norms):
                x = _normalise(self.norms[index], x, weight)
            x = self.dropouts[index](jax.nn.relu(x), rngs=rngs)
        return Fused(joint=x, each={}, weights={})

    def _feature(
        self, name: str, pooled: jax.Array, present: jax.Array, weight: jax.Array | None
    ) -> jax.Array:
        """A modality's part of the concatenation."""
        missing = self.missing[name][...].astype(pooled.dtype)
        x = jnp.where(present[:, None], pooled, missing[None])
        if self.project:
            x = self.projections[name](x)
            if len(self.projection_norms):
                x = _normalise(self.projection_norms[name], x, weight)
        return x


def _normalise(norm: nnx.Module, x: jax.Array, weight: jax.Array | None) -> jax.Array:
    return norm(x, weight) if isinstance(norm, BatchNorm) else norm(x)
