"""Low-rank adapters (LoRA, arXiv 2106.09685) for any linear layer of any encoder.

B batch, I and O features of a layer's input and output, r rank.
"""

import difflib
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from jfusion.models.layers import FAN_IN_INIT, Dropout, Linear, dropout_key
from jfusion.ops.dropout import keep_mask
from jfusion.ops.linear import linear

_SHOWN = 5  # layers that a message names


def add(
    encoder: nnx.Module,
    patterns: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> None:
    """Puts an adapter beside every linear layer that a pattern matches, in place.

    The layers' own parameters keep their paths. The outputs stay the same until the adapters are
    trained.

    Args:
        encoder: The network.
        patterns: Regular expressions for the whole path of a layer within the encoder, such as
            `encoder/layer/0/attention/self/query`. One may match nothing, but not all.
        rank: Width of the adapters.
        alpha: The adapters' output is scaled by `alpha / rank`.
        dropout: Rate on the adapters' input, in training.
        dtype: Compute type.
        param_dtype: Type of the parameters.
        rngs: A `params` stream.

    Raises:
        ValueError: A pattern is not a regular expression, or none matches any layer.
    """
    modules = dict(nnx.iter_modules(encoder))
    layers = {
        "/".join(map(str, path)): path
        for path, module in modules.items()
        if isinstance(module, Linear)
    }
    compiled = [_compile(pattern) for pattern in patterns]
    chosen = [path for name, path in layers.items() if any(p.fullmatch(name) for p in compiled)]
    if not chosen:
        raise ValueError(_no_match(patterns, list(layers)))
    for path in chosen:
        *parents, last = path
        parent = modules[tuple(parents)]
        adapted = LoraLinear(
            modules[path], rank, alpha, dropout, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        if isinstance(parent, nnx.List | nnx.Dict):
            parent[last] = adapted
        else:
            setattr(parent, last, adapted)


def is_adapter(path: str) -> bool:
    """Whether a parameter's path is that of an adapter."""
    return path.endswith(("/lora_a", "/lora_b"))


def merge(params: Mapping[str, ArrayLike], alpha: float) -> dict[str, ArrayLike]:
    """Folds the adapters into the kernels that they stand beside.

    Args:
        params: Parameters by path.
        alpha: As the adapters were made with; their rank is read from their shapes.

    Returns:
        The parameters without adapters: those of the same network had it never been adapted.
    """
    merged = {path: leaf for path, leaf in params.items() if not is_adapter(path)}
    for path in params:
        if not path.endswith("/lora_a"):
            continue
        layer = path.removesuffix("/lora_a")
        # By NumPy, in float32: an accelerator would round such a product to fewer bits.
        kernel, a, b = (
            np.asarray(params[f"{layer}/{name}"]) for name in ("kernel", "lora_a", "lora_b")
        )
        delta = alpha / a.shape[1] * (a.astype(np.float32) @ b.astype(np.float32))
        merged[f"{layer}/kernel"] = (kernel.astype(np.float32) + delta).astype(kernel.dtype)
    return merged


class LoraLinear(nnx.Module):
    """A linear layer and, beside it, two thin ones in a row: `x W + b + alpha / r * drop(x) A B`.

    Args:
        layer: The layer to adapt, whose parameters become this one's.
        rank: Width r between the thin layers.
        alpha: Scale, divided by the rank.
        dropout: Rate on the thin layers' input.

    Attributes:
        kernel: Weights W [I, O].
        bias: b [O], or None where the layer has none.
        lora_a: A [I, r], drawn.
        lora_b: B [r, O], first 0: the layer starts as it was.
    """

    def __init__(
        self,
        layer: Linear,
        rank: int,
        alpha: float,
        dropout: float,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel, self.bias = layer.kernel, layer.bias
        in_features, out_features = layer.kernel.shape
        self.lora_a = nnx.Param(FAN_IN_INIT(rngs.params(), (in_features, rank), param_dtype))
        self.lora_b = nnx.Param(jnp.zeros((rank, out_features), param_dtype))
        self.dropout = Dropout(dropout)
        self.scale = alpha / rank
        self.dtype = dtype

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps [..., I] to [..., O]."""
        kernel, a, b = (p[...].astype(self.dtype) for p in (self.kernel, self.lora_a, self.lora_b))
        bias = None if self.bias is None else self.bias[...].astype(self.dtype)
        x = x.astype(self.dtype)
        dropped, scale = x, self.scale
        key = dropout_key(self.dropout, rngs)
        if key is not None:
            dropped = jnp.where(keep_mask(key, self.dropout.rate, x.shape), x, 0)
            scale = scale / (1 - self.dropout.rate)  # what is kept grows; here it is cheaper
        return linear(x, kernel, bias) + linear(scale * linear(dropped, a), b)


def _compile(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None


def _no_match(patterns: Sequence[str], names: Sequence[str]) -> str:
    if not names:
        return "the network has no linear layer that an adapter could stand beside"
    near = [
        name for p in patterns for name in difflib.get_close_matches(p, names, _SHOWN, cutoff=0.4)
    ]
    shown = list(dict.fromkeys(near))[:_SHOWN] or names[:_SHOWN]
    return (
        f"patterns {', '.join(map(repr, patterns))} match none of the {len(names)} linear "
        f"layers; {'near them' if near else 'the first'}: {', '.join(shown)}"
    )
