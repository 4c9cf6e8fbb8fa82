"""A network over the numbers and categories of a row.

B batch, n numbers, m categories, D width.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jfusion.models.encoded import Encoded
from jfusion.models.layers import FAN_IN_INIT, Common, Dropout, Linear

# Rows of the table of a category, before those of its names: a missing value is 0, a name that
# training did not have is 1.
RESERVED = 2


class Numbers(nnx.Module):
    """A vector for each of n numbers: `x * scale + shift`, and `shift + missing` without one.

    `missing` starts from 0, so that a number that was never missing in training reads as its mean.

    Attributes:
        scale: [n, D].
        shift: [n, D].
        missing: [n, D].
    """

    def __init__(
        self,
        count: int,
        width: int,
        *,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.scale = nnx.Param(_uniform(rngs.params(), (count, width), param_dtype))
        self.shift = nnx.Param(_uniform(rngs.params(), (count, width), param_dtype))
        self.missing = nnx.Param(jnp.zeros((count, width), param_dtype))
        self.dtype = dtype

    def __call__(self, numbers: jax.Array, known: jax.Array) -> jax.Array:
        """[B, n] and bool [B, n] -> [B, n, D]."""
        # In float32: a bfloat16 does not tell two prices apart that differ by less than 1 %.
        scale, shift, missing = (
            x[...].astype(jnp.float32)[None] for x in (self.scale, self.shift, self.missing)
        )
        x = jnp.where(known, numbers, 0)[:, :, None]
        return (shift + jnp.where(known[:, :, None], x * scale, missing)).astype(self.dtype)


class Category(nnx.Module):
    """A vector for each value of a category.

    Those of the `RESERVED` values start from 0, the mean of the others', so that what training
    never showed says nothing.

    Attributes:
        table: [values, D].
    """

    def __init__(
        self,
        values: int,
        width: int,
        *,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        drawn = _uniform(rngs.params(), (values, width), param_dtype)
        self.table = nnx.Param(drawn.at[:RESERVED].set(0))
        self.dtype = dtype

    def __call__(self, values: jax.Array) -> jax.Array:
        """int32 [B] -> [B, D]; a number that is no row gives NaN."""
        return jnp.take(self.table[...], values, axis=0).astype(self.dtype)


class Tabular(nnx.Module):
    """A vector per column (a feature tokenizer, arXiv 2106.11959), and layers over all of them.

    Args:
        numbers: Columns of numbers n.
        categories: Values of each column of categories, with the `RESERVED` ones.
        width: Features of a column's vector and of each layer.
        layers: Fully connected layers, at least one; each is Linear, ReLU, dropout.
        dropout: Rate after each layer.

    Attributes:
        width: Features per token and of the pooled vector.
    """

    def __init__(
        self,
        numbers: int,
        categories: Sequence[int] = (),
        width: int = 64,
        layers: int = 2,
        dropout: float = 0.1,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        columns = numbers + len(categories)
        if not columns or layers < 1:
            raise ValueError(f"{columns} columns and {layers} layers; there must be one of each")
        common = Common(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.numbers = Numbers(numbers, width, **common) if numbers else None
        self.categories = nnx.List(Category(values, width, **common) for values in categories)
        self.layers = nnx.List(
            Linear(width if index else columns * width, width, init=FAN_IN_INIT, **common)
            for index in range(layers)
        )
        self.dropout = Dropout(dropout)
        self.width = width

    def __call__(self, inputs: Mapping[str, jax.Array], *, rngs: nnx.Rngs | None = None) -> Encoded:
        """Encodes `{"numbers": [B, n], "known": bool [B, n], "categories": int32 [B, m]}`.

        Where n is 0, or m, its arrays may be left out.

        The tokens are the columns' vectors, [B, n + m, D]. None is masked: that a value is missing
        is known, too. See `Encoded`.
        """
        vectors = []
        if self.numbers is not None:
            vectors.append(self.numbers(inputs["numbers"], inputs["known"]))
        for index, category in enumerate(self.categories):
            vectors.append(category(inputs["categories"][:, index])[:, None])
        tokens = jnp.concatenate(vectors, axis=1)
        x = tokens.reshape(len(tokens), -1)
        for layer in self.layers:
            x = self.dropout(jax.nn.relu(layer(x, rngs)), rngs=rngs)
        return Encoded(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool), pooled=x)


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Between -1 and 1, about as large as standardised numbers."""
    return jax.random.uniform(key, shape, dtype, minval=-1, maxval=1)
