"""Multi-head attention whose keys are valid up to a length per row, or where a mask says so.

B batch, T queries, S keys, N heads, H width of a head.
"""

import math
import re

import jax
import jax.numpy as jnp

from jfusion.ops.dropout import dropout


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    lengths: jax.Array | None = None,
    *,
    mask: jax.Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Computes softmax(q k^T / sqrt(H)) v for every head, with the softmax in float32.

    Args:
        q: Queries [B, T, N, H].
        k: Keys [B, S, N, H].
        v: Values [B, S, N, H].
        lengths: int32 [B]; keys at or after a row's length are ignored. A row of length 0 attends
            to its first key, so that the answer stays finite. None: every key is valid.
        mask: bool [B, S], instead of `lengths`; keys where it is False are ignored, and so are
            their values, as long as they are finite. A row without any valid key gives 0, and no
            gradient.
        dropout_rate: Share of the attention weights to drop.
        dropout_key: Random key; None means no dropout.

    Returns:
        [B, T, N, H], of the dtype of `q`.
    """
    if lengths is not None and mask is not None:
        raise ValueError("give lengths or a mask, not both")
    if lengths is not None:
        lengths = jnp.maximum(lengths, 1)
    drops = dropout_rate > 0 and dropout_key is not None
    if _cudnn_serves(q) and not drops and mask is None:
        # By length only: given a mask, cuDNN's backward pass computes a gradient of it, and a row
        # without any valid key would be the mean of all values.
        return jax.nn.dot_product_attention(
            q, k, v, key_value_seq_lengths=lengths, implementation="cudnn"
        )
    B, T, N, H = q.shape
    S = k.shape[1]
    # Heads merged into the batch: two plain batched products, which every backend has fast.
    q, k, v = (_heads_first(a) for a in (q / math.sqrt(H), k, v))
    scores = jnp.einsum("bth,bsh->bts", q, k, preferred_element_type=jnp.float32)
    valid = mask if lengths is None else jnp.arange(S)[None, :] < lengths[:, None]  # [B, S]
    if valid is not None:
        valid = jnp.repeat(valid, N, axis=0)[:, None, :]
        scores = jnp.where(valid, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1)
    if mask is not None:  # only rows without any valid key are not 0 there already
        weights = jnp.where(valid, weights, 0)
    if drops:
        weights = dropout(weights, dropout_rate, dropout_key)
    out = jnp.einsum("bts,bsh->bth", weights.astype(v.dtype), v)
    return out.reshape(B, N, T, H).transpose(0, 2, 1, 3)


def _heads_first(x: jax.Array) -> jax.Array:
    """[B, T, N, H] -> [B * N, T, H]."""
    B, T, N, H = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B * N, T, H)


def _cudnn_serves(q: jax.Array) -> bool:
    """Whether cuDNN's flash attention takes such queries: half precision, from Ampere cards on."""
    if jax.default_backend() != "gpu" or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    capability = re.fullmatch(r"(\d+)\.\d+", str(jax.devices()[0].compute_capability))
    return capability is not None and int(capability[1]) >= 8 and q.shape[3] in range(8, 129, 8)
