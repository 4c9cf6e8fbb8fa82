"""ConvNeXt (arXiv 2201.03545), any size by its numbers.

Attributes are named as in Hugging Face's network. Convolutions whose steps are as long as their
kernel are written as reshape and product, which every backend has fast.

B batch, H, W height and width, C channels, D width of the last stage.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.encoded import Encoded
from jfusion.models.layers import INIT, Common, LayerNorm, Linear
from jfusion.ops.activations import gelu
from jfusion.ops.depthwise import depthwise_conv2d
from jfusion.ops.linear import add_bias, linear


class PatchConv(nnx.Module):
    """A convolution over patches that do not overlap: kernel and step are equally long.

    Attributes:
        kernel: Weights [p, p, I, O].
        bias: [O].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch: int,
        **common: Unpack[Common],
    ):
        shape = (patch, patch, in_channels, out_channels)
        self.kernel = nnx.Param(INIT(common["rngs"].params(), shape, common["param_dtype"]))
        self.bias = nnx.Param(jnp.zeros((out_channels,), common["param_dtype"]))
        self.dtype = common["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] -> [B, H // p, W // p, O]; what does not fill a patch is left out."""
        p, _, I, O = self.kernel.shape  # noqa: E741
        B, H, W, _ = x.shape
        h, w = H // p, W // p
        x = x[:, : h * p, : w * p].astype(self.dtype)
        x = x.reshape(B, h, p, w, p, I).transpose(0, 1, 3, 2, 4, 5).reshape(B, h, w, p * p * I)
        kernel = self.kernel[...].astype(self.dtype).reshape(p * p * I, O)
        return linear(x, kernel, self.bias[...].astype(self.dtype))


class DepthwiseConv(nnx.Module):
    """A 7 x 7 convolution of every channel with its own kernel, size kept.

    Attributes:
        kernel: [7, 7, 1, C].
        bias: [C].
    """

    def __init__(self, channels: int, **common: Unpack[Common]):
        self.kernel = nnx.Param(
            INIT(common["rngs"].params(), (7, 7, 1, channels), common["param_dtype"])
        )
        self.bias = nnx.Param(jnp.zeros((channels,), common["param_dtype"]))
        self.dtype = common["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        y = depthwise_conv2d(x.astype(self.dtype), kernel, padding=((3, 3), (3, 3)))
        return add_bias(y, bias)


class Layer(nnx.Module):
    """A residual block: depthwise convolution, then two fully connected layers per pixel."""

    def __init__(
        self,
        channels: int,
        drop_path: float,
        layer_scale: float,
        **common: Unpack[Common],
    ):
        self.dwconv = DepthwiseConv(channels, **common)
        self.layernorm = LayerNorm(channels, epsilon=1e-6, **common)
        self.pwconv1 = Linear(channels, 4 * channels, **common)
        self.pwconv2 = Linear(4 * channels, channels, **common)
        self.layer_scale_parameter = (
            nnx.Param(jnp.full((channels,), layer_scale, common["param_dtype"]))
            if layer_scale > 0
            else None
        )
        # One draw per row decides about the whole block: stochastic depth.
        self.drop_path = nnx.Dropout(drop_path, broadcast_dims=(1, 2, 3))

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        y = self.layernorm(self.dwconv(x))
        y = self.pwconv2(gelu(self.pwconv1(y, rngs)), rngs)
        if self.layer_scale_parameter is not None:
            y = y * self.layer_scale_parameter[...].astype(y.dtype)[None, None, None, :]
        return x + self.drop_path(y, rngs=rngs)


class Stage(nnx.Module):
    """Halves the map (except in the first stage), then applies blocks of one width."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        drop_path_rates: Sequence[float],
        layer_scale: float,
        **common: Unpack[Common],
    ):
        downsampling = []
        if stride > 1 or in_channels != channels:
            downsampling = [
                LayerNorm(in_channels, epsilon=1e-6, **common),
                PatchConv(in_channels, channels, stride, **common),
            ]
        self.downsampling_layer = nnx.List(downsampling)
        self.layers = nnx.List(
            [Layer(channels, rate, layer_scale, **common) for rate in drop_path_rates]
        )

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, H, W, I] -> [B, H / stride, W / stride, C]."""
        for module in self.downsampling_layer:
            x = module(x)
        for layer in self.layers:
            x = layer(x, rngs=rngs)
        return x


class Stem(nnx.Module):
    """Turns patches of pixels into features."""

    def __init__(
        self,
        num_channels: int,
        channels: int,
        patch_size: int,
        **common: Unpack[Common],
    ):
        self.patch_embeddings = PatchConv(num_channels, channels, patch_size, **common)
        self.layernorm = LayerNorm(channels, epsilon=1e-6, **common)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, H / patch_size, W / patch_size, C]."""
        return self.layernorm(self.patch_embeddings(pixels))


class Stages(nnx.Module):
    """All stages, one after the other, under the reference's name `stages`."""

    def __init__(self, stages: list[Stage]):
        self.stages = nnx.List(stages)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', D]."""
        for stage in self.stages:
            x = stage(x, rngs=rngs)
        return x


class ConvNeXt(nnx.Module):
    """ConvNeXt without its classifier; the arguments are those of the reference's config.json.

    Attributes:
        width: Features per map position and of the pooled vector.
    """

    def __init__(
        self,
        num_channels: int = 3,
        patch_size: int = 4,
        hidden_sizes: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (3, 3, 9, 3),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        layer_norm_eps: float = 1e-12,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Builds the network.

        Args:
            num_channels: Channels of a picture.
            patch_size: Side of the patches that the stem reads.
            hidden_sizes: Width of each stage.
            depths: Blocks of each stage.
            drop_path_rate: Probability of leaving out the last block, for a row in training; it
                rises linearly from 0 at the first block.
            layer_scale_init_value: First value of each block's scale; 0 has no scale.
            layer_norm_eps: Epsilon of the last normalisation only, as in the reference; all others
                use 1e-6.
            dtype: Compute type.
            param_dtype: Type of the parameters.
            rngs: Random keys for the initialisation.
        """
        if len(hidden_sizes) != len(depths):
            raise ValueError(
                f"hidden_sizes={tuple(hidden_sizes)} and depths={tuple(depths)} differ in length"
            )
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.embeddings = Stem(num_channels, hidden_sizes[0], patch_size, **common)
        rates = np.linspace(0, drop_path_rate, sum(depths)).tolist()
        stages, before = [], hidden_sizes[0]
        for i, (channels, depth) in enumerate(zip(hidden_sizes, depths, strict=True)):
            here, rates = rates[:depth], rates[depth:]
            stride = 2 if i else 1
            stages.append(Stage(before, channels, stride, here, layer_scale_init_value, **common))
            before = channels
        self.encoder = Stages(stages)
        self.layernorm = LayerNorm(before, epsilon=layer_norm_eps, **common)
        self.width = before

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"pixels": float [B, H, W, 3]}`, already normalised.

        The tokens are the last map's positions, row by row and not normalised; the pooled vector is
        their normalised mean.
        """
        x = self.encoder(self.embeddings(inputs["pixels"]), rngs=rngs)
        B, H, W, D = x.shape
        pooled = self.layernorm(x.mean(axis=(1, 2)))
        return Encoded(x.reshape(B, H * W, D), jnp.ones((B, H * W), bool), pooled)
