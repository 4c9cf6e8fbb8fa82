"""MobileNetV2 (arXiv 1801.04381), any size by its numbers.

Attributes are named as in Hugging Face's network.

B batch, H, W height and width, I, O, C channels, D width of the last map.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.batch_norm import BatchNorm
from jfusion.models.convolutions import Conv, Depthwise, Pointwise, round_channels
from jfusion.models.encoded import Encoded
from jfusion.models.layers import Common


class ConvLayer(nnx.Module):
    """A convolution, BatchNorm and, if asked for, ReLU6."""

    def __init__(
        self,
        convolution: nnx.Module,
        channels: int,
        epsilon: float,
        momentum: float,
        relu: bool = True,
        **common: Unpack[Common],
    ):
        self.convolution = convolution
        self.normalization = BatchNorm(channels, epsilon=epsilon, momentum=momentum, **common)
        self.relu = relu

    def __call__(self, x: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """[B, H, W, I] -> [B, H', W', O]."""
        x = self.normalization(self.convolution(x), rows)
        return jax.nn.relu6(x) if self.relu else x


class _Maker:
    """Makes the layers of one network, with what they all have in common."""

    def __init__(self, padding: str, epsilon: float, momentum: float, common: Common):
        self.padding, self.norm, self.common = padding, (epsilon, momentum), common

    def conv(self, before: int, channels: int, stride: int) -> ConvLayer:
        convolution = Conv(before, channels, 3, stride, self.padding, **self.common)
        return ConvLayer(convolution, channels, *self.norm, **self.common)

    def depthwise(self, channels: int, stride: int) -> ConvLayer:
        convolution = Depthwise(channels, 3, stride, self.padding, **self.common)
        return ConvLayer(convolution, channels, *self.norm, **self.common)

    def pointwise(self, before: int, channels: int, relu: bool = True) -> ConvLayer:
        convolution = Pointwise(before, channels, **self.common)
        return ConvLayer(convolution, channels, *self.norm, relu, **self.common)


class InvertedResidual(nnx.Module):
    """Expands the channels, convolves each, and reduces them; a residual where sizes agree."""

    def __init__(self, make: _Maker, before: int, expanded: int, channels: int, stride: int):
        self.expand_1x1 = make.pointwise(before, expanded)
        self.conv_3x3 = make.depthwise(expanded, stride)
        self.reduce_1x1 = make.pointwise(expanded, channels, relu=False)
        self.residual = stride == 1 and before == channels

    def __call__(self, x: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """[B, H, W, I] -> [B, H / stride, W / stride, O], rounded up."""
        y = self.reduce_1x1(self.conv_3x3(self.expand_1x1(x, rows), rows), rows)
        return x + y if self.residual else y


class Stem(nnx.Module):
    """Halves the picture and turns it into features; holds the first block, which expands none."""

    def __init__(self, make: _Maker, num_channels: int, expanded: int, channels: int, stride: int):
        self.first_conv = make.conv(num_channels, expanded, 2)
        self.conv_3x3 = make.depthwise(expanded, stride)
        self.reduce_1x1 = make.pointwise(expanded, channels, relu=False)

    def __call__(self, pixels: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] -> [B, H / 2, W / 2, O], rounded up."""
        return self.reduce_1x1(self.conv_3x3(self.first_conv(pixels, rows), rows), rows)


class MobileNetV2(nnx.Module):
    """MobileNetV2 without its classifier.

    Most arguments are those of Hugging Face's config.json. Its networks pad as TensorFlow does and
    use an epsilon of 1e-3; timm's pad symmetrically and use 1e-5.

    Attributes:
        width: Features per map position and of the pooled vector.
    """

    def __init__(
        self,
        num_channels: int = 3,
        depth_multiplier: float = 1.0,
        depth_divisible_by: int = 8,
        min_depth: int = 8,
        expand_ratio: float = 6.0,
        out_channels: Sequence[int] = (16, 24, 32, 64, 96, 160, 320),
        num_block_repeats: Sequence[int] = (1, 2, 3, 4, 3, 3, 1),
        strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        hidden_dim: int = 1280,
        padding: str = "same",
        layer_norm_eps: float = 1e-3,
        batch_norm_momentum: float = 0.003,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Builds the network.

        Args:
            num_channels: Channels of a picture.
            depth_multiplier: Factor on all widths; the last layer's never falls below `hidden_dim`.
            depth_divisible_by: Widths are rounded to multiples of this.
            min_depth: The least width.
            expand_ratio: How many times as wide a block is inside.
            out_channels: Width of each stage; the first stage is one block, in the stem.
            num_block_repeats: Blocks of each stage.
            strides: Step of the first block of each stage.
            hidden_dim: Width of the last layer.
            padding: Of convolutions with steps, see `ops.padding`: `same` or `symmetric`.
            layer_norm_eps: Epsilon of every BatchNorm, by the reference's name.
            batch_norm_momentum: Share of a batch in the running statistics. TensorFlow's network
                was trained with a decay of 0.997, which is this; that Hugging Face's hands 0.997 to
                PyTorch would make the statistics those of the last batch.
            dtype: Compute type.
            param_dtype: Type of the parameters.
            rngs: Random keys for the initialisation.
        """
        stages = (tuple(out_channels), tuple(num_block_repeats), tuple(strides))
        if len({len(stage) for stage in stages}) > 1 or num_block_repeats[0] != 1:
            raise ValueError(
                "out_channels={}, num_block_repeats={} and strides={}: expected lists of one "
                "length, and one block in the first stage".format(*stages)
            )
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        make = _Maker(padding, layer_norm_eps, batch_norm_momentum, common)

        def rounded(channels: float) -> int:
            return round_channels(channels, depth_divisible_by, min_depth)

        def scaled(channels: int) -> int:
            return rounded(round(channels * depth_multiplier))

        before = scaled(out_channels[0])
        self.conv_stem = Stem(make, num_channels, scaled(32), before, strides[0])
        layers = []
        for channels, repeats, stride in list(zip(*stages, strict=True))[1:]:
            for i in range(repeats):
                expanded, after = rounded(round(before * expand_ratio)), scaled(channels)
                step = 1 if i else stride
                layers.append(InvertedResidual(make, before, expanded, after, step))
                before = after
        self.layer = nnx.List(layers)
        self.width = max(hidden_dim, scaled(hidden_dim))
        self.conv_1x1 = make.pointwise(before, self.width)

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"pixels": float [B, H, W, 3]}`, already normalised.

        `rows` float32 [B] beside them says which rows count in a batch's statistics. The tokens are
        the last map's positions, row by row; the pooled vector is their mean.
        """
        del rngs  # nothing random
        rows = inputs.get("rows")
        x = self.conv_stem(inputs["pixels"], rows)
        for layer in self.layer:
            x = layer(x, rows)
        x = self.conv_1x1(x, rows)
        B, H, W, D = x.shape
        pooled = x.mean(axis=(1, 2), dtype=jnp.float32).astype(x.dtype)
        return Encoded(x.reshape(B, H * W, D), jnp.ones((B, H * W), bool), pooled)
