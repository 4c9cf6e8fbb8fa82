"""BERT and DistilBERT.

Attributes are named as in Hugging Face's networks. Both normalise after each residual sum.

B batch, N tokens, D width.
"""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.encoded import Encoded
from jfusion.models.layers import Common, Dropout, Embed, LayerNorm, Linear, dropout_key
from jfusion.ops.activations import gelu
from jfusion.ops.attention import attention


class Embeddings(nnx.Module):
    """The sum of word, position and (in BERT) token-type vectors, normalised."""

    def __init__(
        self,
        vocab_size: int,
        max_positions: int,
        token_types: int,
        width: int,
        epsilon: float,
        dropout: float,
        **common: Unpack[Common],
    ):
        self.word_embeddings = Embed(vocab_size, width, **common)
        self.position_embeddings = Embed(max_positions, width, **common)
        self.token_type_embeddings = Embed(token_types, width, **common) if token_types else None
        self.LayerNorm = LayerNorm(width, epsilon=epsilon, **common)
        self.dropout = Dropout(dropout)
        self.max_positions = max_positions

    def __call__(self, ids: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Embeds `ids` [B, N]: [B, N, D]."""
        N = ids.shape[1]
        if N > self.max_positions:
            raise ValueError(
                f"texts of {N} tokens, but the network has {self.max_positions} positions; "
                "lower max_tokens"
            )
        x = self.word_embeddings(ids)
        if self.token_type_embeddings is not None:
            x = x + self.token_type_embeddings.first(1)[None]  # one segment: all of type 0
        x = x + self.position_embeddings.first(N)[None]
        return self.dropout(self.LayerNorm(x), rngs=rngs)


class DistilBertAttention(nnx.Module):
    """Multi-head self-attention with its output projection."""

    def __init__(
        self,
        width: int,
        n_heads: int,
        dropout: float,
        **common: Unpack[Common],
    ):
        self.q_lin = Linear(width, width, **common)
        self.k_lin = Linear(width, width, **common)
        self.v_lin = Linear(width, width, **common)
        self.out_lin = Linear(width, width, **common)
        self.dropout = Dropout(dropout)
        self.n_heads = n_heads

    def __call__(self, x: jax.Array, lengths: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        q, k, v = self.q_lin(x, rngs), self.k_lin(x, rngs), self.v_lin(x, rngs)
        return self.out_lin(_attend(q, k, v, lengths, self.n_heads, self.dropout, rngs), rngs)


class DistilBertFFN(nnx.Module):
    """The two fully connected layers of a DistilBERT layer."""

    def __init__(
        self,
        width: int,
        hidden: int,
        dropout: float,
        **common: Unpack[Common],
    ):
        self.lin1 = Linear(width, hidden, **common)
        self.lin2 = Linear(hidden, width, **common)
        self.dropout = Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        x = self.lin2(gelu(self.lin1(x, rngs)), rngs)
        return self.dropout(x, rngs=rngs)


class DistilBertLayer(nnx.Module):
    """Self-attention and two fully connected layers."""

    def __init__(
        self,
        width: int,
        n_heads: int,
        hidden: int,
        dropout: float,
        attention_dropout: float,
        **common: Unpack[Common],
    ):
        self.attention = DistilBertAttention(width, n_heads, attention_dropout, **common)
        self.sa_layer_norm = LayerNorm(width, epsilon=1e-12, **common)
        self.ffn = DistilBertFFN(width, hidden, dropout, **common)
        self.output_layer_norm = LayerNorm(width, epsilon=1e-12, **common)

    def __call__(
        self, x: jax.Array, lengths: jax.Array, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[B, N, D] -> [B, N, D]; `lengths` int32 [B] says how many tokens of a row are real."""
        x = self.sa_layer_norm(self.attention(x, lengths, rngs) + x)
        return self.output_layer_norm(self.ffn(x, rngs) + x)


class Layers(nnx.Module):
    """A stack of layers, one after the other, under the reference's name `layer`."""

    def __init__(self, layers: list[nnx.Module]):
        self.layer = nnx.List(layers)

    def __call__(
        self, x: jax.Array, lengths: jax.Array, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        for layer in self.layer:
            x = layer(x, lengths, rngs=rngs)
        return x


class DistilBert(nnx.Module):
    """DistilBERT (arXiv 1910.01108); the arguments are those of the reference's config.json.

    Attributes:
        width: Features per token and of the pooled vector.
    """

    def __init__(
        self,
        vocab_size: int = 30522,
        dim: int = 768,
        n_layers: int = 6,
        n_heads: int = 12,
        hidden_dim: int = 3072,
        max_position_embeddings: int = 512,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check_heads(dim, "dim", n_heads, "n_heads")
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.embeddings = Embeddings(
            vocab_size, max_position_embeddings, 0, dim, 1e-12, dropout, **common
        )
        self.transformer = Layers(
            [
                DistilBertLayer(dim, n_heads, hidden_dim, dropout, attention_dropout, **common)
                for _ in range(n_layers)
            ]
        )
        self.width = dim

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"ids": int32 [B, N], "length": int32 [B]}`; see `Encoded`."""
        x = self.embeddings(inputs["ids"], rngs=rngs)
        return _encoded(self.transformer(x, inputs["length"], rngs=rngs), inputs["length"])


class BertSelfAttention(nnx.Module):
    """Multi-head self-attention without its output projection."""

    def __init__(
        self,
        width: int,
        n_heads: int,
        dropout: float,
        **common: Unpack[Common],
    ):
        self.query = Linear(width, width, **common)
        self.key = Linear(width, width, **common)
        self.value = Linear(width, width, **common)
        self.dropout = Dropout(dropout)
        self.n_heads = n_heads

    def __call__(self, x: jax.Array, lengths: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        q, k, v = self.query(x, rngs), self.key(x, rngs), self.value(x, rngs)
        return _attend(q, k, v, lengths, self.n_heads, self.dropout, rngs)


class BertOutput(nnx.Module):
    """Projection, dropout, residual sum and normalisation: how each half of a layer ends."""

    def __init__(
        self,
        in_features: int,
        width: int,
        epsilon: float,
        dropout: float,
        **common: Unpack[Common],
    ):
        self.dense = Linear(in_features, width, **common)
        self.LayerNorm = LayerNorm(width, epsilon=epsilon, **common)
        self.dropout = Dropout(dropout)

    def __call__(self, x: jax.Array, residual: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, N, I] and the residual [B, N, D] -> [B, N, D]."""
        return self.LayerNorm(self.dropout(self.dense(x, rngs), rngs=rngs) + residual)


class BertAttention(nnx.Module):
    """The first half of a layer."""

    def __init__(
        self,
        width: int,
        n_heads: int,
        epsilon: float,
        dropout: float,
        attention_dropout: float,
        **common: Unpack[Common],
    ):
        self.self = BertSelfAttention(width, n_heads, attention_dropout, **common)
        self.output = BertOutput(width, width, epsilon, dropout, **common)

    def __call__(self, x: jax.Array, lengths: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, N, D] -> [B, N, D]."""
        return self.output(self.self(x, lengths, rngs), x, rngs)


class BertIntermediate(nnx.Module):
    """The widening layer and its exact GELU."""

    def __init__(
        self,
        width: int,
        hidden: int,
        **common: Unpack[Common],
    ):
        self.dense = Linear(width, hidden, **common)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, N, D] -> [B, N, I]."""
        return gelu(self.dense(x, rngs))


class BertLayer(nnx.Module):
    """Self-attention and two fully connected layers."""

    def __init__(
        self,
        width: int,
        n_heads: int,
        hidden: int,
        epsilon: float,
        dropout: float,
        attention_dropout: float,
        **common: Unpack[Common],
    ):
        self.attention = BertAttention(
            width, n_heads, epsilon, dropout, attention_dropout, **common
        )
        self.intermediate = BertIntermediate(width, hidden, **common)
        self.output = BertOutput(hidden, width, epsilon, dropout, **common)

    def __call__(
        self, x: jax.Array, lengths: jax.Array, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[B, N, D] -> [B, N, D]; `lengths` int32 [B] says how many tokens of a row are real."""
        x = self.attention(x, lengths, rngs)
        return self.output(self.intermediate(x, rngs), x, rngs)


class Bert(nnx.Module):
    """BERT (arXiv 1810.04805) without its pooler: the pooled vector is the first token's.

    The arguments are those of the reference's config.json.

    Attributes:
        width: Features per token and of the pooled vector.
    """

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check_heads(hidden_size, "hidden_size", num_attention_heads, "num_attention_heads")
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.embeddings = Embeddings(
            vocab_size,
            max_position_embeddings,
            type_vocab_size,
            hidden_size,
            layer_norm_eps,
            hidden_dropout_prob,
            **common,
        )
        self.encoder = Layers(
            [
                BertLayer(
                    hidden_size,
                    num_attention_heads,
                    intermediate_size,
                    layer_norm_eps,
                    hidden_dropout_prob,
                    attention_probs_dropout_prob,
                    **common,
                )
                for _ in range(num_hidden_layers)
            ]
        )
        self.width = hidden_size

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"ids": int32 [B, N], "length": int32 [B]}`; see `Encoded`."""
        x = self.embeddings(inputs["ids"], rngs=rngs)
        return _encoded(self.encoder(x, inputs["length"], rngs=rngs), inputs["length"])


def _attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    lengths: jax.Array,
    n_heads: int,
    dropout: nnx.Dropout,
    rngs: nnx.Rngs | None,
) -> jax.Array:
    """Attention over [B, N, D] with D divided into heads; drops attention weights."""
    B, N, D = q.shape
    q, k, v = (a.reshape(B, N, n_heads, D // n_heads) for a in (q, k, v))
    key = dropout_key(dropout, rngs)
    return attention(q, k, v, lengths, dropout_rate=dropout.rate, dropout_key=key).reshape(B, N, D)


def _encoded(tokens: jax.Array, lengths: jax.Array) -> Encoded:
    mask = jnp.arange(tokens.shape[1])[None, :] < lengths[:, None]
    return Encoded(tokens, mask, tokens[:, 0])


def _check_heads(width: int, width_name: str, heads: int, heads_name: str) -> None:
    if width % heads:
        raise ValueError(f"{width_name}={width} is not a multiple of {heads_name}={heads}")
