"""What every encoder returns, and what fusion reads."""

from typing import NamedTuple

import jax


class Encoded(NamedTuple):
    """One modality of a batch, encoded.

    Attributes:
        tokens: Features per position, `[B, N, D]`: word pieces, image patches or frames.
        mask: True where a token is real and not padding, bool `[B, N]`.
        pooled: One feature per row, `[B, D]`: the first token of a text network, the pooled map
            of an image network.
    """

    tokens: jax.Array
    mask: jax.Array
    pooled: jax.Array
