"""A modality that joins a trained model says nothing at first, and later only where it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.training.state import Network
from tests import tiny

ROWS = 8
FACTS = {"network": "tabular", "sizes": {"numbers": 2, "categories": [4], "width": 8, "layers": 1}}
CONCAT = {"kind": "concat", "hidden": [16, 8], "norm": "batch", "dropout": 0.1}
ATTENTION = {
    "kind": "cross_attention",
    **{"width": 16, "layers": 2, "heads": 2, "feed_forward": 32, "gate": "sample"},
}
HEADS = {
    "genres": {"kind": "logits", "outputs": tiny.LABELS},
    "score": {"kind": "value", "centre": 7.5, "spread": 3.0},
    "place": {"kind": "vectors", "outputs": 4},
}
# Every choice of three modalities; row 1 has only what is attached, row 0 nothing.
PATTERNS = (np.arange(ROWS)[:, None] >> np.arange(3) & 1 > 0).T
PRESENT = dict(zip(("facts", "plot", "poster"), PATTERNS, strict=True))


def old_spec(fusion=CONCAT):
    return {**tiny.without_dropout(), "fusion": fusion, "heads": HEADS}


def new_spec(fusion=CONCAT):
    spec = old_spec(fusion)
    return {**spec, "encoders": {**spec["encoders"], "facts": FACTS}, "attached": ["facts"]}


@functools.lru_cache
def models(kind="concat", dtype="float32"):
    """A model, the same with a modality attached, and the weights of both."""
    fusion = {"concat": CONCAT, "cross_attention": ATTENTION}[kind]
    old, new = (Network(spec(fusion), jnp.dtype(dtype)) for spec in (old_spec, new_spec))
    params, stats = old.init(jax.random.key(0, impl="rbg"))
    # Not the values that everything starts from: those would hide much.
    params = {
        path: x + 0.05 * np.cos(np.arange(x.size)).reshape(x.shape) for path, x in params.items()
    }
    stats = {path: x + 0.1 for path, x in stats.items()}
    grown = new.init(jax.random.key(1, impl="rbg"), {**params, **stats})
    return old, (params, stats), new, grown


def _wave(x):
    return 0.05 * np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)


def a_batch(seed=0):
    rng = np.random.default_rng(seed)
    batch = tiny.batch(ROWS, seed=seed)
    facts = {
        "numbers": rng.normal(size=(ROWS, 2)).astype(np.float32),
        "known": rng.random((ROWS, 2)) < 0.7,
        "categories": rng.integers(0, 4, (ROWS, 1)).astype(np.int32),
    }
    return {**batch, "inputs": {**batch["inputs"], "facts": facts}, "present": PRESENT}


@functools.partial(jax.jit, static_argnums=0)
def _apply(network, params, stats, batch):
    return network.apply(params, stats, batch)[0]


def answers(network, weights, batch):
    batch = {key: batch[key] for key in ("inputs", "present", "weight")}
    if "attached" not in network.spec:
        batch = {
            key: {name: x for name, x in part.items() if name != "facts"}
            if isinstance(part, dict)
            else part
            for key, part in batch.items()
        }
    return jax.device_get(_apply(network, *weights, batch))


def opened(weights):
    params, stats = weights
    return {**params, "attached/facts/gate": jnp.ones_like(params["attached/facts/gate"])}, stats


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("concat", "float32"), ("concat", "bfloat16"), ("cross_attention", "float32")],
)
def test_at_first_the_answers_are_the_old_ones_to_the_last_bit(kind, dtype):
    old, weights, new, grown = models(kind, dtype)
    for seed in range(3):
        before, after = answers(old, weights, a_batch(seed)), answers(new, grown, a_batch(seed))
        assert before.heads.keys() == after.heads.keys() == HEADS.keys()
        for name, x in before.heads.items():
            np.testing.assert_array_equal(after.heads[name], x, err_msg=name)
        assert before.shares.keys() == after.shares.keys()
        for name, x in before.shares.items():
            np.testing.assert_array_equal(after.shares[name], x, err_msg=name)


def test_an_open_gate_changes_the_rows_that_have_the_modality_and_no_others():
    old, weights, new, grown = models()
    before = answers(old, weights, a_batch()).heads["genres"]
    after = answers(new, opened(grown), a_batch()).heads["genres"]
    np.testing.assert_array_equal((before != after).any(axis=1), PRESENT["facts"])


def test_a_row_that_has_only_the_new_modality_is_answered_by_it():
    _, _, new, grown = models()
    one, other = (answers(new, opened(grown), a_batch(seed)).heads for seed in (0, 1))
    assert all(np.isfinite(x).all() for x in one.values())
    assert np.abs(one["genres"][1] - other["genres"][1]).max() > 1e-3
    np.testing.assert_array_equal(one["genres"][0], other["genres"][0])


def test_what_lies_in_an_absent_slot_changes_nothing():
    _, _, new, grown = models()
    batch = a_batch()
    facts = {
        "numbers": np.where(PRESENT["facts"][:, None], batch["inputs"]["facts"]["numbers"], np.nan),
        "known": batch["inputs"]["facts"]["known"],
        "categories": np.where(
            PRESENT["facts"][:, None], batch["inputs"]["facts"]["categories"], 99
        ).astype(np.int32),
    }
    other = {**batch, "inputs": {**batch["inputs"], "facts": facts}}
    one, other = (answers(new, opened(grown), x).heads for x in (batch, other))
    for name, x in one.items():
        np.testing.assert_array_equal(other[name], x, err_msg=name)


def test_the_gate_learns_first_and_then_all_that_is_new():
    _, _, new, grown = models()

    @jax.jit
    def gradient(params, stats, batch):
        def loss(params):
            return jnp.sum(jnp.sin(new.apply(params, stats, batch)[0].heads["genres"]))

        return jax.grad(loss)(params)

    batch = {key: a_batch()[key] for key in ("inputs", "present", "weight")}
    ours = {p for p in new.params if "/facts/" in p}
    shut, open_ = gradient(*grown, batch), gradient(*opened(grown), batch)
    assert {p for p in ours if np.any(shut[p])} == {"attached/facts/gate"}
    assert {p for p in ours if np.any(open_[p])} == ours
    assert ours >= {
        "attached/facts/projection/kernel",
        "encoders/facts/layers/0/kernel",
    }


def test_the_fusion_and_what_it_tells_are_of_the_old_modalities():
    old, _, new, grown = models("cross_attention")
    given = answers(new, grown, a_batch())
    assert set(given.present) == set(given.shares) == {"plot", "poster"}
    assert given.heads["place"].shape == (ROWS, 1 + 2, 4)
    grew = {path.split("/")[0] for path in new.params.keys() - old.params.keys()}
    assert grew == {"attached", "encoders"}
