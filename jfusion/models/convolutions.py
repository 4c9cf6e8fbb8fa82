"""Convolutions without biases, as they stand before a BatchNorm.

B batch, H, W height and width, I, O, C channels.
"""

from typing import Unpack

import jax
from flax import nnx

from jfusion.models.layers import Common
from jfusion.ops.conv2d import conv2d
from jfusion.ops.depthwise import depthwise_conv2d
from jfusion.ops.linear import linear
from jfusion.ops.padding import padding

# Variances of 2 / fan-out (He et al. 2015), as the references have it.
FAN_OUT_INIT = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class Pointwise(nnx.Module):
    """A 1 x 1 convolution.

    Attributes:
        kernel: [I, O].
    """

    def __init__(self, in_channels: int, out_channels: int, **common: Unpack[Common]):
        shape = (in_channels, out_channels)
        self.kernel = nnx.Param(FAN_OUT_INIT(common["rngs"].params(), shape, common["param_dtype"]))
        self.dtype = common["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] -> [B, H, W, O]."""
        return linear(x.astype(self.dtype), self.kernel[...].astype(self.dtype))


class Conv(nnx.Module):
    """A convolution over space and channels.

    Args:
        in_channels: I.
        out_channels: O.
        size: Side of the kernel.
        stride: Step of the kernel.
        padding: Convention, see `ops.padding`.

    Attributes:
        kernel: [size, size, I, O].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        stride: int,
        padding: str,
        **common: Unpack[Common],
    ):
        shape = (size, size, in_channels, out_channels)
        self.kernel = nnx.Param(FAN_OUT_INIT(common["rngs"].params(), shape, common["param_dtype"]))
        self.stride = stride
        self.padding = padding
        self.dtype = common["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] -> [B, H', W', O]."""
        kernel = self.kernel[...].astype(self.dtype)
        around = padding(self.padding, x.shape[1:3], kernel.shape[0], self.stride)
        return conv2d(x.astype(self.dtype), kernel, stride=self.stride, padding=around)


class Depthwise(nnx.Module):
    """A convolution of every channel with its own kernel.

    Args:
        channels: C.
        size: Side of the kernel.
        stride: Step of the kernel.
        padding: Convention, see `ops.padding`.

    Attributes:
        kernel: [size, size, 1, C].
    """

    def __init__(
        self, channels: int, size: int, stride: int, padding: str, **common: Unpack[Common]
    ):
        init = nnx.initializers.normal((2 / size**2) ** 0.5)
        shape = (size, size, 1, channels)
        self.kernel = nnx.Param(init(common["rngs"].params(), shape, common["param_dtype"]))
        self.stride = stride
        self.padding = padding
        self.dtype = common["dtype"]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', C]."""
        kernel = self.kernel[...].astype(self.dtype)
        around = padding(self.padding, x.shape[1:3], kernel.shape[0], self.stride)
        strides = (self.stride, self.stride)
        return depthwise_conv2d(x.astype(self.dtype), kernel, strides=strides, padding=around)


def round_channels(channels: float, divisor: int, least: int) -> int:
    """The multiple of `divisor` nearest to a width, never less than nine tenths of it."""
    rounded = max(least, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
