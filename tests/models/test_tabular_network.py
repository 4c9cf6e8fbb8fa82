import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.tabular import RESERVED, Tabular
from tests.modules import run

SIZES = {"numbers": 2, "categories": (5, 3), "width": 8}


@functools.cache
def network(seed=0, **changes):
    """With the parameters that it starts with, in evaluation."""
    model = Tabular(**{**SIZES, **changes}, rngs=nnx.Rngs(seed))
    return nnx.view(model, deterministic=True)


def rows(count=6, seed=0):
    rng = np.random.default_rng(seed)
    known = rng.random((count, 2)) < 0.7
    known[0] = True
    return {
        "numbers": np.where(known, rng.normal(size=(count, 2)), 0).astype(np.float32),
        "known": known,
        "categories": np.stack([rng.integers(0, 5, count), rng.integers(0, 3, count)], 1).astype(
            np.int32
        ),
    }


def test_the_shapes():
    tokens, mask, pooled = run(network(), rows())
    assert tokens.shape == (6, 4, 8) and pooled.shape == (6, 8) and network().width == 8
    assert mask.shape == (6, 4) and mask.all()


def test_it_is_what_its_formula_says():
    model, inputs = network(), rows()
    tokens, _, pooled = run(model, inputs)
    weights = {
        path: np.asarray(x) for path, x in trees.flatten(nnx.to_pure_dict(nnx.state(model))).items()
    }
    scale, shift = weights["numbers/scale"], weights["numbers/shift"]
    for b in range(6):
        expected = [
            inputs["numbers"][b, i] * scale[i] + shift[i] if inputs["known"][b, i] else shift[i]
            for i in range(2)
        ]
        expected += [weights[f"categories/{i}/table"][inputs["categories"][b, i]] for i in range(2)]
        np.testing.assert_allclose(tokens[b], expected, atol=1e-6)
        x = np.concatenate(expected)
        for i in range(2):
            x = np.maximum(x @ weights[f"layers/{i}/kernel"] + weights[f"layers/{i}/bias"], 0)
        np.testing.assert_allclose(pooled[b], x, atol=1e-5)


@pytest.mark.parametrize("garbage", [1e6, np.nan, -np.inf])
def test_what_lies_under_a_missing_number_changes_nothing(garbage):
    inputs = rows()
    assert not inputs["known"].all()
    dirty = {**inputs, "numbers": np.where(inputs["known"], inputs["numbers"], np.float32(garbage))}
    for one, other in zip(run(network(), inputs), run(network(), dirty), strict=True):
        np.testing.assert_array_equal(one, other)


def test_missing_and_unknown_values_start_from_saying_nothing():
    inputs = {
        "numbers": np.zeros((2, 2), np.float32),
        "known": np.array([[False, False], [True, True]]),
        "categories": np.array([[0, 0], [1, 1]], np.int32),
    }
    tokens, _, pooled = run(network(), inputs)
    np.testing.assert_array_equal(pooled[0], pooled[1])  # no number is as good as the mean
    assert not tokens[:, 2:].any()
    names = {**inputs, "categories": np.full((2, 2), RESERVED, np.int32)}
    assert np.abs(run(network(), names).tokens[:, 2:]).min() > 0


def test_every_parameter_gets_a_gradient_and_a_missing_number_none():
    inputs = rows(40)
    graph, state = nnx.split(network())

    def loss(state, numbers):
        tokens, _, pooled = nnx.merge(graph, state)({**inputs, "numbers": numbers})
        return (pooled**2).sum() + (tokens**2).sum()

    weights, numbers = jax.jit(jax.grad(loss, argnums=(0, 1)))(state, inputs["numbers"])
    for path, gradient in trees.flatten(nnx.to_pure_dict(weights)).items():
        assert np.abs(gradient).sum() > 0, path
    assert not numbers[~inputs["known"]].any() and numbers[inputs["known"]].all()


@pytest.mark.parametrize(
    ("sizes", "columns"), [({"numbers": 0}, (5, 3)), ({"categories": ()}, ())], ids=str
)
def test_numbers_or_categories_alone(sizes, columns):
    model, inputs = network(**sizes), rows()
    numbers = sizes.get("numbers", 2)
    inputs = {
        "numbers": inputs["numbers"][:, :numbers],
        "known": inputs["known"][:, :numbers],
        "categories": inputs["categories"][:, : len(columns)],
    }
    assert run(model, inputs).tokens.shape == (6, numbers + len(columns), 8)
    assert all(x.size for x in jax.tree.leaves(nnx.state(model)))  # none that cannot be saved


def test_no_column_is_refused():
    with pytest.raises(ValueError, match="0 columns and 2 layers"):
        Tabular(0, rngs=nnx.Rngs(0))


def test_dropout_acts_in_training_only():
    model, inputs = network(dropout=0.5), rows()
    np.testing.assert_array_equal(run(model, inputs).pooled, run(model, inputs).pooled)
    one, two = (run(model, inputs, seed=seed).pooled for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_bfloat16_stays_near_and_keeps_its_type():
    half = nnx.view(Tabular(**SIZES, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), deterministic=True)
    whole, low = run(network(), rows()), run(half, rows())
    assert low.tokens.dtype == low.pooled.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.pooled.astype(np.float32), whole.pooled, atol=3e-2)
