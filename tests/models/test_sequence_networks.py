"""What every network over frames must do; what each does of its own stands in its own test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.frame_transformer import FrameTransformer
from jfusion.models.mean_pool import MeanPool
from jfusion.models.temporal_cnn import TemporalCNN
from tests.models.sequences import FEATURES, appended, sequences, with_garbage
from tests.modules import run

SIZES = {
    MeanPool: {},
    TemporalCNN: dict(width=16, dilations=(1, 2)),
    FrameTransformer: dict(width=16, layers=2, heads=2, hidden=32, max_steps=20),
}
every = pytest.mark.parametrize("network", SIZES, ids=lambda network: network.__name__)


@functools.cache
def _state(network, sizes):
    make = jax.jit(lambda key: nnx.state(network(FEATURES, **dict(sizes), rngs=nnx.Rngs(key))))
    return make(jax.random.key(0, impl="rbg"))


def a_network(network, **changes):
    """With the parameters that it starts with, in evaluation."""
    sizes = {**SIZES[network], **changes}
    types = {key: sizes.pop(key) for key in ("dtype",) if key in sizes}
    model = nnx.eval_shape(lambda: network(FEATURES, **sizes, **types, rngs=nnx.Rngs(0)))
    graph, _ = nnx.split(nnx.view(model, raise_if_not_found=False, deterministic=True))
    return nnx.merge(graph, _state(network, tuple(sizes.items())))


@every
def test_the_shapes_and_the_mask(network):
    model, inputs = a_network(network), sequences()
    tokens, mask, pooled = run(model, inputs)
    assert tokens.shape == (6, 12, model.width) and pooled.shape == (6, model.width)
    np.testing.assert_array_equal(mask, inputs["valid"].any(axis=-1))
    assert not tokens[~mask].any()
    assert (np.abs(tokens[mask]).sum(axis=-1) > 0).all()
    assert not pooled[0].any() and (np.abs(pooled[1:]).sum(axis=-1) > 0).all()


@every
@pytest.mark.parametrize("seed", [None, 3], ids=["evaluation", "training"])
@pytest.mark.parametrize("garbage", [1e6, np.nan, -np.inf])
def test_what_lies_under_the_mask_changes_nothing(network, seed, garbage):
    model, inputs = a_network(network), sequences()
    dirty = with_garbage(inputs, garbage)
    assert not np.array_equal(dirty["frames"], inputs["frames"])
    for one, other in zip(run(model, inputs, seed=seed), run(model, dirty, seed=seed), strict=True):
        np.testing.assert_array_equal(one, other)


@every
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_frames_that_are_not_there_change_nothing(network, steps):
    model, inputs = a_network(network), sequences()
    short, long = run(model, inputs), run(model, appended(inputs, steps))
    np.testing.assert_allclose(short.pooled, long.pooled, atol=1e-5)
    np.testing.assert_allclose(short.tokens, long.tokens[:, :12], atol=1e-5)
    assert not long.mask[:, 12:].any() and not long.tokens[:, 12:].any()


@every
def test_rows_do_not_see_each_other(network):
    model, inputs = a_network(network), sequences()
    other = sequences(seed=1)
    mixed = {key: np.concatenate([x[:3], other[key][3:]]) for key, x in inputs.items()}
    one, two = run(model, inputs), run(model, mixed)
    np.testing.assert_allclose(one.pooled[:3], two.pooled[:3], atol=1e-6)
    assert not np.isclose(one.pooled[3:], two.pooled[3:]).all(axis=1).any()


def _gradients(network, inputs):
    graph, state = nnx.split(a_network(network))
    # Sums of a normalised feature are constant: weights of their own show every feature.
    weights = jnp.sin(jnp.arange(1.0, 17))[None, None]

    @jax.jit
    def gradients(state, frames):
        def loss(state, frames):
            tokens, _, pooled = nnx.merge(graph, state)({**inputs, "frames": frames})
            features = jnp.concatenate([tokens, pooled[:, None]], axis=1)
            return (jnp.tanh(features) * weights[..., : features.shape[-1]]).sum()

        return jax.grad(loss, argnums=(0, 1))(state, frames)

    params, frames = gradients(state, inputs["frames"])
    return trees.flatten(nnx.to_pure_dict(params)), frames


@every
def test_every_parameter_and_nothing_under_the_mask_has_a_gradient(network):
    inputs = sequences()
    params, frames = _gradients(network, inputs)
    for path, leaf in params.items():
        if path == "positions/embedding":
            leaf = leaf[:12]  # there are no more frames
        assert (np.abs(leaf) > 1e-6).mean() > 0.5, path
    assert (np.abs(frames) > 0)[inputs["valid"]].mean() > 0.9
    assert not frames[~inputs["valid"]].any()

    dirty_params, dirty_frames = _gradients(network, with_garbage(inputs, np.nan))
    for path, leaf in params.items():
        np.testing.assert_array_equal(leaf, dirty_params[path], err_msg=path)
    np.testing.assert_array_equal(frames, dirty_frames)


@every
def test_bfloat16_is_near_float32(network):
    inputs = sequences()
    wide = run(a_network(network), inputs)
    half = run(a_network(network, dtype=jnp.bfloat16), inputs)
    assert half.tokens.dtype == half.pooled.dtype == jnp.bfloat16
    assert not np.array_equal(wide.pooled, half.pooled)
    for name in ("tokens", "pooled"):
        one, other = (np.asarray(getattr(x, name), np.float32) for x in (wide, half))
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(one).max(), err_msg=name)


@every
def test_parameters_can_be_kept_in_another_type(network):
    make = lambda: network(FEATURES, **SIZES[network], param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))  # noqa: E731
    leaves = jax.tree.leaves(nnx.state(nnx.eval_shape(make)))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in leaves)


@pytest.mark.parametrize("network", [TemporalCNN, FrameTransformer])
def test_order_matters(network):
    inputs = sequences()
    backwards = {key: x[:, ::-1] for key, x in inputs.items()}
    one, other = (run(a_network(network), x).pooled for x in (inputs, backwards))
    assert not np.isclose(one, other, atol=1e-3).all(axis=1)[1:].any()


@pytest.mark.parametrize("network", [TemporalCNN, FrameTransformer])
def test_dropout_acts_in_training_only(network):
    model, inputs = a_network(network), sequences()
    evaluation = run(model, inputs).pooled[1:]
    one, same, other = (np.asarray(run(model, inputs, seed=s).pooled)[1:] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one, other).all(axis=1).any()
    assert not np.isclose(one, evaluation).all(axis=1).any()
    with pytest.raises(ValueError, match="rngs"):
        run(nnx.view(model, deterministic=False), inputs)
    calm = a_network(network, dropout=0.0)
    np.testing.assert_allclose(
        run(calm, inputs, seed=1).pooled, run(calm, inputs).pooled, atol=1e-6
    )
