"""EfficientNet (arXiv 1905.11946), any size by its numbers.

Attributes are named as in Hugging Face's network.

B batch, H, W height and width, I, O, C channels, D width of the last map.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.batch_norm import BatchNorm
from jfusion.models.convolutions import FAN_OUT_INIT, Conv, Depthwise, Pointwise, round_channels
from jfusion.models.encoded import Encoded
from jfusion.models.layers import Common, Linear


@dataclass(frozen=True)
class _Block:
    """The numbers of one block."""

    before: int
    after: int
    kernel_size: int
    stride: int
    expand_ratio: int
    squeezed: int
    padding: str
    drop_rate: float


class Embeddings(nnx.Module):
    """Halves the picture and turns it into features."""

    def __init__(
        self,
        num_channels: int,
        channels: int,
        padding: str,
        norm: Mapping[str, float],
        **common: Unpack[Common],
    ):
        self.convolution = Conv(num_channels, channels, 3, 2, padding, **common)
        self.batchnorm = BatchNorm(channels, **norm, **common)

    def __call__(self, pixels: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] -> [B, H / 2, W / 2, O]."""
        return jax.nn.silu(self.batchnorm(self.convolution(pixels), rows))


class Expansion(nnx.Module):
    """Widens every pixel."""

    def __init__(
        self, before: int, channels: int, norm: Mapping[str, float], **common: Unpack[Common]
    ):
        self.expand_conv = Pointwise(before, channels, **common)
        self.expand_bn = BatchNorm(channels, **norm, **common)

    def __call__(self, x: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """[B, H, W, I] -> [B, H, W, O]."""
        return jax.nn.silu(self.expand_bn(self.expand_conv(x), rows))


class DepthwiseLayer(nnx.Module):
    """Convolves every channel by itself."""

    def __init__(
        self,
        channels: int,
        size: int,
        stride: int,
        padding: str,
        norm: Mapping[str, float],
        **common: Unpack[Common],
    ):
        self.depthwise_conv = Depthwise(channels, size, stride, padding, **common)
        self.depthwise_norm = BatchNorm(channels, **norm, **common)

    def __call__(self, x: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', C]."""
        return jax.nn.silu(self.depthwise_norm(self.depthwise_conv(x), rows))


class SqueezeExcite(nnx.Module):
    """Weighs the channels of a map by what the whole map shows."""

    def __init__(self, channels: int, squeezed: int, **common: Unpack[Common]):
        self.reduce = Linear(channels, squeezed, init=FAN_OUT_INIT, **common)
        self.expand = Linear(squeezed, channels, init=FAN_OUT_INIT, **common)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        mean = x.mean(axis=(1, 2), dtype=jnp.float32).astype(x.dtype)
        weights = jax.nn.sigmoid(self.expand(jax.nn.silu(self.reduce(mean, rngs)), rngs))
        return x * weights[:, None, None]


class Projection(nnx.Module):
    """Narrows every pixel, without an activation."""

    def __init__(
        self, before: int, channels: int, norm: Mapping[str, float], **common: Unpack[Common]
    ):
        self.project_conv = Pointwise(before, channels, **common)
        self.project_bn = BatchNorm(channels, **norm, **common)

    def __call__(self, x: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """[B, H, W, I] -> [B, H, W, O]."""
        return self.project_bn(self.project_conv(x), rows)


class Block(nnx.Module):
    """An inverted residual with squeeze and excitation."""

    def __init__(self, block: _Block, norm: Mapping[str, float], **common: Unpack[Common]):
        inside = block.before * block.expand_ratio
        self.expansion = (
            Expansion(block.before, inside, norm, **common) if block.expand_ratio > 1 else None
        )
        self.depthwise_conv = DepthwiseLayer(
            inside, block.kernel_size, block.stride, block.padding, norm, **common
        )
        self.squeeze_excite = SqueezeExcite(inside, block.squeezed, **common)
        self.projection = Projection(inside, block.after, norm, **common)
        self.residual = block.stride == 1 and block.before == block.after
        # One draw per row decides about the whole block: stochastic depth.
        self.drop_path = nnx.Dropout(block.drop_rate, broadcast_dims=(1, 2, 3))

    def __call__(
        self, x: jax.Array, rows: jax.Array | None = None, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[B, H, W, I] -> [B, H', W', O]."""
        y = x if self.expansion is None else self.expansion(x, rows)
        y = self.squeeze_excite(self.depthwise_conv(y, rows), rngs)
        y = self.projection(y, rows)
        return x + self.drop_path(y, rngs=rngs) if self.residual else y


class Encoder(nnx.Module):
    """All blocks and the last convolution."""

    def __init__(
        self,
        blocks: Sequence[_Block],
        channels: int,
        norm: Mapping[str, float],
        **common: Unpack[Common],
    ):
        self.blocks = nnx.List([Block(block, norm, **common) for block in blocks])
        self.top_conv = Pointwise(blocks[-1].after, channels, **common)
        self.top_bn = BatchNorm(channels, **norm, **common)

    def __call__(
        self, x: jax.Array, rows: jax.Array | None = None, *, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """[B, H, W, I] -> [B, H', W', D]."""
        for block in self.blocks:
            x = block(x, rows, rngs=rngs)
        return jax.nn.silu(self.top_bn(self.top_conv(x), rows))


class EfficientNet(nnx.Module):
    """EfficientNet without its classifier; B0, unless its numbers say otherwise.

    The arguments are those of Hugging Face's config.json, and `padding`.

    Attributes:
        width: Features per map position and of the pooled vector.
    """

    def __init__(
        self,
        num_channels: int = 3,
        width_coefficient: float = 1.0,
        depth_coefficient: float = 1.0,
        depth_divisor: int = 8,
        kernel_sizes: Sequence[int] = (3, 3, 5, 3, 5, 5, 3),
        in_channels: Sequence[int] = (32, 16, 24, 40, 80, 112, 192),
        out_channels: Sequence[int] = (16, 24, 40, 80, 112, 192, 320),
        depthwise_padding: Sequence[int] = (),
        strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        num_block_repeats: Sequence[int] = (1, 2, 2, 3, 3, 4, 1),
        expand_ratios: Sequence[int] = (1, 6, 6, 6, 6, 6, 6),
        squeeze_expansion_ratio: float = 0.25,
        hidden_dim: int = 1280,
        padding: str = "same",
        batch_norm_eps: float = 1e-3,
        batch_norm_momentum: float = 0.01,
        drop_connect_rate: float = 0.2,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Builds the network.

        Args:
            num_channels: Channels of a picture.
            width_coefficient: Factor on all widths.
            depth_coefficient: Factor on the blocks of each stage.
            depth_divisor: Widths are rounded to multiples of this.
            kernel_sizes: Side of the depthwise kernels of each stage.
            in_channels: Width before each stage; the first is that of the stem.
            out_channels: Width of each stage.
            depthwise_padding: Blocks, by number, that pad symmetrically where `padding` is `even`.
            strides: Step of the first block of each stage.
            num_block_repeats: Blocks of each stage.
            expand_ratios: How many times as wide the blocks of each stage are inside.
            squeeze_expansion_ratio: Width of the squeezed features, as a share of the block's
                input.
            hidden_dim: Width of the last map.
            padding: Of convolutions with steps, see `ops.padding`: TensorFlow's `same`, Hugging
                Face's `even`, which equals it for maps of even size, or `symmetric`.
            batch_norm_eps: Epsilon of every BatchNorm.
            batch_norm_momentum: Share of a batch in the running statistics: 0.01 is TensorFlow's
                decay of 0.99. (Hugging Face's config.json has 0.99 and hands it to PyTorch, which
                would make the statistics those of the last batch.)
            drop_connect_rate: Probability of leaving out a block, for a row in training; it rises
                linearly from 0 at the first block. This is the original's and timm's stochastic
                depth; Hugging Face drops single numbers instead.
            dtype: Compute type.
            param_dtype: Type of the parameters.
            rngs: Random keys for the initialisation.
        """
        stages = {
            "kernel_sizes": kernel_sizes,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "strides": strides,
            "num_block_repeats": num_block_repeats,
            "expand_ratios": expand_ratios,
        }
        if len({len(numbers) for numbers in stages.values()}) > 1:
            told = ", ".join(f"{name}={tuple(numbers)}" for name, numbers in stages.items())
            raise ValueError(f"{told} differ in length")

        def scaled(channels: int) -> int:
            return round_channels(channels * width_coefficient, depth_divisor, depth_divisor)

        repeats = [math.ceil(depth_coefficient * count) for count in num_block_repeats]
        blocks: list[_Block] = []
        for stage, count in enumerate(repeats):
            for i in range(count):
                before = scaled(out_channels[stage] if i else in_channels[stage])
                square = padding == "even" and len(blocks) in depthwise_padding
                blocks.append(
                    _Block(
                        before=before,
                        after=scaled(out_channels[stage]),
                        kernel_size=kernel_sizes[stage],
                        stride=1 if i else strides[stage],
                        expand_ratio=expand_ratios[stage],
                        squeezed=max(1, int(before * squeeze_expansion_ratio)),
                        padding="symmetric" if square else padding,
                        drop_rate=drop_connect_rate * len(blocks) / sum(repeats),
                    )
                )
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norm = {"epsilon": batch_norm_eps, "momentum": batch_norm_momentum}
        self.embeddings = Embeddings(num_channels, blocks[0].before, padding, norm, **common)
        self.encoder = Encoder(blocks, hidden_dim, norm, **common)
        self.width = hidden_dim

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"pixels": float [B, H, W, 3]}`, already normalised.

        `rows` float32 [B] beside them says which rows count in a batch's statistics. The tokens are
        the last map's positions, row by row; the pooled vector is their mean.
        """
        rows = inputs.get("rows")
        x = self.encoder(self.embeddings(inputs["pixels"], rows), rows, rngs=rngs)
        B, H, W, D = x.shape
        pooled = x.mean(axis=(1, 2), dtype=jnp.float32).astype(x.dtype)
        return Encoded(x.reshape(B, H * W, D), jnp.ones((B, H * W), bool), pooled)
