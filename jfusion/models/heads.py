"""The heads: from the fused feature to what a target wants.

B batch, F fused width, M modalities, C outputs.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.models.encoded import Fused
from jfusion.models.layers import FAN_IN_INIT, Linear
from jfusion.ops.linear import add_bias, linear


class Head(Linear):
    """A fully connected layer over the fused feature.

    What was attached to the fused feature passes the same kernel by itself: if it is 0, the others
    are computed as they are without it, and so the output has the same bits. (A sum before the
    kernel would be rounded with what comes before it in some programs, and not in others.)
    """

    def __init__(self, width: int, outputs: int, **types: Any):
        super().__init__(width, outputs, init=FAN_IN_INIT, **types)

    def apply(self, fused: Fused) -> jax.Array:
        """Float32 [B, O], of the joint feature."""
        x = self._product(fused.joint)
        for more in fused.attached:
            x = x + self._product(more)
        return add_bias(x, self.bias[...].astype(self.dtype))

    def _product(self, x: jax.Array) -> jax.Array:
        x = linear(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        return x.astype(jnp.float32)  # before any sum, which not every program would round


class Logits(Head):
    """A number per label or class.

    Args:
        width: F.
        outputs: C.
    """

    def __call__(self, fused: Fused) -> jax.Array:
        """Float32 [B, C]."""
        return self.apply(fused)


class Value(Head):
    """A number on the target's own scale: `centre + spread * linear`.

    With the training rows' mean and standard deviation, the first guess is near the mean whatever
    the scale, and the learning rate needs not know it.

    Args:
        width: F.
        centre: What a linear output of 0 stands for.
        spread: What a linear output of 1 adds.
    """

    def __init__(self, width: int, centre: float, spread: float, **types: Any):
        super().__init__(width, 1, **types)
        self.centre = centre
        self.spread = spread

    def __call__(self, fused: Fused) -> jax.Array:
        """Float32 [B, 1]."""
        return self.centre + self.spread * self.apply(fused)


class Vectors(Head):
    """Vectors of length 1, of the fused feature and of each modality's own.

    Args:
        width: F.
        outputs: C.
    """

    def __call__(self, fused: Fused) -> jax.Array:
        """Float32 [B, 1 + M, C]: the joint vector, then those that the fusion keeps, by name."""
        parts = [fused.joint, *(fused.each[name] for name in sorted(fused.each))]
        x = self._product(jnp.stack(parts, axis=1))
        for more in fused.attached:
            x = x + jnp.pad(self._product(more)[:, None], ((0, 0), (0, len(parts) - 1), (0, 0)))
        x = add_bias(x, self.bias[...].astype(self.dtype))
        return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


KINDS = {"logits": Logits, "value": Value, "vectors": Vectors}


def build(spec: Mapping[str, Any], width: int, **types: Any) -> nnx.Module:
    """Makes the head of a spec: `{"kind": ..., **numbers}`."""
    numbers = dict(spec)
    return KINDS[numbers.pop("kind")](width, **numbers, **types)
