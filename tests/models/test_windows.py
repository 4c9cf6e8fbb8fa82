"""Rows with three windows, with one, with a gap between two, and with none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models import windows
from jfusion.models.bert import DistilBert
from tests.modules import drawn

W, N = 3, 6
LENGTHS = np.array([[6, 4, 2], [5, 0, 0], [3, 0, 6], [0, 0, 0]], np.int32)
IDS = np.random.default_rng(0).integers(0, 50, (4, W, N)).astype(np.int32)


@pytest.fixture(scope="module")
def encoder():
    sizes = dict(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    return drawn(lambda: DistilBert(**sizes, max_position_embeddings=N, rngs=nnx.Rngs(0)))


def encode(encoder, ids=IDS, length=LENGTHS):
    graph, state = nnx.split(encoder)
    arrays = {"ids": ids, "length": length, "rows": np.ones(len(ids), np.float32)}
    return jax.jit(lambda state: windows.encode(nnx.merge(graph, state), arrays, None))(state)


def test_each_window_is_read_as_a_text_and_the_used_ones_are_averaged(encoder):
    tokens, mask, pooled = encode(encoder)
    assert tokens.shape == (4, W * N, 16) and mask.shape == (4, W * N) and pooled.shape == (4, 16)
    for row in range(3):
        alone = [
            encoder({"ids": IDS[row, w][None], "length": LENGTHS[row, w][None]}) for w in range(W)
        ]
        used = LENGTHS[row] > 0
        for w in np.flatnonzero(used):
            part = slice(w * N, w * N + LENGTHS[row, w])
            expected = alone[w].tokens[0, : LENGTHS[row, w]]
            np.testing.assert_allclose(tokens[row, part], expected, atol=1e-5)
        mean = np.mean([alone[w].pooled[0] for w in np.flatnonzero(used)], axis=0)
        np.testing.assert_allclose(pooled[row], mean, atol=1e-5)


def test_the_mask_marks_the_tokens_of_each_window(encoder):
    mask = np.asarray(encode(encoder).mask).reshape(4, W, N)
    np.testing.assert_array_equal(mask, np.arange(N) < LENGTHS[..., None])


def test_a_single_window_is_the_text_itself(encoder):
    one = encode(encoder, IDS[:3, :1], LENGTHS[:3, :1])
    text = encoder({"ids": IDS[:3, 0], "length": LENGTHS[:3, 0]})
    np.testing.assert_array_equal(one.mask, text.mask)
    real = np.asarray(text.mask)
    np.testing.assert_allclose(one.tokens[real], text.tokens[real], atol=1e-5)
    here = LENGTHS[:3, 0] > 0
    np.testing.assert_allclose(one.pooled[here], text.pooled[here], atol=1e-5)


def test_what_lies_in_unused_windows_changes_nothing(encoder):
    other = np.where(np.arange(N) < LENGTHS[..., None], IDS, 49 - IDS)
    assert (other != IDS).any()
    one, two = encode(encoder), encode(encoder, other)
    np.testing.assert_array_equal(one.pooled, two.pooled)
    real = np.asarray(one.mask)
    np.testing.assert_array_equal(one.tokens[real], two.tokens[real])


def test_a_row_without_windows_is_zero_and_has_no_gradient(encoder):
    assert not encode(encoder).pooled[3].any() and not encode(encoder).mask[3].any()
    graph, state = nnx.split(encoder)

    @jax.jit
    def gradient(length):
        def loss(state):
            arrays = {"ids": IDS, "length": length, "rows": np.ones(len(IDS), np.float32)}
            return jnp.sin(windows.encode(nnx.merge(graph, state), arrays, None).pooled).sum()

        return trees.flatten(nnx.to_pure_dict(jax.grad(loss)(state)))

    assert all(np.isfinite(leaf).all() for leaf in gradient(LENGTHS).values())
    assert not any(leaf.any() for leaf in gradient(np.zeros_like(LENGTHS)).values())
