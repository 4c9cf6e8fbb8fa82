"""MobileNetV2 and EfficientNet: what both keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.convolutions import Conv, Depthwise, Pointwise
from jfusion.models.efficientnet import Block, EfficientNet, _Block
from jfusion.models.mobilenet_v2 import MobileNetV2
from tests.modules import drawn, run

TINY = {
    "mobilenet": (
        MobileNetV2,
        dict(
            depth_multiplier=0.25,
            out_channels=(16, 24, 24),
            num_block_repeats=(1, 1, 1),
            strides=(1, 2, 1),
            hidden_dim=16,
        ),
    ),
    "efficientnet": (
        EfficientNet,
        dict(
            kernel_sizes=(3, 5),
            in_channels=(8, 8),
            out_channels=(8, 8),
            strides=(1, 2),
            num_block_repeats=(1, 2),
            expand_ratios=(1, 3),
            hidden_dim=16,
            drop_connect_rate=0.0,
        ),
    ),
}
both = pytest.mark.parametrize("name", TINY)


def tiny(name, training=False, **changes):
    network, sizes = TINY[name]
    model = drawn(lambda: network(**{**sizes, **changes}, rngs=nnx.Rngs(0)))
    state = nnx.state(model, nnx.Param)
    for path, leaf in nnx.to_flat_state(state):
        if path[-1] == "kernel":
            leaf[...] *= 20
    nnx.update(model, state)
    return nnx.view(model, use_running_average=not training)


def pictures(rows, *size):
    return np.random.default_rng(0).normal(size=(rows, *size, 3)).astype(np.float32)


@jax.jit
def step(model, inputs):
    """A pass in training: features, statistics and gradients."""
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    stats = nnx.to_pure_dict(stats)

    def loss(params):
        model = nnx.merge(graph, params, stats)
        pooled = model(inputs).pooled
        rows = inputs.get("rows", jnp.ones(len(pooled)))
        return (jnp.sin(pooled) * rows[:, None]).sum(), (
            pooled,
            nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)),
        )

    (_, (pooled, after)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return pooled, after, nnx.to_pure_dict(gradients)


@both
def test_tokens_are_the_places_of_the_last_map(name):
    model = tiny(name)
    encoded = run(model, {"pixels": pictures(2, 12, 18)})
    assert encoded.tokens.shape == (2, 3 * 5, 16)
    assert encoded.mask.shape == (2, 15) and encoded.mask.all()
    assert encoded.pooled.shape == (2, model.width)
    np.testing.assert_allclose(encoded.pooled, encoded.tokens.mean(axis=1), atol=1e-6)


@both
def test_rows_that_do_not_count_change_nothing(name):
    model, x = tiny(name, training=True), pictures(5, 12, 12)
    rows = np.array([1, 0, 1, 1, 0], np.float32)
    pooled, *rest = step(model, {"pixels": x, "rows": rows})
    expected, *rest_alone = step(model, {"pixels": x[rows == 1]})
    np.testing.assert_allclose(pooled[rows == 1], expected, rtol=1e-3, atol=1e-4)
    for a, b in zip(jax.tree.leaves(rest), jax.tree.leaves(rest_alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3)


@both
def test_frozen_statistics_stay_and_those_in_training_move(name):
    x = {"pixels": pictures(4, 12, 12)}
    before = nnx.to_pure_dict(nnx.state(tiny(name), nnx.BatchStat))
    frozen, moved = (step(tiny(name, training), x)[1] for training in (False, True))
    for a, b, c in zip(*map(jax.tree.leaves, (before, frozen, moved)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@both
def test_bfloat16_is_near_float32(name):
    encoded = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = tiny(name, dtype=dtype)
        encoded[dtype] = run(model, {"pixels": pictures(4, 16, 16)})
        assert encoded[dtype].tokens.dtype == encoded[dtype].pooled.dtype == dtype
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model)))
    exact = np.asarray(encoded[jnp.float32].pooled)
    assert np.abs(exact).max() > 0.05
    rough = np.asarray(encoded[jnp.bfloat16].pooled, np.float32)
    np.testing.assert_allclose(rough, exact, atol=0.03 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("network", "count", "statistics"),
    [
        # Those published, less their classifiers of 1001, 1000 and 1000 classes.
        (MobileNetV2, 3_506_153 - 1001 * 1281, 52),
        (EfficientNet, 5_288_548 - 1000 * 1281, 49),
    ],
    ids=["mobilenet_v2", "efficientnet_b0"],
)
def test_the_published_sizes_have_the_references_parameters(network, count, statistics):
    model = nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0)))
    params = trees.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    stats = trees.flatten(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    assert trees.size(params) == count
    assert len(stats) == 2 * statistics


def test_drop_connect_leaves_out_a_whole_block_of_a_row():
    numbers = _Block(8, 8, 3, 1, 2, 2, "same", 0.25)
    types = dict(dtype=jnp.float32, param_dtype=jnp.float32)
    block = drawn(lambda: Block(numbers, {}, **types, rngs=nnx.Rngs(0)))
    block.projection.project_bn.bias[...] += 1.0
    x = pictures(400, 4, 4)[..., :1].repeat(8, axis=-1)

    branch, trained = run(block, x) - x, run(block, x, seed=3) - x

    dropped = (trained == 0).all(axis=(1, 2, 3))
    assert 0.17 < dropped.mean() < 0.33
    np.testing.assert_allclose(trained[~dropped], branch[~dropped] / 0.75, atol=1e-5)


def test_drop_connect_rises_from_the_first_block():
    model = nnx.eval_shape(lambda: EfficientNet(rngs=nnx.Rngs(0)))
    rates = [block.drop_path.rate for block in model.encoder.blocks]
    np.testing.assert_allclose(rates, [0.2 * i / 16 for i in range(16)])


def test_the_momentum_is_the_small_share_of_a_batch():
    for network, expected in ((MobileNetV2, 0.003), (EfficientNet, 0.01)):
        model = nnx.eval_shape(lambda network=network: network(rngs=nnx.Rngs(0)))
        norms = [m for _, m in nnx.iter_modules(model) if hasattr(m, "momentum")]
        assert {norm.momentum for norm in norms} == {expected}
        assert {norm.epsilon for norm in norms} == {1e-3}


@both
def test_numbers_of_stages_must_agree(name):
    with pytest.raises(ValueError, match=r"strides=\(1,\)"):
        tiny(name, strides=(1,))


def test_convolutions_keep_signals_at_their_size():
    types = dict(dtype=jnp.float32, param_dtype=jnp.float32)

    @jax.jit
    def kernels():
        common = dict(**types, rngs=nnx.Rngs(0))
        modules = (
            Depthwise(400, 3, 1, "same", **common),
            Pointwise(60, 60, **common),
            Conv(20, 20, 3, 1, "same", **common),
        )
        return [module.kernel[...] for module in modules]

    for kernel, fan in zip(kernels(), (9, 60, 180), strict=True):
        np.testing.assert_allclose(kernel.std(), (2 / fan) ** 0.5, rtol=0.1)
