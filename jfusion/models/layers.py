"""The layers that the networks share.

Parameters are stored as `param_dtype` and computed with as `dtype`. Random bits come only from the
`rngs` given at call time, so that parameters and checkpoints hold no random state.
"""

from typing import TypedDict

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.ops.dropout import dropout
from jfusion.ops.linear import linear
from jfusion.ops.norms import layer_norm

# The initialisation of BERT, ConvNeXt and most of their kin.
INIT = nnx.initializers.truncated_normal(0.02)
# That of torch.nn.Linear, uniform within 1 / sqrt(I): right for fully connected layers without
# normalisation, where 0.02 would let the signal fade.
FAN_IN_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Common(TypedDict):
    """What every module takes by keyword and hands on to its parts."""

    dtype: DTypeLike
    param_dtype: DTypeLike
    rngs: nnx.Rngs


class Linear(nnx.Module):
    """A fully connected layer over the last axis.

    Args:
        init: Draws the kernel.
        use_bias: Add a bias to the product.

    Attributes:
        kernel: Weights [I, O].
        bias: [O], or None.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        init: nnx.Initializer = INIT,
        use_bias: bool = True,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(init(rngs.params(), (in_features, out_features), param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_features,), param_dtype)) if use_bias else None
        self.dtype = dtype

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [..., I] to [..., O]."""
        del rngs  # nothing random; for the adapted layer that may stand here, see `lora`
        kernel = self.kernel[...].astype(self.dtype)
        bias = None if self.bias is None else self.bias[...].astype(self.dtype)
        return linear(x.astype(self.dtype), kernel, bias)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, with float32 statistics.

    Attributes:
        scale: [D].
        bias: [D].
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # nothing random; taken like by every other layer
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises [..., D]."""
        return layer_norm(x.astype(self.dtype), self.scale[...], self.bias[...], self.epsilon)


class Embed(nnx.Module):
    """A table of vectors.

    Attributes:
        embedding: [rows, D].
    """

    def __init__(
        self,
        rows: int,
        features: int,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.embedding = nnx.Param(INIT(rngs.params(), (rows, features), param_dtype))
        self.dtype = dtype

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Looks up the vectors of `ids` [...]: [..., D]. An id that is no row gives NaN."""
        return jnp.take(self.embedding[...], ids, axis=0).astype(self.dtype)

    def first(self, count: int) -> jax.Array:
        """The first `count` rows, [count, D], without a look-up."""
        return self.embedding[...][:count].astype(self.dtype)


class Dropout(nnx.Dropout):
    """Dropout of single elements, with masks that are cheap to draw."""

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[...] -> [...]."""
        key = dropout_key(self, rngs)
        return x if key is None else dropout(x, self.rate, key)


def dropout_key(dropout: nnx.Dropout, rngs: nnx.Rngs | None) -> jax.Array | None:
    """The key for an operation that drops by itself, at `dropout`'s rate; None: nothing drops."""
    if dropout.rate == 0 or dropout.deterministic:
        return None
    return next_key(rngs)


def next_key(rngs: nnx.Rngs | None) -> jax.Array:
    """The next key of the `dropout` stream, for whatever is random in training."""
    if rngs is None:
        raise ValueError("training draws at random, so the call needs rngs=nnx.Rngs(dropout=key)")
    return rngs.dropout()
