"""Long texts, read in windows by a network that knows short ones.

B batch, W windows, N tokens of a window, D width.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from jfusion.models.encoded import Encoded
from jfusion.ops.masked_mean import masked_mean


def encode(encoder: nnx.Module, arrays: Mapping[str, jax.Array], rngs: nnx.Rngs | None) -> Encoded:
    """Encodes every window by itself, as if each were a text.

    Args:
        encoder: A text network.
        arrays: `ids` int32 [B, W, N] and `length` int32 [B, W]; 0 is a window that is not used.
            `rows` float32 [B] says which rows count in the statistics of a batch.
        rngs: Streams for dropout.

    Returns:
        All tokens of a row, one window after the other, [B, W * N, D], and the mean of the pooled
        features of the used windows, [B, D]; 0 where none is.
    """
    ids, length = arrays["ids"], arrays["length"]
    B, W, N = ids.shape
    used = length > 0
    rows = arrays["rows"][:, None] * used
    flat = {"ids": ids.reshape(B * W, N), "length": length.reshape(B * W), "rows": rows.reshape(-1)}
    tokens, mask, pooled = encoder(flat, rngs=rngs)
    return Encoded(
        tokens=tokens.reshape(B, W * N, -1),
        mask=mask.reshape(B, W * N),
        pooled=masked_mean(pooled.reshape(B, W, -1), used),
    )
