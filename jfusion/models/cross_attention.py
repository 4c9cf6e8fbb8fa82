"""Fusion by attention between the modalities.

B batch, N tokens of a modality, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.models.attention import Attention, FeedForward
from jfusion.models.encoded import Encoded, Fused
from jfusion.models.layers import FAN_IN_INIT, Common, Dropout, LayerNorm, Linear
from jfusion.ops.masked_mean import masked_mean

Streams = dict[str, jax.Array]


class Layer(nnx.Module):
    """Every modality attends to every other, then passes two fully connected layers by itself.

    Args:
        names: The modalities.
        width: Features per token.
        heads: Attention heads; they share the width.
        hidden: Features inside the fully connected part.
        dropout: Rate on the attention weights and in and after each half.

    Attributes:
        attention: By the modality that asks, then by the one that it asks: one attention for each
            directed pair.
    """

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        heads: int,
        hidden: int,
        dropout: float,
        **common: Unpack[Common],
    ):
        asking = names if len(names) > 1 else []
        self.attention_norm = _for_each(asking, LayerNorm, width, epsilon=1e-5, **common)
        self.attention = nnx.Dict(
            {
                name: _for_each(_others(name, names), Attention, width, heads, dropout, **common)
                for name in asking
            }
        )
        self.feed_forward_norm = _for_each(names, LayerNorm, width, epsilon=1e-5, **common)
        self.feed_forward = _for_each(names, FeedForward, width, hidden, dropout, **common)
        self.dropout = Dropout(dropout)

    def __call__(
        self, x: Streams, masks: Streams, present: Streams, rngs: nnx.Rngs | None
    ) -> Streams:
        """The tokens [B, N, D] of all modalities, one layer on."""
        if len(x) > 1:
            normal = {name: self.attention_norm[name](x[name]) for name in x}
            found = {name: self._ask(name, normal, masks, present, rngs) for name in x}
            x = {name: x[name] + self.dropout(found[name], rngs=rngs) for name in x}
        return {name: self._think(name, x[name], rngs) for name in x}

    def _ask(
        self, name: str, x: Streams, masks: Streams, present: Streams, rngs: nnx.Rngs | None
    ) -> jax.Array:
        """What a modality finds in the others: the mean over those that the row has.

        The mean, so that the size does not hang on how many there are; 0 where there are none.
        """
        total, count = 0, 0
        for other in _others(name, x):
            found = self.attention[name][other](x[name], x[other], masks[other], rngs)
            # Where attention finds nothing its last layer still adds a bias.
            total += jnp.where(present[other][:, None, None], found, 0)
            count += present[other].astype(found.dtype)
        return total / jnp.maximum(count, 1)[:, None, None]

    def _think(self, name: str, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        y = self.feed_forward[name](self.feed_forward_norm[name](x), rngs)
        return x + self.dropout(y, rngs=rngs)


class CrossAttention(nnx.Module):
    """Layers in which all modalities attend to each other, then a weighted sum of their features.

    After MulT (Tsai et al. 2019, arXiv 1906.00295). Unlike there, a modality has one stream of
    tokens that takes in what it finds in all others, not a stream per pair; it asks for the others'
    tokens as the layer before left them, not as the encoders gave them; no positions are added and
    no self-attention follows, both being the encoders' part; and the modalities' features are
    summed by weights of a softmax, not concatenated.

    An absent modality, or one without a single token, is asked nothing and weighs nothing.

    Args:
        widths: Width of each modality's tokens.
        width: Width that they are projected to, and of the fused feature.
        layers: Number of layers.
        heads: Attention heads; they share the width.
        feed_forward: Width inside each layer's fully connected part.
        gate: What the weights of the sum depend on: `learned` has one number per modality, `sample`
            makes it of the row's feature.
        dropout: Rate on attention weights and in and after each half of a layer.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        width: int = 512,
        layers: int = 6,
        heads: int = 8,
        feed_forward: int = 1024,
        gate: Literal["learned", "sample"] = "learned",
        dropout: float = 0.1,
        *,
        dtype: jnp.dtype = jnp.float32,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if gate not in ("learned", "sample"):
            raise ValueError(f"gate is {gate!r}; expected 'learned' or 'sample'")
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        names = sorted(widths)
        self.projections = nnx.Dict(
            {name: Linear(widths[name], width, init=FAN_IN_INIT, **common) for name in names}
        )
        self.projection_norms = _for_each(names, LayerNorm, width, epsilon=1e-5, **common)
        self.layers = nnx.List(
            Layer(names, width, heads, feed_forward, dropout, **common) for _ in range(layers)
        )
        self.norms = _for_each(names, LayerNorm, width, epsilon=1e-5, **common)
        # The softmax over a single modality is 1, whatever its gate says: it has none.
        gated = names if len(names) > 1 else []
        if gate == "learned":  # from equal weights
            self.gates = nnx.Dict({n: nnx.Param(jnp.zeros((1,), param_dtype)) for n in gated})
        else:
            self.gates = _for_each(gated, Linear, width, 1, init=FAN_IN_INIT, **common)
        self.gate = gate
        self.width = width

    def __call__(
        self,
        encoded: Mapping[str, Encoded],
        present: Mapping[str, jax.Array],
        weight: jax.Array | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Fused:
        """Joins the modalities.

        Args:
            encoded: The encodings.
            present: Which rows have which modality, bool `[B]` each.
            weight: Not needed by this fusion, which looks at each row by itself.
            rngs: Streams for dropout.

        Returns:
            The joint feature, `[B, F]`, which is 0 in a row without any modality, each modality's
            own, and their weights in it.
        """
        del weight
        names = sorted(encoded)
        masks = {name: encoded[name].mask & present[name][:, None] for name in names}
        present = {name: masks[name].any(axis=1) for name in names}
        x = {name: self._project(name, encoded[name].tokens, masks[name]) for name in names}
        for layer in self.layers:
            x = layer(x, masks, present, rngs)
        each = {name: masked_mean(self.norms[name](x[name]), masks[name]) for name in names}
        weights = self._weights(each, present)
        parts = (weights[name].astype(each[name].dtype)[:, None] * each[name] for name in names)
        return Fused(joint=sum(parts), each=each, weights=weights)

    def _project(self, name: str, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        # Attention weighs a masked token by 0, which removes it only if it is finite.
        tokens = jnp.where(mask[:, :, None], tokens, 0)
        return self.projection_norms[name](self.projections[name](tokens))

    def _weights(self, each: Streams, present: Streams) -> Streams:
        """The softmax of the gates over the modalities that a row has: float32 [B] each."""
        names = sorted(each)
        if len(names) == 1:
            return {names[0]: present[names[0]].astype(jnp.float32)}
        scores = jnp.stack([self._score(name, each[name]) for name in names])  # [M, B]
        here = jnp.stack([present[name] for name in names])
        scores = jnp.where(here, scores, jnp.finfo(jnp.float32).min)
        # The second choice is for rows without any modality.
        weights = jnp.where(here, jax.nn.softmax(scores, axis=0), 0)
        return dict(zip(names, weights, strict=True))

    def _score(self, name: str, feature: jax.Array) -> jax.Array:
        if self.gate == "sample":
            return self.gates[name](feature)[:, 0].astype(jnp.float32)
        return jnp.broadcast_to(self.gates[name][...].astype(jnp.float32), feature.shape[:1])


def _for_each(names: Sequence[str], make: type[nnx.Module], *sizes, **options) -> nnx.Dict:
    """One module of a kind for each modality."""
    return nnx.Dict({name: make(*sizes, **options) for name in names})


def _others(name: str, names: Sequence[str]) -> list[str]:
    return [other for other in names if other != name]
