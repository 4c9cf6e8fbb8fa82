import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.models.encoded import Encoded
from jfusion.models.fusion import Concat
from tests import modules
from tests.modules import drawn

WIDTHS = {"plot": 3, "poster": 2}
PRESENT = {name: np.ones(4, bool) for name in WIDTHS}


def encoded(rows=4):
    rng = np.random.default_rng(0)
    return {
        name: Encoded(
            tokens=np.zeros((rows, 1, width), np.float32),
            mask=np.ones((rows, 1), bool),
            pooled=rng.normal(size=(rows, width)).astype(np.float32),
        )
        for name, width in WIDTHS.items()
    }


def run(*args, **options):
    return modules.run(*args, **options).joint


def concat(hidden, **types):
    return drawn(lambda: Concat(WIDTHS, hidden, **types, rngs=nnx.Rngs(0)))


def test_without_layers_it_is_the_concatenation():
    fusion, parts = concat(()), encoded()
    expected = np.concatenate([parts["plot"].pooled, parts["poster"].pooled], axis=1)
    np.testing.assert_array_equal(run(fusion, parts, PRESENT), expected)
    assert fusion.width == 5


def test_the_order_of_the_dict_does_not_matter():
    fusion, parts = concat((7,)), encoded()
    backwards = dict(reversed(parts.items()))
    np.testing.assert_array_equal(run(fusion, parts, PRESENT), run(fusion, backwards, PRESENT))


def test_layers_are_linear_and_relu():
    fusion, parts = concat((8, 6)), encoded()
    x = np.concatenate([parts["plot"].pooled, parts["poster"].pooled], axis=1)
    for layer in fusion.layers:
        layer.bias[...] += jnp.linspace(-0.1, 0.1, layer.bias.shape[0])
        x = np.maximum(x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]), 0)
    result = run(fusion, parts, PRESENT)
    assert fusion.width == 6 and (x == 0).any() and (x > 0).any()
    np.testing.assert_allclose(result, x, atol=1e-6)


def test_only_the_pooled_features_are_read():
    fusion, parts = concat((8,)), encoded()
    others = {
        name: part._replace(tokens=part.tokens + jnp.nan, mask=~part.mask)
        for name, part in parts.items()
    }
    np.testing.assert_array_equal(run(fusion, parts, PRESENT), run(fusion, others, PRESENT))


def test_the_compute_type_is_that_of_the_result():
    fusion = concat((8,), dtype=jnp.bfloat16)
    assert run(fusion, encoded(), PRESENT).dtype == jnp.bfloat16


HERE = {"x": np.ones(32, bool)}


def identity_layers(rate):
    """Two layers that change nothing, so that the dropout alone shows."""
    fusion = drawn(lambda: Concat({"x": 64}, (64, 64), rate, rngs=nnx.Rngs(0)))
    for layer in fusion.layers:
        layer.kernel[...] = jnp.eye(64)
    ones = np.ones((32, 64), np.float32)
    return fusion, {"x": Encoded(tokens=ones[:, None], mask=ones[:, :1] > 0, pooled=ones)}


def test_each_layer_drops_by_a_mask_of_its_own():
    fusion, parts = identity_layers(0.5)
    one, same, other = (np.asarray(run(fusion, parts, HERE, seed=s)) for s in (0, 0, 1))
    # A feature survives both layers with probability 1 / 4, and is then doubled twice; were the
    # masks equal, one half would survive.
    assert set(np.unique(one)) == {0.0, 4.0}
    assert abs((one > 0).mean() - 0.25) < 5 * (0.1875 / one.size) ** 0.5
    assert (one[0] != one[1]).any()
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_dropout_acts_in_training_only():
    fusion, parts = identity_layers(0.5)
    np.testing.assert_array_equal(run(fusion, parts, HERE), parts["x"].pooled)
    with pytest.raises(ValueError, match="rngs"):
        run(nnx.view(fusion, deterministic=False), parts, HERE)
    fusion, parts = identity_layers(0.0)
    np.testing.assert_array_equal(run(fusion, parts, HERE, seed=0), parts["x"].pooled)
