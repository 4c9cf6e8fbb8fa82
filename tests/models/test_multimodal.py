"""Presence is a state: what lies in an absent modality's slot never matters."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models import multimodal
from tests import modules, tiny
from tests.modules import drawn

ROWS = 8
# Plot and poster, plot, poster, neither (as in padding), twice.
PRESENT = {
    "plot": np.array([1, 1, 0, 0] * 2, bool),
    "poster": np.array([1, 0, 1, 0] * 2, bool),
}
EVERYTHING = {name: np.ones(ROWS, bool) for name in PRESENT}
CALM = tiny.without_dropout()


def a_model(spec=tiny.SPEC, **types):
    return drawn(lambda: multimodal.build(spec, **types, rngs=nnx.Rngs(0)))


def run(*args, **options):
    return modules.run(*args, **options).heads


def inputs(seed=0):
    return tiny.batch(ROWS, seed=seed)["inputs"]


LOGITS = {n: {"kind": "logits", "outputs": n} for n in (2, 3, 5)}


def with_garbage(inputs, present, seed):
    """The same inputs with any bytes at all in the slots of what is absent."""
    rng = np.random.default_rng(seed)

    def fill(x, present):
        info = np.iinfo(x.dtype)
        garbage = rng.integers(info.min, info.max, x.shape, x.dtype, endpoint=True)
        return np.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, garbage)

    return {
        name: {key: fill(x, present[name]) for key, x in arrays.items()}
        for name, arrays in inputs.items()
    }


@functools.partial(jax.jit, static_argnums=0)
def _gradient(graph, state, inputs, present, key):
    def loss(state):
        rngs = None if key is None else nnx.Rngs(dropout=key)
        answers = nnx.merge(graph, state)(inputs, present, rngs=rngs)
        return sum(jnp.sin(x).sum() for x in answers.heads.values())

    return trees.flatten(nnx.to_pure_dict(jax.grad(loss)(state)))


def gradient(model, inputs, present, seed=None):
    model = nnx.view(model, deterministic=seed is None)
    key = None if seed is None else jax.random.key(seed)
    return jax.device_get(_gradient(*nnx.split(model), inputs, present, key))


@pytest.mark.parametrize("mode", [None, 5], ids=["evaluation", "training"])
def test_what_lies_in_an_absent_slot_changes_nothing(mode):
    model = a_model()
    rng = np.random.default_rng(0)
    for trial in range(8):
        given = inputs(trial)
        present = {name: rng.random(ROWS) < 0.5 for name in PRESENT} if trial else PRESENT
        other = with_garbage(given, present, trial)
        assert any(not np.array_equal(given[n][k], other[n][k]) for n in given for k in given[n])
        one = run(model, given, present, seed=mode)["genres"]
        np.testing.assert_array_equal(one, run(model, other, present, seed=mode)["genres"])
        assert np.isfinite(one).all()


@pytest.mark.parametrize("mode", [None, 5], ids=["evaluation", "training"])
def test_what_lies_in_an_absent_slot_changes_no_gradient(mode):
    model, given = a_model(), inputs()
    one = gradient(model, given, PRESENT, mode)
    for trial in range(4):
        other = gradient(model, with_garbage(given, PRESENT, trial), PRESENT, mode)
        for path, leaf in one.items():
            assert np.isfinite(leaf).all(), path
            np.testing.assert_array_equal(leaf, other[path], err_msg=path)


def test_a_hidden_modality_is_as_if_it_were_absent():
    model = a_model({**CALM, "modality_dropout": 0.5})
    given = jax.tree.map(lambda x: np.repeat(x[:1], ROWS, axis=0), inputs())
    patterns = {
        pattern: run(
            model, given, {n: np.full(ROWS, p) for n, p in zip(PRESENT, pattern, strict=True)}
        )
        for pattern in itertools.product([True, False], repeat=2)
    }
    trained = np.concatenate([run(model, given, EVERYTHING, seed=s)["genres"] for s in range(4)])
    seen = {
        pattern: np.isclose(trained, logits["genres"][0], atol=1e-6).all(axis=1)
        for pattern, logits in patterns.items()
    }
    assert (sum(seen.values()) == 1).all()  # each row is exactly one of the patterns
    assert not seen[False, False].any()
    del seen[False, False]
    assert all(rows.any() for rows in seen.values())


def test_every_pattern_of_presence_has_an_answer_of_its_own():
    logits = np.asarray(run(a_model(), inputs(), PRESENT)["genres"])
    assert logits.shape == (ROWS, tiny.LABELS) and logits.dtype == np.float32
    assert np.isfinite(logits).all()
    same = jax.tree.map(lambda x: np.repeat(x[:1], ROWS, axis=0), inputs())
    answers = run(a_model(), same, PRESENT)["genres"]
    for one, other in itertools.combinations(range(4), 2):
        assert not np.allclose(answers[one], answers[other])
    np.testing.assert_allclose(answers[:4], answers[4:], atol=1e-6)


def test_a_row_does_not_see_its_neighbours():
    model, given = a_model(), inputs()
    one = run(model, given, EVERYTHING)["genres"]
    other = run(model, given, {**EVERYTHING, "plot": np.arange(ROWS) % 2 == 0})["genres"]
    np.testing.assert_allclose(one[::2], other[::2], atol=1e-6)
    assert not np.isclose(one[1::2], other[1::2]).all(axis=1).any()


def test_the_learnt_vector_stands_in_for_what_is_absent_only():
    model, given = a_model(), inputs()
    before = np.asarray(run(model, given, PRESENT)["genres"])
    model.fusion.missing["plot"][...] += 0.5
    changed = ~np.isclose(before, run(model, given, PRESENT)["genres"]).all(axis=1)
    np.testing.assert_array_equal(changed, ~PRESENT["plot"])

    grads = gradient(model, given, PRESENT)
    assert all(grads[f"fusion/missing/{name}"].all() for name in PRESENT)
    grads = gradient(model, given, {**EVERYTHING, "poster": PRESENT["poster"]})
    assert grads["fusion/missing/poster"].all() and not grads["fusion/missing/plot"].any()


def test_an_absent_modality_gives_its_encoder_no_gradient():
    grads = gradient(a_model(), inputs(), {**EVERYTHING, "poster": np.zeros(ROWS, bool)})
    for path, leaf in grads.items():
        if path.startswith("encoders/poster/"):
            assert not leaf.any(), path
    assert any(leaf.any() for path, leaf in grads.items() if path.startswith("encoders/plot/"))


def test_flips_happen_in_training_only():
    poster = CALM["encoders"]["poster"]
    always = {**poster, "pixels": {**poster["pixels"], "flip": 1.0}}
    model = a_model({**CALM, "encoders": {**CALM["encoders"], "poster": always}})
    given = inputs()
    mirrored = {**given, "poster": {"pixels": given["poster"]["pixels"][:, :, ::-1]}}
    as_it_is = run(model, given, EVERYTHING)["genres"]
    flipped = run(model, mirrored, EVERYTHING)["genres"]
    assert not np.allclose(as_it_is, flipped)
    trained = run(model, given, EVERYTHING, seed=0)["genres"]
    np.testing.assert_allclose(trained, flipped, atol=1e-6)


def test_training_draws_from_the_key_alone():
    model, given = a_model(), inputs()
    one, same, other = (run(model, given, EVERYTHING, seed=s)["genres"] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one, other).all(axis=1).any()
    with pytest.raises(ValueError, match="rngs"):
        nnx.view(model, deterministic=False)(given, EVERYTHING)


def test_rows_alike_are_dropped_differently():
    given = jax.tree.map(lambda x: np.repeat(x[:1], ROWS, axis=0), inputs())
    logits = run(a_model(), given, EVERYTHING, seed=0)["genres"]
    for one, other in itertools.combinations(range(ROWS), 2):
        assert not np.allclose(logits[one], logits[other])


@pytest.mark.parametrize("name", ["plot", "poster"])
def test_a_single_modality_is_a_model(name):
    spec = {**tiny.SPEC, "encoders": {name: tiny.SPEC["encoders"][name]}, "modality_dropout": 0.0}
    model, given = a_model(spec), {name: inputs()[name]}
    for seed in (None, 0):
        logits = run(model, given, {name: PRESENT[name]}, seed=seed)["genres"]
        assert logits.shape == (ROWS, tiny.LABELS)
        assert np.isfinite(logits).all()
    answers = run(model, given, {name: PRESENT[name]})["genres"][~PRESENT[name]]
    np.testing.assert_allclose(answers, np.repeat(answers[:1], len(answers), axis=0), atol=1e-6)


def test_two_modalities_of_one_kind_have_parameters_of_their_own():
    plot = CALM["encoders"]["plot"]
    model = a_model({**CALM, "encoders": {"title": plot, "story": plot}})
    given = {"title": inputs(0)["plot"], "story": inputs(1)["plot"]}
    present = {name: np.ones(ROWS, bool) for name in given}
    exchanged = {"title": given["story"], "story": given["title"]}
    one, other = (run(model, x, present)["genres"] for x in (given, exchanged))
    assert not np.allclose(one, other)


def test_every_head_predicts_its_own():
    heads = {"genres": LOGITS[5], "mood": LOGITS[2]}
    logits = run(a_model({**tiny.SPEC, "heads": heads}), inputs(), EVERYTHING)
    assert {name: x.shape for name, x in logits.items()} == {"genres": (8, 5), "mood": (8, 2)}


def test_names_of_methods_are_names_like_any_other():
    """A column may be called `items`; flax's dict has a method of that name."""
    plot, poster = CALM["encoders"]["plot"], CALM["encoders"]["poster"]
    heads = {"keys": LOGITS[3], "items": LOGITS[2]}
    spec = {"encoders": {"items": plot, "values": poster}, "heads": heads}
    model = a_model({**CALM, **spec})
    given = {"items": inputs()["plot"], "values": inputs()["poster"]}
    logits = run(model, given, {name: np.ones(ROWS, bool) for name in given})
    assert {name: x.shape for name, x in logits.items()} == {"keys": (8, 3), "items": (8, 2)}


def test_bfloat16_computes_in_bfloat16_and_is_near():
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = a_model(dtype=dtype)
        for layer in (*model.fusion.layers, model.heads["genres"]):
            layer.kernel[...] *= 12  # to logits of the size that trained models have
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
        logits[dtype] = run(model, inputs(), PRESENT)["genres"]
        assert logits[dtype].dtype == np.float32
    largest = np.abs(logits[jnp.float32]).max()
    assert largest > 0.5
    assert not np.array_equal(logits[jnp.float32], logits[jnp.bfloat16])
    difference = np.abs(logits[jnp.bfloat16] - logits[jnp.float32]).max()
    assert difference < 1e-2 * largest


def test_a_new_model_starts_as_its_layers_say():
    @jax.jit
    def make(key):
        return nnx.to_pure_dict(nnx.state(multimodal.build(CALM, rngs=nnx.Rngs(key))))

    params = trees.flatten(make(jax.random.key(0, impl="rbg")))
    for name in PRESENT:
        assert 0.005 < params[f"fusion/missing/{name}"].std() < 0.05
    for layer, width in (("fusion/layers/0", 16 + 8), ("heads/genres", 16)):
        kernel = params[f"{layer}/kernel"]
        assert kernel.shape[0] == width
        assert 0.8 * width**-0.5 < np.abs(kernel).max() <= width**-0.5
        assert not params[f"{layer}/bias"].any()


class TestHideModalities:
    NAMES = ("audio", "text", "video")

    def hidden(self, present, rate=0.3, seed=0):
        after = multimodal.hide_modalities(jax.random.key(seed), present, rate)
        return np.stack([after[name] for name in self.NAMES])  # [M, B]

    def test_never_all_of_a_row_and_never_more_than_there_was(self):
        rng = np.random.default_rng(0)
        before = rng.random((3, 4000)) < 0.5
        after = self.hidden(dict(zip(self.NAMES, before, strict=True)), rate=0.8)
        assert not (after & ~before).any()
        np.testing.assert_array_equal(after.any(axis=0), before.any(axis=0))
        alone = before.sum(axis=0) == 1
        np.testing.assert_array_equal(after[:, alone], before[:, alone])

    def test_rows_and_modalities_are_drawn_independently(self):
        B, rate = 20_000, 0.3
        after = self.hidden({name: np.ones(B, bool) for name in self.NAMES}, rate)
        for pattern in itertools.product([True, False], repeat=3):
            share = (after == np.array(pattern)[:, None]).all(axis=0).mean()
            expected = np.prod([1 - rate if p else rate for p in pattern])
            if all(pattern):
                expected += rate**3  # who would lose all keeps all
            if not any(pattern):
                expected = 0.0
            assert abs(share - expected) < 5 * (0.25 / B) ** 0.5, pattern
        neighbours = np.corrcoef(after[0, :-1], after[0, 1:])[0, 1]
        assert abs(neighbours) < 5 / B**0.5

    def test_another_key_hides_others(self):
        present = {name: np.ones(100, bool) for name in self.NAMES}
        assert (self.hidden(present, seed=0) != self.hidden(present, seed=1)).any()
