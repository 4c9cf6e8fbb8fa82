"""A text in windows and two sequences: every network over frames, under both fusions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models import multimodal
from tests.modules import drawn, run

ROWS, FEATURES, W, N, T = 8, 5, 2, 4, 6
NAMES = ("audio", "transcript", "video")
PRESENT = dict(zip(NAMES, (np.arange(ROWS)[:, None] >> np.arange(3) & 1 > 0).T, strict=True))
EVERYTHING = {name: np.ones(ROWS, bool) for name in NAMES}

TRANSCRIPT = {
    "network": "distilbert",
    "sizes": dict(
        vocab_size=50,
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=32,
        max_position_embeddings=N,
        dropout=0.0,
        attention_dropout=0.0,
    ),
}
FRAMES = {
    "mean_pool": {},
    "temporal_cnn": dict(width=8, dilations=[1, 2], dropout=0.0),
    "frame_transformer": dict(width=8, layers=1, heads=2, hidden=8, dropout=0.0, max_steps=T),
}
CONCAT = dict(kind="concat", hidden=[8], project=8, norm="layer", dropout=0.0)
ATTENTION = dict(
    kind="cross_attention", width=8, layers=1, heads=2, feed_forward=8, gate="sample", dropout=0.0
)


def spec(audio, video, fusion):
    frames = {
        name: {"network": network, "sizes": {"features": FEATURES, **FRAMES[network]}}
        for name, network in (("audio", audio), ("video", video))
    }
    return {
        "encoders": {**frames, "transcript": TRANSCRIPT},
        "fusion": fusion,
        "modality_dropout": 0.0,
        "heads": {
            "depressed": {"kind": "logits", "outputs": 2},
            "score": {"kind": "value", "centre": 7.0, "spread": 5.0},
        },
    }


SPECS = {
    "concat": spec("mean_pool", "temporal_cnn", CONCAT),
    "cross_attention": spec("temporal_cnn", "frame_transformer", ATTENTION),
}
both = pytest.mark.parametrize("kind", SPECS)


def a_model(kind):
    model = drawn(lambda: multimodal.build(SPECS[kind], rngs=nnx.Rngs(0)))
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        if path[-1] == "kernel":
            leaf[...] *= 10  # so that everything shows in the answers
    return model


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    length = rng.integers(1, N + 1, (ROWS, W)).astype(np.int32)
    length[::2, 1] = 0
    given = {"transcript": {"ids": rng.integers(0, 50, (ROWS, W, N), np.int32), "length": length}}
    for name in ("audio", "video"):
        valid = rng.random((ROWS, T, FEATURES)) < 0.8
        frames = np.where(valid, rng.normal(size=valid.shape), 0)
        given[name] = {"frames": frames.astype(np.float32), "valid": valid}
    return given


def with_garbage(given, present, seed):
    """The same inputs with anything at all in the slots of what is absent."""
    rng = np.random.default_rng(seed)

    def fill(x, present):
        if x.dtype == bool:
            garbage = rng.random(x.shape) < 0.5
        elif x.dtype == np.float32:
            garbage = rng.choice(np.float32([np.nan, np.inf, -1e30, 3]), x.shape)
        else:
            garbage = rng.integers(-(2**31), 2**31, x.shape).astype(x.dtype)
        return np.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, garbage)

    return {
        name: {key: fill(x, present[name]) for key, x in arrays.items()}
        for name, arrays in given.items()
    }


@functools.partial(jax.jit, static_argnums=0)
def _gradient(graph, state, given, present):
    def loss(state):
        answers = nnx.merge(graph, state)(given, present)
        directions = jnp.sin(jnp.arange(1.0, 2 * ROWS + 1)).reshape(ROWS, 2)
        score = answers.heads["score"] * directions[:, :1]
        return score.sum() + (answers.heads["depressed"] * directions).sum()

    return trees.flatten(nnx.to_pure_dict(jax.grad(loss)(state)))


def gradient(model, given, present):
    return jax.device_get(_gradient(*nnx.split(model), given, present))


@both
def test_what_lies_in_an_absent_slot_changes_no_answer_and_no_gradient(kind):
    model, given = a_model(kind), inputs()
    other = with_garbage(given, PRESENT, 0)
    assert not np.isfinite(other["audio"]["frames"]).all()
    one, two = run(model, given, PRESENT), run(model, other, PRESENT)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    one, two = gradient(model, given, PRESENT), gradient(model, other, PRESENT)
    for path, leaf in one.items():
        assert np.isfinite(leaf).all(), path
        np.testing.assert_array_equal(leaf, two[path], err_msg=path)


@both
def test_every_pattern_of_presence_has_an_answer_of_its_own(kind):
    same = jax.tree.map(lambda x: np.repeat(x[1:2], ROWS, axis=0), inputs())
    score = run(a_model(kind), same, PRESENT).heads["score"]
    for one, other in itertools.combinations(range(ROWS), 2):
        assert not np.isclose(score[one], score[other], atol=1e-5), (one, other)


@both
def test_every_parameter_has_a_gradient(kind):
    model, given = a_model(kind), inputs()
    everything, patterns = (gradient(model, given, p) for p in (EVERYTHING, PRESENT))
    for path in everything:
        if path.endswith("k_lin/bias"):
            continue  # DistilBERT's softmax does not see the bias of its keys
        assert (np.abs(patterns[path]) > 1e-7).any(), path
        here = (np.abs(everything[path]) > 1e-7).any()
        assert here != path.startswith("fusion/missing/"), path


@both
def test_an_absent_modality_gives_its_encoder_no_gradient(kind):
    for absent in NAMES:
        present = {**EVERYTHING, absent: np.zeros(ROWS, bool)}
        for path, leaf in gradient(a_model(kind), inputs(), present).items():
            assert not (path.startswith(f"encoders/{absent}/") and leaf.any()), path


def test_cross_attention_tells_the_shares_of_the_modalities():
    shares = run(a_model("cross_attention"), inputs(), PRESENT).shares
    for name in NAMES:
        np.testing.assert_array_equal(np.asarray(shares[name]) > 0, PRESENT[name])
    assert not run(a_model("concat"), inputs(), PRESENT).shares
