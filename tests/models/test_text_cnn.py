import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.text_cnn import TextCNN
from tests.modules import drawn, run

SIZES = dict(vocab_size=20, width=6, kernel_sizes=(2, 3, 4), filters=5, hidden=7)


def a_network(training=False, **changes):
    model = drawn(lambda: TextCNN(**{**SIZES, "dropout": 0.0, **changes}, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(3)
    for branch in model.branches:
        branch.kernel[...] *= 50
        branch.bias[...] += jnp.asarray(rng.normal(size=branch.bias.shape) * 0.1, jnp.float32)
        branch.norm.mean[...] += 0.1
        branch.norm.var[...] += 0.5
    model.embedding.embedding[...] *= 50
    return nnx.view(model, use_running_average=not training)


def texts(*lengths):
    ids = np.random.default_rng(0).integers(1, 20, (len(lengths), 9)).astype(np.int32)
    length = np.array(lengths, np.int32)
    return {"ids": np.where(np.arange(9) < length[:, None], ids, 0), "length": length}


def by_hand(model, words):
    """One text in evaluation, in other words."""
    x = np.asarray(model.embedding.embedding[...])[words]
    seen = []
    for branch in model.branches:
        kernel = np.asarray(branch.kernel[...])
        k = len(kernel)
        whole = np.pad(x, ((0, max(0, k - len(x))), (0, 0)))
        y = [np.einsum("kd,kdo->o", whole[i : i + k], kernel) for i in range(len(whole) - k + 1)]
        y = np.stack(y) + np.asarray(branch.bias[...])
        y = (y - np.asarray(branch.norm.mean[...])) / np.sqrt(
            np.asarray(branch.norm.var[...]) + 1e-3
        )
        seen.append(np.maximum(y, 0).max(axis=0))
    y = np.concatenate(seen) @ np.asarray(model.dense.linear.kernel[...])
    return np.maximum(y / np.sqrt(1 + 1e-3), 0)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_it_is_what_it_says_for_short_texts_too(length):
    model, inputs = a_network(), texts(length)
    encoded = run(model, inputs)
    expected = by_hand(model, inputs["ids"][0, :length])
    assert expected.max() > 0.05
    np.testing.assert_allclose(encoded.pooled[0], expected, atol=1e-5)


def test_tokens_are_the_embedded_words():
    model, inputs = a_network(), texts(3, 0)
    encoded = run(model, inputs)
    words = np.asarray(model.embedding.embedding[...])[inputs["ids"][0, :3]]
    np.testing.assert_array_equal(encoded.tokens[0, :3], words)
    assert not np.asarray(encoded.tokens[0, 3:]).any() and not np.asarray(encoded.tokens[1]).any()
    np.testing.assert_array_equal(encoded.mask.sum(axis=1), [3, 0])
    assert np.isfinite(encoded.pooled).all() and encoded.pooled.shape == (2, model.width)


@jax.jit
def step(model, inputs):
    """A pass in training: features, statistics and gradients."""
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    stats = nnx.to_pure_dict(stats)

    def loss(params):
        model = nnx.merge(graph, params, stats)
        pooled = model(inputs, rngs=nnx.Rngs(dropout=0)).pooled
        rows = inputs.get("rows", jnp.ones(len(pooled)))
        return (jnp.sin(pooled) * rows[:, None]).sum(), (
            pooled,
            nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)),
        )

    (_, (pooled, after)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return pooled, after, nnx.to_pure_dict(gradients)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_lies_beyond_the_end_changes_nothing_in_training_either():
    model, inputs = a_network(training=True), texts(5, 2, 9, 1)
    beyond = np.arange(9) >= inputs["length"][:, None]
    garbage = {**inputs, "ids": np.where(beyond, 7, inputs["ids"])}
    longer = {**inputs, "ids": np.pad(inputs["ids"], ((0, 0), (0, 4)))}
    assert_same(step(model, garbage), step(model, inputs))
    assert_same(step(model, longer), step(model, inputs))


def test_rows_that_do_not_count_change_nothing():
    model, inputs = a_network(training=True), texts(5, 2, 9, 1, 6)
    rows = np.array([1, 0, 1, 1, 0], np.float32)
    pooled, *rest = step(model, {**inputs, "rows": rows})
    alone = {key: x[rows == 1] for key, x in inputs.items()}
    expected, *rest_alone = step(model, alone)
    assert_same(pooled[rows == 1], expected)
    assert_same(rest, rest_alone)


def test_training_moves_the_statistics_and_evaluation_does_not():
    inputs = texts(5, 2, 9, 1)
    model = a_network(training=True)
    before = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    moved = step(model, inputs)[1]
    assert all(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(moved), strict=True)
    )
    assert_same(step(a_network(), inputs)[1], before)


def test_dropout_is_on_the_features():
    model, inputs = a_network(dropout=0.5), texts(9, 8, 7)
    evaluated = np.asarray(run(model, inputs).pooled)
    trained = np.asarray(run(model, inputs, seed=1).pooled)
    kept = trained != 0
    assert kept.any() and (evaluated[~kept] > 0).any()
    np.testing.assert_allclose(trained[kept], 2 * evaluated[kept], rtol=1e-5)


def test_bfloat16_is_near_float32():
    inputs = texts(9, 4, 2)
    exact, rough = (run(a_network(dtype=t), inputs) for t in (jnp.float32, jnp.bfloat16))
    assert rough.tokens.dtype == rough.pooled.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.pooled.astype(np.float32), exact.pooled, atol=0.03)


def test_the_full_size():
    model = nnx.eval_shape(lambda: TextCNN(rngs=nnx.Rngs(0)))
    params = trees.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    shapes = {path: leaf.shape for path, leaf in params.items()}
    assert shapes["embedding/embedding"] == (15001, 128)
    assert [shapes[f"branches/{i}/kernel"] for i in range(3)] == [
        (2, 128, 64),
        (3, 128, 64),
        (4, 128, 64),
    ]
    assert shapes["dense/linear/kernel"] == (192, 128)
    assert model.width == 128


def test_a_network_without_kernels_is_refused():
    with pytest.raises(ValueError, match="kernel_sizes is empty"):
        a_network(kernel_sizes=())
