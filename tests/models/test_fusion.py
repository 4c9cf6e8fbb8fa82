import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
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


def concat(hidden, **options):
    return drawn(lambda: Concat(WIDTHS, hidden, **options, rngs=nnx.Rngs(0)))


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


def normalise(x, norm):
    if norm == "none":
        return x
    if norm == "batch":  # in evaluation, by running statistics that nothing has moved yet
        return x / np.sqrt(1 + 1e-3)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_features_are_projected_and_normalised(norm):
    fusion, parts = concat((6,), project=4, norm=norm), encoded()
    assert fusion.layers[0].kernel.shape == (8, 6)
    features = []
    for name in ("plot", "poster"):
        layer = fusion.projections[name]
        layer.kernel[...] *= 20
        layer.bias[...] += 0.1
        x = parts[name].pooled @ np.asarray(layer.kernel[...]) + 0.1
        features.append(normalise(x, norm))
    x = np.concatenate(features, axis=1) @ np.asarray(fusion.layers[0].kernel[...])
    expected = np.maximum(normalise(x, norm), 0)
    np.testing.assert_allclose(run(fusion, parts, PRESENT), expected, atol=1e-5)


@pytest.mark.parametrize("project", [0, 4])
def test_a_learnt_vector_stands_for_what_is_absent(project):
    fusion, parts = concat((), project=project), encoded()
    fusion.missing["plot"][...] += jnp.array([1.0, -2.0, 3.0])
    present = {**PRESENT, "plot": np.array([True, False, True, False])}
    parts["plot"].pooled[~present["plot"]] = np.nan
    stood_in = parts["plot"].pooled.copy()
    stood_in[~present["plot"]] = fusion.missing["plot"][...]
    same = {**parts, "plot": parts["plot"]._replace(pooled=stood_in)}
    result = run(fusion, parts, present)
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(result, run(fusion, same, PRESENT))


@pytest.mark.parametrize("options", [{}, dict(project=4), dict(project=4, norm="layer")], ids=str)
def test_every_parameter_has_a_gradient(options):
    graph, state = nnx.split(concat((8, 6), **options))
    present = {name: np.array([1, 1, 0, 1], bool) for name in WIDTHS}

    @jax.jit
    def gradient(state):
        def loss(state):
            joint = nnx.merge(graph, state)(encoded(), present).joint
            return (joint * jnp.sin(jnp.arange(24.0)).reshape(4, 6)).sum()

        return trees.flatten(nnx.to_pure_dict(jax.grad(loss)(state)))

    for path, leaf in gradient(state).items():
        assert np.isfinite(leaf).all() and leaf.any(), path


def test_the_layers_of_the_full_size():
    widths = {"audio": 74, "transcript": 768, "video": 10}
    make = lambda: Concat(widths, (512,), project=512, norm="layer", rngs=nnx.Rngs(0))  # noqa: E731
    params = trees.flatten(nnx.to_pure_dict(nnx.state(nnx.eval_shape(make))))
    kernels = {path: leaf.shape for path, leaf in params.items() if path.endswith("kernel")}
    assert kernels == {
        "layers/0/kernel": (1536, 512),
        "projections/audio/kernel": (74, 512),
        "projections/transcript/kernel": (768, 512),
        "projections/video/kernel": (10, 512),
    }
    norms = {path: leaf.shape for path, leaf in params.items() if path.endswith("scale")}
    assert norms == {
        "norms/0/scale": (512,),
        **{f"projection_norms/{name}/scale": (512,) for name in widths},
    }
