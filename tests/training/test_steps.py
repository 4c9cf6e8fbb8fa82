import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.config import MultiLabel, Phase, Train
from jfusion.training import losses
from tests import tiny

KEY = jax.random.key(1)


def a_train(**values):
    return Train(phases=(Phase(epochs=1),), **values)


def test_loss_falls_and_every_parameter_moves():
    _, state, step = tiny.setup(a_train(clip=0.0, weight_decay=0.0))
    before = jax.device_get(state.params)
    batch = tiny.batch(16)
    batch["present"]["plot"][:4] = False  # so that the learnt vectors are used too
    batch["present"]["poster"][4:8] = False
    values = []
    for _ in range(20):
        state, scalars = step(state, batch, KEY)
        values.append(float(scalars["loss"]))
    assert values[-1] < values[0] - 0.05
    assert int(state.step) == 20
    still = [
        path
        for path, leaf in before.items()
        # The key bias has no gradient: softmax does not see what is added to every score alike.
        if np.array_equal(leaf, state.params[path]) and not path.endswith("k_lin/bias")
    ]
    assert still == []


def test_padding_rows_change_nothing():
    spec = tiny.without_dropout()
    _, state, step = tiny.setup(spec=spec)
    batch = tiny.batch(8, padding=3)
    _, one = step(state, batch, KEY)
    other = tiny.batch(8, padding=3)
    other["inputs"]["poster"]["pixels"][5:] = 7
    other["targets"]["genres"][5:] = 1
    _, state, step = tiny.setup(spec=spec)
    _, two = step(state, other, KEY)
    assert float(one["loss"]) == float(two["loss"])
    assert float(one["gradient_norm"]) == float(two["gradient_norm"])


@pytest.mark.parametrize("padding", [0, 3])
def test_accumulation_takes_the_same_step(padding):
    spec = tiny.without_dropout()
    results = []
    for parts in (1, 2, 4):
        # Without a moment's normalisation, which would blow up the rounding of tiny gradients.
        _, state, step = tiny.setup(a_train(batch_size=8, accumulate=parts), spec=spec)
        state, scalars = step(state, tiny.batch(8, padding), KEY)
        first_moment = state.opt_state["adam"][1].mu
        results.append((first_moment, scalars))
    for moment, scalars in results[1:]:
        np.testing.assert_allclose(scalars["loss"], results[0][1]["loss"], rtol=1e-6)
        for path, leaf in moment.items():
            np.testing.assert_allclose(leaf, results[0][0][path], rtol=1e-4, atol=1e-7)


def test_batch_norm_takes_in_one_part_of_a_batch_after_the_other():
    """Each part is normalised by its own real rows, and the running statistics follow in turn."""
    calm, parts, real = tiny.without_dropout(), 2, 6
    sizes = {"vocab_size": 50, "width": 8, "filters": 8, "hidden": 8, "dropout": 0.0}
    encoders = {
        "plot": {"network": "text_cnn", "sizes": sizes},
        "poster": calm["encoders"]["poster"] | {"dense": {"out_features": 8, "dropout": 0.0}},
    }
    spec = {**calm, "encoders": encoders, "fusion": {**calm["fusion"], "norm": "batch"}}
    network, state, step = tiny.setup(a_train(batch_size=8, accumulate=parts, clip=0.0), spec=spec)
    batch = tiny.batch(8, padding=8 - real)
    loss = losses.build(MultiLabel(column="genres"))

    def part_loss(params, stats, part):
        answers, stats = network.apply(params, stats, part, KEY)
        rows = loss.rows(answers.heads["genres"], part["targets"]["genres"], part)
        return rows.sum() / real, stats

    expected, gradients = state.stats, jax.tree.map(jnp.zeros_like, state.params)
    for first in range(parts):  # the real rows of each part alone
        part = jax.tree.map(lambda x, first=first: x[:real][first::parts], batch)
        gradient, expected = jax.jit(jax.grad(part_loss, has_aux=True))(
            state.params, expected, part
        )
        gradients = jax.tree.map(jnp.add, gradients, gradient)
    before = jax.device_get(state.stats)

    state, _ = step(state, batch, KEY)

    assert len(before) > 10
    for path, leaf in state.stats.items():
        assert not np.array_equal(leaf, before[path]), path
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)
    for path, leaf in state.opt_state["adam"][1].mu.items():
        # Weights before a BatchNorm have gradients that are small sums of large terms.
        np.testing.assert_allclose(leaf, 0.1 * gradients[path], rtol=1e-3, atol=1e-5, err_msg=path)


def test_frozen_parameters_have_no_moments_and_stay():
    rates = (("encoders/poster/.*", 0.0), (".*", 1e-3))
    _, state, step = tiny.setup(rates=rates)
    frozen = jax.device_get(state.frozen)
    assert frozen and all(path.startswith("encoders/poster/") for path in frozen)
    assert not set(state.opt_state["adam"][1].mu) & set(frozen)
    state, _ = step(state, tiny.batch(), KEY)
    for path, leaf in frozen.items():
        np.testing.assert_array_equal(leaf, state.frozen[path])


def test_decay_acts_on_matrices_only():
    _, state, step = tiny.setup(a_train(weight_decay=10.0, clip=1e-12))
    before = jax.device_get(state.params)
    batch = tiny.batch()
    batch["weight"][:] = 0  # no gradient, so that only the decay moves anything
    state, _ = step(state, batch, KEY)
    for path, leaf in before.items():
        factor = 0.99 if leaf.ndim >= 2 else 1.0
        np.testing.assert_allclose(state.params[path], leaf * factor, rtol=1e-5, atol=1e-9)


def test_step_is_a_function_of_state_batch_and_key():
    runs = []
    for _ in range(2):
        _, state, step = tiny.setup()
        for i in range(3):
            state, scalars = step(state, tiny.batch(seed=i), KEY)
        runs.append((jax.device_get(state), float(scalars["loss"])))
    assert runs[0][1] == runs[1][1]
    jax.tree.map(np.testing.assert_array_equal, runs[0][0], runs[1][0])


def test_average_follows_the_parameters():
    _, state, step = tiny.setup(a_train(ema=0.9))
    first = jax.device_get(state.params)
    state, _ = step(state, tiny.batch(), KEY)
    for path, leaf in state.opt_state["average"].items():
        np.testing.assert_allclose(  # the first step's decay is 1 / 10
            leaf, 0.1 * first[path] + 0.9 * np.asarray(state.params[path]), rtol=1e-5, atol=1e-7
        )
    assert set(state.evaluated) == set(first)
    path = next(iter(first))
    np.testing.assert_array_equal(state.evaluated[path], state.opt_state["average"][path])


def test_float16_skips_an_overflow_and_halves_the_scale():
    _, state, step = tiny.setup(a_train(precision="float16"))
    before = jax.device_get(state.params)
    state.opt_state["scale"]["value"] = jnp.float32(3e38)
    state, scalars = step(state, tiny.batch(), KEY)
    assert not np.isfinite(scalars["gradient_norm"])
    assert float(state.opt_state["scale"]["value"]) == pytest.approx(1.5e38)
    for path, leaf in before.items():
        np.testing.assert_array_equal(leaf, state.params[path])
    state.opt_state["scale"]["value"] = jnp.float32(1024)
    state, scalars = step(state, tiny.batch(), KEY)
    assert np.isfinite(scalars["gradient_norm"])
    assert any(not np.array_equal(leaf, state.params[path]) for path, leaf in before.items())


def test_no_recompilation_after_the_first_step():
    _, state, step = tiny.setup()
    for i in range(4):
        state, _ = step(state, tiny.batch(seed=i), KEY)
    assert step._cache_size() == 1
