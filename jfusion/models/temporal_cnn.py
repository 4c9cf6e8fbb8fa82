"""A temporal convolutional network over frames.

B batch, T frames, F features of a frame, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.encoded import Encoded
from jfusion.models.layers import FAN_IN_INIT, Common, Dropout, LayerNorm, Linear
from jfusion.ops.conv1d import conv1d
from jfusion.ops.masked_mean import masked_mean


class Conv(nnx.Module):
    """A convolution over time.

    Attributes:
        kernel: Weights [k, I, O].
        bias: [O].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        dilation: int,
        *,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, in_features, out_features)
        self.kernel = nnx.Param(FAN_IN_INIT(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_features,), param_dtype))
        self.dilation = dilation
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, I] -> [B, T, O]."""
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        return conv1d(x.astype(self.dtype), kernel, bias, dilation=self.dilation)


class Block(nnx.Module):
    """Convolution, LayerNorm, ReLU and dropout beside a residual."""

    def __init__(
        self,
        in_features: int,
        width: int,
        kernel_size: int,
        dilation: int,
        dropout: float,
        **common: Unpack[Common],
    ):
        self.conv = Conv(in_features, width, kernel_size, dilation, **common)
        self.norm = LayerNorm(width, epsilon=1e-5, **common)
        self.dropout = Dropout(dropout)
        if in_features != width:
            self.projection = Linear(in_features, width, init=FAN_IN_INIT, **common)
        else:
            self.projection = None

    def __call__(self, x: jax.Array, mask: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """[B, T, I] -> [B, T, D], 0 where `mask` [B, T] is False."""
        residual = x if self.projection is None else self.projection(x, rngs)
        x = self.dropout(jax.nn.relu(self.norm(self.conv(x))), rngs=rngs)
        # The next convolution sees 0 wherever there is no frame, as it does beyond the ends.
        return jnp.where(mask[:, :, None], residual + x, 0)


class TemporalCNN(nnx.Module):
    """Residual blocks of dilated convolutions, after the TCN (Bai et al. 2018, arXiv 1803.01271).

    Unlike there, a block has one convolution and not two, and looks both ways: the whole sequence
    is known, so nothing need be causal. Frames are normalised one by one (LayerNorm, where others
    have weight or batch normalisation): statistics of a batch would mix rows, count the frames
    that are not there, and be noise for the small batches of small data sets.

    Args:
        features: Features per frame.
        width: Features that every block gives.
        kernel_size: Frames that a convolution sees.
        dilations: The distance between these frames in each block.
        dropout: Rate in each block.

    Attributes:
        width: Features per token and of the pooled vector.
    """

    def __init__(
        self,
        features: int,
        width: int = 512,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 2, 4),
        dropout: float = 0.15,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not dilations:
            raise ValueError("dilations is empty; give one for each block")
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.blocks = nnx.List(
            Block(width if index else features, width, kernel_size, dilation, dropout, **common)
            for index, dilation in enumerate(dilations)
        )
        self.width = width
        self.dtype = dtype

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"frames": [B, T, F], "valid": bool [B, T, F]}`; see `Encoded`.

        A frame without any valid feature is masked and changes no other. The pooled feature is the
        mean over the others, 0 where there are none.
        """
        valid = inputs["valid"]
        mask = valid.any(axis=-1)
        x = jnp.where(valid, inputs["frames"], 0).astype(self.dtype)
        for block in self.blocks:
            x = block(x, mask, rngs)
        return Encoded(tokens=x, mask=mask, pooled=masked_mean(x, mask))
