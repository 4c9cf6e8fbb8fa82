import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.models.batch_norm import BatchNorm
from jfusion.models.dense_norm import DenseNorm
from tests.modules import drawn, run

EPSILON, MOMENTUM = 1e-3, 0.1


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def a_norm(features=5, **options):
    norm = BatchNorm(features, epsilon=EPSILON, momentum=MOMENTUM, **options)
    rng = np.random.default_rng(7)
    norm.scale[...] = jnp.asarray(rng.uniform(0.5, 1.5, features), norm.scale.dtype)
    norm.bias[...] = jnp.asarray(rng.normal(size=features), norm.bias.dtype)
    norm.mean[...] = jnp.asarray(rng.normal(size=features), jnp.float32)
    norm.var[...] = jnp.asarray(rng.uniform(0.5, 2, features), jnp.float32)
    return norm


@jax.jit
def answers(norm, x, rows, weight):
    """The output, the gradients of a weighed sum, and the statistics afterwards."""
    graph, params, stats = nnx.split(norm, nnx.Param, nnx.BatchStat)
    stats = nnx.to_pure_dict(stats)  # variables could not be written to under `grad`

    def loss(params, x):
        norm = nnx.merge(graph, params, stats)
        y = norm(x, rows)
        return (y * weight).sum(), (y, norm.mean[...], norm.var[...])

    (_, after), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return after, (gradients[0]["scale"][...], gradients[0]["bias"][...], gradients[1])


def frozen(norm):
    return nnx.view(norm, use_running_average=True)


@pytest.mark.parametrize("training", [True, False])
def test_it_is_pytorchs(training):
    torch = pytest.importorskip("torch")
    x, weight = 3 * draw(4, 3, 6, 5) + 2, draw(4, 3, 6, 5, seed=1)
    norm = a_norm() if training else frozen(a_norm())
    theirs = torch.nn.BatchNorm2d(5, eps=EPSILON, momentum=MOMENTUM).train(training)
    pairs = ((theirs.weight, "scale"), (theirs.bias, "bias"))
    for theirs_leaf, name in (*pairs, (theirs.running_mean, "mean"), (theirs.running_var, "var")):
        theirs_leaf.data = torch.tensor(np.asarray(getattr(norm, name)[...]))
    their_x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y = theirs(their_x)
    (y * torch.tensor(weight.transpose(0, 3, 1, 2))).sum().backward()

    (ours, mean, var), (dscale, dbias, dx) = answers(norm, x, None, weight)

    def near(a, b):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=2e-5, atol=2e-5)

    near(ours, y.permute(0, 2, 3, 1))
    near(mean, theirs.running_mean)
    near(var, theirs.running_var)
    near(dscale, theirs.weight.grad)
    near(dbias, theirs.bias.grad)
    near(dx, their_x.grad.permute(0, 2, 3, 1))


def test_rows_that_do_not_count_change_nothing():
    rows = np.array([1, 0, 1, 1, 0, 0], np.float32)
    x, weight = draw(6, 4, 5), draw(6, 4, 5, seed=1) * rows[:, None, None]
    x[rows == 0] *= 100
    real = rows == 1

    (y, *stats), (*of_params, dx) = answers(a_norm(), x, rows, weight)
    (y_real, *stats_real), (*of_params_real, dx_real) = answers(
        a_norm(), x[real], None, weight[real]
    )

    np.testing.assert_allclose(y[real], y_real, rtol=1e-5, atol=1e-5)
    for a, b in zip([*stats, *of_params], [*stats_real, *of_params_real], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx[real], dx_real, rtol=1e-5, atol=1e-5)
    assert not dx[~real].any()


def test_what_counts_can_be_told_by_position():
    counts = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], np.float32)
    x = draw(2, 4, 5)
    norm = a_norm()
    y, mean, _ = answers(norm, x, counts, np.ones_like(x))[0]
    chosen = x[counts == 1]
    expected = (chosen - chosen.mean(0)) / np.sqrt(chosen.var(0) + EPSILON)
    expected = expected * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    np.testing.assert_allclose(y[counts == 1], expected, rtol=1e-4, atol=1e-4)
    moved = 0.9 * np.asarray(norm.mean[...]) + 0.1 * chosen.mean(0)
    np.testing.assert_allclose(mean, moved, rtol=1e-5)


def test_if_nothing_counts_the_running_statistics_serve_and_stay():
    x, weight = draw(3, 5), draw(3, 5, seed=1)
    norm = a_norm()
    nobody = answers(norm, x, np.zeros(3, np.float32), weight)
    evaluated = answers(frozen(norm), x, None, weight)
    for a, b in zip(jax.tree.leaves(nobody), jax.tree.leaves(evaluated), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(nobody[0][1], norm.mean[...])
    np.testing.assert_array_equal(nobody[0][2], norm.var[...])


def test_one_value_alone_is_the_bias_and_keeps_the_statistics_finite():
    norm = a_norm()
    y, mean, var = answers(norm, draw(1, 5), None, np.ones((1, 5), np.float32))[0]
    np.testing.assert_allclose(y[0], norm.bias[...], atol=1e-6)
    np.testing.assert_allclose(var, 0.9 * norm.var[...], rtol=1e-6)
    assert np.isfinite(mean).all()


def test_evaluation_and_a_frozen_module_leave_the_statistics():
    norm = frozen(a_norm())
    _, mean, var = answers(norm, draw(4, 5), None, np.ones((4, 5), np.float32))[0]
    np.testing.assert_array_equal(mean, norm.mean[...])
    np.testing.assert_array_equal(var, norm.var[...])


def test_bfloat16_has_float32_statistics():
    x = draw(64, 5) + 3
    exact, rough = a_norm(), a_norm(dtype=jnp.bfloat16)
    weight = draw(64, 5, seed=1)
    (y, mean, var), _ = answers(exact, x, None, weight)
    (y16, mean16, var16), (dscale, _, dx) = answers(rough, x, None, weight)
    assert y16.dtype == jnp.bfloat16 and dscale.dtype == dx.dtype == mean16.dtype == jnp.float32
    np.testing.assert_allclose(y16.astype(np.float32), y, atol=0.1)
    np.testing.assert_allclose(mean16, mean, atol=1e-2)
    np.testing.assert_allclose(var16, var, rtol=1e-2)


def test_dense_norm_is_its_parts_in_order():
    layer = drawn(lambda: DenseNorm(6, 4, 0.5, rngs=nnx.Rngs(0)))
    layer.norm.mean[...] += 0.01
    layer.norm.var[...] += 1.0
    x = draw(300, 6)
    linear = x @ np.asarray(layer.linear.kernel[...])
    expected = np.maximum((linear - 0.01) / np.sqrt(2 + 1e-3), 0)
    np.testing.assert_allclose(run(layer, x), expected, atol=1e-5)

    trained = np.asarray(run(nnx.view(layer, use_running_average=True), x, seed=1))
    kept = trained != 0
    assert 0.4 < kept[expected > 1e-3].mean() < 0.6
    np.testing.assert_allclose(trained[kept], 2 * expected[kept], atol=1e-5)


def test_dense_norm_normalises_by_the_rows_that_count():
    layer = drawn(lambda: DenseNorm(6, 4, rngs=nnx.Rngs(0)))
    layer = nnx.view(layer, use_running_average=False)
    x, rows = draw(5, 6), np.array([1, 1, 1, 0, 0], np.float32)
    alone = run(layer, x[:3], seed=0)
    np.testing.assert_allclose(run(layer, x, rows, seed=0)[:3], alone, atol=1e-5)
