import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.bert import Bert, DistilBert
from tests.modules import drawn, run

TINY = {
    DistilBert: dict(
        vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=12
    ),
    Bert: dict(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    ),
}
NO_DROPOUT = {
    DistilBert: dict(dropout=0.0, attention_dropout=0.0),
    Bert: dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
}
ATTENTION_DROPOUT_ONLY = {
    DistilBert: dict(dropout=0.0, attention_dropout=0.5),
    Bert: dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5),
}
both = pytest.mark.parametrize("network", [DistilBert, Bert])


def tiny(network, **changes):
    return drawn(lambda: network(**{**TINY[network], **changes}, rngs=nnx.Rngs(0)))


def batch(ids, *lengths):
    return {"ids": ids, "length": np.array(lengths, np.int32)}


def random_ids(seed, shape):
    return np.random.default_rng(seed).integers(0, 50, shape).astype(np.int32)


@both
@pytest.mark.parametrize("seed", range(5))
def test_padding_never_changes_an_answer(network, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 11, 4)
    ids = random_ids(seed, (4, 10))
    real = np.arange(10) < lengths[:, None]
    other_padding = np.where(real, ids, random_ids(seed + 100, (4, 10)))
    model = tiny(network)

    first, second = run(model, batch(ids, *lengths)), run(model, batch(other_padding, *lengths))
    np.testing.assert_array_equal(first.mask, real)
    np.testing.assert_array_equal(first.pooled, second.pooled)
    np.testing.assert_array_equal(first.tokens[real], second.tokens[real])


@both
@pytest.mark.parametrize("length", [1, 4])
def test_a_longer_batch_never_changes_an_answer(network, length):
    model, ids = tiny(network), random_ids(0, (4, 10))
    lengths = [length, length, 10, 7]
    long = run(model, batch(ids, *lengths))
    short = run(model, batch(ids[:2, :length], *lengths[:2]))
    np.testing.assert_allclose(short.pooled, long.pooled[:2], atol=1e-5)
    np.testing.assert_allclose(short.tokens, long.tokens[:2, :length], atol=1e-5)


@both
def test_padding_never_changes_a_gradient(network):
    graph, state = nnx.split(tiny(network))
    lengths = np.array([3, 10, 0], np.int32)

    @jax.jit
    def gradient(ids):
        def loss(state):
            encoded = nnx.merge(graph, state)({"ids": ids, "length": lengths})
            return jnp.where(encoded.mask[..., None], jnp.sin(encoded.tokens), 0).sum()

        return trees.flatten(nnx.to_pure_dict(jax.grad(loss)(state)))

    ids = random_ids(0, (3, 10))
    real = np.arange(10) < lengths[:, None]
    first, second = gradient(ids), gradient(np.where(real, ids, random_ids(1, (3, 10))))
    for path in first:
        assert np.isfinite(first[path]).all(), path
        np.testing.assert_array_equal(first[path], second[path], err_msg=path)


@both
def test_a_row_without_tokens_is_finite_and_changes_no_other(network):
    model, ids = tiny(network), random_ids(0, (2, 8))
    with_empty, without = run(model, batch(ids, 0, 5)), run(model, batch(ids, 3, 5))
    assert np.isfinite(with_empty.tokens).all() and np.isfinite(with_empty.pooled).all()
    assert not with_empty.mask[0].any()
    np.testing.assert_array_equal(with_empty.pooled[1], without.pooled[1])


@both
def test_bfloat16_is_near_float32(network):
    inputs = batch(random_ids(0, (8, 12)), *[12] * 8)
    # Logits as large as those of a fresh head (0.02) over 768 features.
    head = np.random.default_rng(1).normal(size=(16, 5)) * 0.02 * (768 / 16) ** 0.5
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = tiny(network, dtype=dtype)
        encoded = run(model, inputs)
        assert encoded.tokens.dtype == encoded.pooled.dtype == dtype
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model)))
        logits[dtype] = np.asarray(encoded.pooled, np.float32) @ head
    assert np.abs(logits[jnp.float32]).max() > 0.5
    np.testing.assert_allclose(logits[jnp.bfloat16], logits[jnp.float32], atol=1e-2)


@both
def test_parameters_can_be_kept_in_another_type(network):
    model = tiny(network, param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("bfloat16")}


@both
@pytest.mark.parametrize("rates", [{}, ATTENTION_DROPOUT_ONLY], ids=["all", "attention"])
def test_dropout_acts_in_training_only(network, rates):
    model = tiny(network, **rates.get(network, {}))
    inputs = batch(random_ids(0, (2, 8)), 8, 5)
    evaluation = run(model, inputs).pooled
    one, other = run(model, inputs, seed=1).pooled, run(model, inputs, seed=2).pooled
    assert not np.allclose(one, other)
    assert not np.allclose(one, evaluation)
    np.testing.assert_array_equal(one, run(model, inputs, seed=1).pooled)
    with pytest.raises(ValueError, match="rngs"):
        run(nnx.view(model, deterministic=False), inputs)


@both
def test_without_rates_training_equals_evaluation(network):
    model = tiny(network, **NO_DROPOUT[network])
    inputs = batch(random_ids(0, (2, 8)), 8, 5)
    np.testing.assert_array_equal(run(model, inputs, seed=1).pooled, run(model, inputs).pooled)


@both
def test_order_and_position_matter(network):
    model, ids = tiny(network), random_ids(0, (1, 8))
    swapped = ids[:, [0, 2, 1, *range(3, 8)]]
    one, other = run(model, batch(ids, 8)).pooled, run(model, batch(swapped, 8)).pooled
    assert not np.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(("network", "count"), [(DistilBert, 66_362_880), (Bert, 108_891_648)])
def test_the_base_sizes_have_the_references_parameters(network, count):
    # 66,362,880: the published network; 108,891,648: that without the pooler's 590,592.
    state = nnx.state(nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0))))
    assert trees.size(trees.flatten(nnx.to_pure_dict(state))) == count


@both
def test_initialisation(network):
    one_layer = "n_layers" if network is DistilBert else "num_hidden_layers"
    sizes = {**TINY[network], one_layer: 1}

    @jax.jit
    def draw():
        return nnx.to_pure_dict(nnx.state(network(**sizes, rngs=nnx.Rngs(0))))

    for path, leaf in trees.flatten(draw()).items():
        if path.endswith("scale"):
            assert (leaf == 1).all(), path
        elif path.endswith("bias"):
            assert (leaf == 0).all(), path
        else:
            assert np.abs(leaf).max() <= 0.04 and 0.01 < leaf.std() < 0.03, path


@both
def test_what_does_not_fit_is_refused(network):
    with pytest.raises(ValueError, match=r"13 tokens.*12 positions.*max_tokens"):
        run(tiny(network), batch(random_ids(0, (1, 13)), 13))
    heads = "n_heads" if network is DistilBert else "num_attention_heads"
    with pytest.raises(ValueError, match=f"16 is not a multiple of {heads}=3"):
        tiny(network, **{heads: 3})


@both
def test_an_id_outside_the_vocabulary_is_not_taken_for_another(network):
    assert np.isnan(run(tiny(network), batch(np.array([[1, 50]]), 2)).pooled).all()
