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


class Logits(Linear):
    """A number per label or class.

    Args:
        width: F.
        outputs: C.
    """

    def __init__(self, width: int, outputs: int, **types: Any):
        super().__init__(width, outputs, init=FAN_IN_INIT, **types)

    def __call__(self, fused: Fused) -> jax.Array:
        """Float32 [B, C]."""
        return super().__call__(fused.joint).astype(jnp.float32)


class Value(Linear):
    """A number on the target's own scale: `centre + spread * linear`.

    With the training rows' mean and standard deviation, the first guess is near the mean whatever
    the scale, and the learning rate needs not know it.

    Args:
        width: F.
        centre: What a linear output of 0 stands for.
        spread: What a linear output of 1 adds.
    """

    def __init__(self, width: int, centre: float, spread: float, **types: Any):
        super().__init__(width, 1, init=FAN_IN_INIT, **types)
        self.centre = centre
        self.spread = spread

    def __call__(self, fused: Fused) -> jax.Array:
        """Float32 [B, 1]."""
        return self.centre + self.spread * super().__call__(fused.joint).astype(jnp.float32)


class Vectors(Linear):
    """Vectors of length 1, of the fused feature and of each modality's own.

    Args:
        width: F.
        outputs: C.
    """

    def __init__(self, width: int, outputs: int, **types: Any):
        super().__init__(width, outputs, init=FAN_IN_INIT, **types)

    def __call__(self, fused: Fused) -> jax.Array:
        """Float32 [B, 1 + M, C]: the joint vector, then those that the fusion keeps, by name."""
        parts = [fused.joint, *(fused.each[name] for name in sorted(fused.each))]
        x = super().__call__(jnp.stack(parts, axis=1)).astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


KINDS = {"logits": Logits, "value": Value, "vectors": Vectors}


def build(spec: Mapping[str, Any], width: int, **types: Any) -> nnx.Module:
    """Makes the head of a spec: `{"kind": ..., **numbers}`."""
    numbers = dict(spec)
    return KINDS[numbers.pop("kind")](width, **numbers, **types)
