"""What every encoder returns and fusion reads, and what every fusion returns and heads read."""

from typing import NamedTuple

import jax


class Encoded(NamedTuple):
    """One modality of a batch, encoded.

    Attributes:
        tokens: Features per position, `[B, N, D]`: word pieces, image patches or frames.
        mask: True where a token is real and not padding, bool `[B, N]`.
        pooled: One feature per row, `[B, D]`: the first token of a text network, the pooled map
            of an image network, the mean of a sequence network's frames.
    """

    tokens: jax.Array
    mask: jax.Array
    pooled: jax.Array


class Fused(NamedTuple):
    """The modalities of a batch, joined.

    Attributes:
        joint: One feature per row, `[B, F]`.
        each: One feature per row of each modality, `[B, F]`, where the fusion has such; 0 in rows
            without that modality.
        weights: The part of each modality in `joint`, float32 `[B]`, where the fusion weighs
            them: 0 for what is absent, 1 in sum.
        attached: What modalities add to `joint` that the fusion does not join, `[B, F]` each; 0 in
            rows without them. The heads do the adding.
    """

    joint: jax.Array
    each: dict[str, jax.Array]
    weights: dict[str, jax.Array]
    attached: tuple[jax.Array, ...] = ()
