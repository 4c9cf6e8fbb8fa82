import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models import lora
from jfusion.models.bert import Bert, DistilBert
from jfusion.models.convnext import ConvNeXt
from jfusion.models.frame_transformer import FrameTransformer
from jfusion.models.layers import Linear
from jfusion.models.temporal_cnn import TemporalCNN
from jfusion.training.state import Network
from tests import tiny
from tests.modules import drawn, run

RANK, ALPHA = 4, 6.0
SIZES = {
    Bert: dict(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    DistilBert: dict(
        vocab_size=50,
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=32,
        max_position_embeddings=12,
        dropout=0.0,
        attention_dropout=0.0,
    ),
    ConvNeXt: dict(hidden_sizes=(8,), depths=(1,), layer_scale_init_value=1.0),
    TemporalCNN: dict(features=6, width=8, dilations=(1,), dropout=0.0),
    FrameTransformer: dict(features=6, width=8, layers=1, heads=2, hidden=16, dropout=0.0),
}
LAYERS = {Bert: 6, DistilBert: 6, ConvNeXt: 2, TemporalCNN: 1, FrameTransformer: 7}  # linear ones
every_network = pytest.mark.parametrize("network", SIZES)


def base(network, dtype=jnp.float32, **changes):
    return drawn(lambda: network(**SIZES[network] | changes, dtype=dtype, rngs=nnx.Rngs(0)))


def adapted(network, patterns=(".*",), dropout=0.0, trained=True, dtype=jnp.float32, **changes):
    """The network of `base` with adapters; trained ones change its answers clearly."""
    model = base(network, dtype, **changes)
    lora.add(model, patterns, RANK, ALPHA, dropout, dtype=dtype, rngs=nnx.Rngs(1))
    rng = np.random.default_rng(2)
    for _, layer in nnx.iter_modules(model):
        if trained and isinstance(layer, lora.LoraLinear):
            layer.lora_b[...] = jnp.asarray(rng.normal(size=layer.lora_b.shape), jnp.float32)
    return nnx.view(model, deterministic=True)


def inputs(network):
    rng = np.random.default_rng(0)
    if network is ConvNeXt:
        return {"pixels": rng.normal(size=(3, 16, 16, 3)).astype(np.float32)}
    if network in (TemporalCNN, FrameTransformer):
        frames = rng.normal(size=(3, 10, 6)).astype(np.float32)
        return {"frames": frames, "valid": np.ones((3, 10, 6), bool)}
    ids = rng.integers(0, 50, (3, 10)).astype(np.int32)
    return {"ids": ids, "length": np.array([10, 4, 1], np.int32)}


def params(model):
    return trees.flatten(nnx.to_pure_dict(nnx.state(model)))


def with_params(model, values):
    """The model with its parameters set to those of the same paths, which must be all."""
    assert params(model).keys() == values.keys()
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        leaf[...] = jnp.asarray(values["/".join(map(str, path))])
    return model


def adapters(model):
    return sorted(p.removesuffix("/lora_a") for p in params(model) if p.endswith("/lora_a"))


@every_network
def test_an_untrained_adapter_changes_no_answer(network):
    model = adapted(network, trained=False)
    assert len(adapters(model)) == LAYERS[network]
    before, after = run(base(network), inputs(network)), run(model, inputs(network))
    # But for rounding, which differs with what the compiler joins.
    np.testing.assert_allclose(after.tokens, before.tokens, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after.pooled, before.pooled, rtol=1e-6, atol=1e-6)


@every_network
def test_the_networks_own_parameters_keep_their_paths_and_values(network):
    before, after = params(base(network)), params(adapted(network))
    own = {path: leaf for path, leaf in after.items() if "lora_" not in path}
    assert own.keys() == before.keys()
    for path, leaf in before.items():
        np.testing.assert_array_equal(own[path], leaf, err_msg=path)


@every_network
def test_a_merged_network_answers_as_the_adapted_one(network):
    model = adapted(network)
    merged = with_params(base(network), lora.merge(params(model), ALPHA))
    before, expected = run(base(network), inputs(network)), run(model, inputs(network))
    answers = run(merged, inputs(network))
    assert np.abs(expected.tokens - before.tokens).max() > 0.1
    np.testing.assert_allclose(answers.tokens, expected.tokens, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(answers.pooled, expected.pooled, rtol=1e-5, atol=1e-5)


def test_merging_scales_by_alpha_over_rank():
    rng = np.random.default_rng(0)
    kernel, a, b = rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), rng.normal(size=(2, 3))
    tree = {"x/kernel": kernel, "x/lora_a": a, "x/lora_b": b, "x/bias": np.ones(3), "y": 7}
    merged = lora.merge({p: np.asarray(x, np.float32) for p, x in tree.items()}, alpha=3.0)
    assert merged.keys() == {"x/kernel", "x/bias", "y"}
    np.testing.assert_allclose(merged["x/kernel"], kernel + 1.5 * a @ b, atol=1e-6)
    assert merged["x/kernel"].dtype == np.float32 and merged["y"] == 7


def test_an_adapted_layer_computes_what_the_paper_says():
    layer = Linear(6, 5, rngs=nnx.Rngs(0))
    ours = lora.LoraLinear(layer, RANK, ALPHA, 0.0, rngs=nnx.Rngs(1))
    rng = np.random.default_rng(0)
    ours.lora_b[...] = jnp.asarray(rng.normal(size=(RANK, 5)), jnp.float32)
    ours.bias[...] = jnp.asarray(rng.normal(size=5), jnp.float32)
    x = rng.normal(size=(2, 3, 6)).astype(np.float32)
    kernel, bias, a, b = (np.asarray(p) for p in (ours.kernel, ours.bias, ours.lora_a, ours.lora_b))
    expected = x @ kernel + bias + ALPHA / RANK * (x @ a @ b)
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_without_a_bias_gets_none():
    layer = Linear(6, 5, use_bias=False, rngs=nnx.Rngs(0))
    assert params(layer).keys() == {"kernel"}
    ours = lora.LoraLinear(layer, RANK, ALPHA, 0.0, rngs=nnx.Rngs(1))
    assert params(ours).keys() == {"kernel", "lora_a", "lora_b"}
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    np.testing.assert_allclose(ours(x), x @ np.asarray(layer.kernel), rtol=1e-5, atol=1e-5)


def test_a_new_adapter_is_drawn_as_pefts():
    """Of torch.nn.Linear's kind: uniform within 1 / sqrt(I), and 0 behind it."""
    ours = lora.LoraLinear(Linear(100, 30, rngs=nnx.Rngs(0)), 50, ALPHA, 0.0, rngs=nnx.Rngs(1))
    a = np.asarray(ours.lora_a)
    assert a.shape == (100, 50) and ours.lora_b.shape == (50, 30)
    assert not np.asarray(ours.lora_b).any()
    assert np.abs(a).max() <= 0.1
    np.testing.assert_allclose(np.quantile(a, [0.1, 0.5, 0.9]), [-0.08, 0.0, 0.08], atol=0.005)


class TestPatterns:
    def test_a_layer_is_adapted_where_a_pattern_matches_its_whole_path(self):
        patterns = [".*/(query|value)", "encoder/layer/1/output/dense", "layer/0"]
        model = adapted(Bert, patterns, num_hidden_layers=2)
        assert adapters(model) == [
            "encoder/layer/0/attention/self/query",
            "encoder/layer/0/attention/self/value",
            "encoder/layer/1/attention/self/query",
            "encoder/layer/1/attention/self/value",
            "encoder/layer/1/output/dense",
        ]

    def test_two_patterns_for_one_layer_give_one_adapter(self):
        assert adapters(adapted(DistilBert, [".*/0/.*q_lin", ".*/0/attention/q_lin"])) == [
            "transformer/layer/0/attention/q_lin"
        ]

    @pytest.mark.parametrize(
        ("pattern", "near"),
        [
            ("encoder/layer/0/attention/self/qery", "near them: encoder/layer/0/attention/self/"),
            ("query", "6 linear layers; the first: encoder/layer/0/attention/output/dense"),
        ],
    )
    def test_no_match_names_layers_that_there_are(self, pattern, near):
        with pytest.raises(ValueError, match=f"'{pattern}'.*{near}"):
            adapted(Bert, [pattern])

    def test_a_network_without_linear_layers(self):
        with pytest.raises(ValueError, match="no linear layer"):
            lora.add(nnx.Dropout(0.1), [".*"], RANK, ALPHA, 0.0, rngs=nnx.Rngs(0))

    def test_what_is_no_pattern_is_named(self):
        with pytest.raises(ValueError, match=r"'\(query' is not a regular expression"):
            adapted(Bert, ["(query"])


class TestDropout:
    @every_network
    def test_every_layer_drops_in_training_only(self, network):
        # Every linear layer is adapted: one that were called without a key would raise.
        model = adapted(network, dropout=0.5)
        calm = run(adapted(network), inputs(network))
        np.testing.assert_array_equal(run(model, inputs(network)).tokens, calm.tokens)
        one, same, other = (run(model, inputs(network), seed=s).tokens for s in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, other, atol=1e-3)

    def test_training_without_a_key_is_an_error(self):
        layer = lora.LoraLinear(Linear(4, 4, rngs=nnx.Rngs(0)), RANK, ALPHA, 0.1, rngs=nnx.Rngs(1))
        with pytest.raises(ValueError, match="rngs"):
            layer(np.ones((2, 4), np.float32))

    def test_it_drops_the_adapters_input_and_keeps_its_expectation(self):
        rate, width = 0.25, 4000
        layer = lora.LoraLinear(Linear(width, 1, rngs=nnx.Rngs(0)), 1, 1.0, rate, rngs=nnx.Rngs(1))
        layer.lora_a[...] = jnp.ones((width, 1)) / width
        layer.lora_b[...] = jnp.ones((1, 1))
        x = np.ones((50, width), np.float32)
        rngs = nnx.Rngs(dropout=0)
        own = np.asarray(nnx.view(layer, deterministic=True)(x)) - 1.0
        added, again = (np.asarray(layer(x, rngs)) - own for _ in range(2))
        # Kept elements count 1 / (1 - rate): mean 1, and the spread of so many coins.
        spread = (rate / (1 - rate) / width) ** 0.5
        assert abs(added.mean() - 1) < 5 * spread / 50**0.5
        assert 0.7 * spread < added.std() < 1.4 * spread
        # Query and value read the same input, each through a mask of its own.
        assert abs(np.corrcoef(added[:, 0], again[:, 0])[0, 1]) < 0.6


def test_bfloat16_computes_in_bfloat16_and_is_near():
    tokens = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = adapted(Bert, [".*/(query|value)"], dtype=dtype)
        assert {leaf.dtype for leaf in params(model).values()} == {jnp.dtype("float32")}
        tokens[dtype] = run(model, inputs(Bert)).tokens
        assert tokens[dtype].dtype == dtype
    difference = np.abs(tokens[jnp.float32] - np.asarray(tokens[jnp.bfloat16], np.float32))
    assert 0 < difference.max() < 0.1 and difference.mean() < 0.02


PLOT = tiny.SPEC["encoders"]["plot"]
LORA = {"patterns": [".*/(q_lin|v_lin)"], "rank": 2, "alpha": 4.0, "dropout": 0.1}
WHOLE = {**tiny.SPEC, "encoders": {"plot": PLOT}, "modality_dropout": 0.0}
WHOLE_ADAPTED = {**WHOLE, "encoders": {"plot": {**PLOT, "lora": LORA}}}
RATES = ((".*/lora_[ab]", 1e-2), ("(fusion|heads)/.*", 1e-2), (".*", 0.0))


@pytest.fixture(scope="module")
def training():
    """A whole model with adapters, its state at first and after two steps."""
    network, first, step = tiny.setup(spec=WHOLE_ADAPTED, rates=RATES)
    before, state = jax.device_get(first), first
    for _ in range(2):  # A has no gradient while B is 0
        state, _ = step(state, plots(), jax.random.key(0))
    return network, before, jax.device_get(state)


def plots():
    batch = tiny.batch()
    return {**batch, **{part: {"plot": batch[part]["plot"]} for part in ("inputs", "present")}}


class TestTraining:
    def test_adapters_and_heads_alone_are_trained(self, training):
        _, before, after = training
        adapters = {path for path in after.params if lora.is_adapter(path)}
        assert len(adapters) == 2 * 2
        for path in after.params:
            assert path in adapters or path.startswith(("fusion/", "heads/")), path
        for path in adapters:
            assert not np.array_equal(after.params[path], before.params[path]), path
        assert any(path.endswith("q_lin/kernel") for path in after.frozen)
        for path, leaf in before.frozen.items():
            np.testing.assert_array_equal(after.frozen[path], leaf, err_msg=path)

    def test_frozen_weights_have_no_moments(self, training):
        _, _, after = training
        moments = [x for x in jax.tree.leaves(after.opt_state["adam"]) if x.ndim]
        assert sum(x.size for x in moments) == 2 * trees.size(after.params)

    def test_a_model_begins_with_the_answers_of_its_own_weights(self, training):
        network, first, _ = training
        params = {**first.params, **first.frozen}
        own = {path: leaf for path, leaf in params.items() if not lora.is_adapter(path)}
        base = Network(WHOLE)
        assert own.keys() == base.params.keys()
        expected, _ = base.apply(own, first.stats, plots())
        answers, _ = network.apply(params, first.stats, plots())
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), answers, expected)
