"""A convolutional network over words (Kim 2014, arXiv 1408.5882), with batch normalisation.

B batch, N tokens of a text, D width of the embedding, K filters of a kernel size.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.batch_norm import BatchNorm
from jfusion.models.dense_norm import DenseNorm
from jfusion.models.encoded import Encoded
from jfusion.models.layers import FAN_IN_INIT, Common, Embed
from jfusion.ops.conv1d import conv1d

# As for `DenseNorm`.
NORM = {"epsilon": 1e-3, "momentum": 0.1}


class Branch(nnx.Module):
    """What a text shows to the kernels of one size: convolution, BatchNorm, ReLU, maximum.

    Attributes:
        kernel: [k, D, K].
        bias: [K].
    """

    def __init__(self, width: int, kernel_size: int, filters: int, **common: Unpack[Common]):
        shape, param_dtype = (kernel_size, width, filters), common["param_dtype"]
        self.kernel = nnx.Param(FAN_IN_INIT(common["rngs"].params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros((filters,), param_dtype))
        self.norm = BatchNorm(filters, **NORM, **common)
        self.dtype = common["dtype"]

    def __call__(self, x: jax.Array, length: jax.Array, rows: jax.Array | None) -> jax.Array:
        """[B, N, D], 0 beyond `length` [B] -> [B, K].

        Only positions count where the whole kernel lies on the text, for the maximum and for the
        batch's statistics. A text shorter than the kernel counts with its first position, which
        sees zeros beyond its end.
        """
        k = self.kernel.shape[0]
        N = max(x.shape[1], k)
        x = jnp.pad(x, ((0, 0), (0, N - x.shape[1]), (0, 0)))
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        before = (k - 1) // 2
        y = conv1d(x, kernel, bias)[:, before : before + N - k + 1]
        valid = jnp.arange(N - k + 1)[None] <= jnp.maximum(length - k, 0)[:, None]
        counts = valid if rows is None else valid & (rows > 0)[:, None]
        y = jax.nn.relu(self.norm(y, counts))
        # Nothing is below 0 after the ReLU.
        return jnp.where(valid[:, :, None], y, 0).max(axis=1)


class TextCNN(nnx.Module):
    """Kernels of several sizes side by side over embedded words.

    Args:
        vocab_size: Rows of the embedding; row 0 is padding.
        width: Width of the embedding.
        kernel_sizes: Words that the kernels of each branch see.
        filters: Kernels of each branch.
        hidden: Width of the fully connected layer after them.
        dropout: Rate on its output.

    Attributes:
        width: Features of the pooled vector. The tokens have as many only where `hidden` equals
            the embedding's width, which a fusion that reads tokens needs.
    """

    def __init__(
        self,
        vocab_size: int = 15001,
        width: int = 128,
        kernel_sizes: Sequence[int] = (2, 3, 4),
        filters: int = 64,
        hidden: int = 128,
        dropout: float = 0.3,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not kernel_sizes:
            raise ValueError("kernel_sizes is empty; give one for each branch")
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.embedding = Embed(vocab_size, width, **common)
        self.branches = nnx.List([Branch(width, size, filters, **common) for size in kernel_sizes])
        self.dense = DenseNorm(filters * len(kernel_sizes), hidden, dropout, **NORM, **common)
        self.width = hidden

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"ids": int32 [B, N], "length": int32 [B]}`.

        `rows` float32 [B] beside them says which rows count in a batch's statistics. The tokens are
        the embedded words, 0 beyond the end of the text.
        """
        ids, length, rows = inputs["ids"], inputs["length"], inputs.get("rows")
        mask = jnp.arange(ids.shape[1])[None] < length[:, None]
        x = jnp.where(mask[:, :, None], self.embedding(ids), 0)
        seen = [branch(x, length, rows) for branch in self.branches]
        pooled = self.dense(jnp.concatenate(seen, axis=-1), rows, rngs=rngs)
        return Encoded(x, mask, pooled)
