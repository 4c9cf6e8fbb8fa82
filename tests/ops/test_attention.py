import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.ops import attention as module
from jfusion.ops.attention import attention


def draw(rows=3, queries=7, keys=7, heads=2, width=5, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = [(rows, n, heads, width) for n in (queries, keys, keys)]
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def naive(q, k, v, lengths=None):
    out = np.zeros(q.shape)
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    for b in range(q.shape[0]):
        n = k.shape[1] if lengths is None else int(lengths[b])
        for h in range(q.shape[2]):
            scores = q[b, :, h] @ k[b, :n, h].T / np.sqrt(q.shape[3])
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[b, :, h] = scores / scores.sum(axis=1, keepdims=True) @ v[b, :n, h]
    return out


def naive_masked(q, k, v, mask):
    """The definition for any mask: row by row over the valid keys alone; 0 without any."""
    out = np.zeros(q.shape)
    for b in np.flatnonzero(mask.any(axis=1)):
        here = mask[b]
        out[b] = naive(q[b : b + 1], k[b : b + 1, here], v[b : b + 1, here])[0]
    return out


def plain(q, k, v, lengths=None):
    """The same in JAX's usual form, for its gradients."""
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(q.shape[-1])
    if lengths is not None:
        valid = jnp.arange(k.shape[1])[None, :] < lengths[:, None]
        scores = jnp.where(valid[:, None, None, :], scores, -jnp.inf)
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), v)


@pytest.mark.parametrize(
    "sizes", [{}, {"queries": 1}, {"queries": 4, "keys": 9}, {"rows": 1, "heads": 1, "width": 3}]
)
def test_equals_the_definition(sizes):
    q, k, v = draw(**sizes)
    np.testing.assert_allclose(attention(q, k, v), naive(q, k, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [None, [7, 1, 4]])
def test_values_and_gradients(lengths):
    q, k, v = draw()
    lengths = None if lengths is None else jnp.asarray(lengths, jnp.int32)
    got, pull_got = jax.vjp(lambda *qkv: attention(*qkv, lengths), q, k, v)
    _, pull_want = jax.vjp(lambda *qkv: plain(*qkv, lengths), q, k, v)
    np.testing.assert_allclose(got, naive(q, k, v, lengths), rtol=1e-5, atol=1e-6)
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(q.shape), jnp.float32)
    for name, a, b in zip("qkv", pull_got(weight), pull_want(weight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=f"gradient of {name}")


def test_padding_changes_nothing():
    q, k, v = draw()
    lengths = jnp.asarray([7, 2, 5], jnp.int32)
    padding = (jnp.arange(7)[None, :] >= lengths[:, None])[..., None, None]
    dirty_k, dirty_v = jnp.where(padding, 1e4, k), jnp.where(padding, -1e4, v)
    attend = jax.jit(lambda k, v: attention(q, k, v, lengths))
    clean, pull = jax.vjp(attend, k, v)
    np.testing.assert_array_equal(attend(k, v), attend(dirty_k, dirty_v))
    for gradient in pull(jnp.ones_like(clean)):
        assert not jnp.where(padding, gradient, 0).any()


def test_rows_of_length_zero_are_finite():
    q, k, v = draw()
    lengths = jnp.asarray([0, 7, 0], jnp.int32)
    out, pull = jax.vjp(lambda *qkv: attention(*qkv, lengths), q, k, v)
    assert jnp.isfinite(out).all()
    assert all(jnp.isfinite(g).all() for g in pull(jnp.ones_like(out)))


MASK = np.array([[0, 1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1]], bool)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_any_mask_of_keys(dtype):
    q, k, v = draw(dtype=dtype)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.02
    got = attention(q, k, v, mask=MASK)
    assert got.dtype == dtype
    want = naive_masked(q, k, v, MASK)
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=tolerance, atol=tolerance)


def test_a_mask_of_the_first_keys_is_a_length():
    q, k, v = draw()
    lengths = jnp.asarray([7, 1, 4], jnp.int32)
    mask = jnp.arange(7)[None, :] < lengths[:, None]
    by_length, pull_length = jax.vjp(lambda *qkv: attention(*qkv, lengths), q, k, v)
    by_mask, pull_mask = jax.vjp(lambda *qkv: attention(*qkv, mask=mask), q, k, v)
    np.testing.assert_array_equal(by_length, by_mask)
    for a, b in zip(pull_length(jnp.sin(q)), pull_mask(jnp.sin(q)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_masked_keys_change_nothing(rate):
    q, k, v = draw()
    hidden = ~MASK[..., None, None]
    dirty_k, dirty_v = jnp.where(hidden, 1e4, k), jnp.where(hidden, -1e4, v)

    @jax.jit
    def attend(k, v):
        key = jax.random.key(0)
        return attention(q, k, v, mask=MASK, dropout_rate=rate, dropout_key=key)

    clean, pull = jax.vjp(attend, k, v)
    np.testing.assert_array_equal(clean, attend(dirty_k, dirty_v))
    for gradient in pull(jnp.ones_like(clean)):
        assert not jnp.where(hidden, gradient, 0).any()


def test_a_row_without_valid_keys_is_zero_and_has_no_gradient():
    q, k, v = draw()
    mask = MASK.copy()
    mask[1] = False
    out, pull = jax.vjp(lambda *qkv: attention(*qkv, mask=mask), q, k, v)
    assert not out[1].any() and out[0].all() and out[2].all()
    for gradient in pull(jnp.sin(out + 1)):
        assert jnp.isfinite(gradient).all()
        assert not gradient[1].any() and gradient[2].all()


def test_lengths_and_a_mask_are_refused():
    with pytest.raises(ValueError, match="not both"):
        attention(*draw(), jnp.asarray([7, 1, 4], jnp.int32), mask=MASK)


def test_half_precision_has_a_float32_softmax():
    q, k, v = draw(dtype=jnp.bfloat16)
    out = attention(q, k, v, jnp.asarray([7, 3, 1], jnp.int32))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        out.astype(jnp.float32), naive(q, k, v, [7, 3, 1]), rtol=0.02, atol=0.02
    )


def test_dropout_keeps_the_expectation_and_follows_the_key():
    q, k, v = draw(rows=2, queries=3, keys=4)
    lengths = jnp.asarray([4, 2], jnp.int32)

    @jax.jit
    def dropped(key):
        return attention(q, k, v, lengths, dropout_rate=0.3, dropout_key=key)

    keys = jax.random.split(jax.random.key(0), 4000)
    first = dropped(keys[0])
    assert (first == dropped(keys[0])).all() and (first != dropped(keys[1])).any()
    mean = jax.vmap(dropped)(keys).mean(axis=0)
    np.testing.assert_allclose(mean, naive(q, k, v, lengths), atol=0.05)
    no_key = attention(q, k, v, lengths, dropout_rate=0.3)
    np.testing.assert_array_equal(no_key, attention(q, k, v, lengths))


class Card:
    """A GPU, as far as the choice of the implementation looks at it."""

    def __init__(self, capability):
        self.compute_capability = capability


@pytest.mark.parametrize(
    ("capability", "dtype", "width", "rate", "fused"),
    [
        ("9.0", jnp.bfloat16, 64, 0.0, True),
        ("8.0", jnp.float16, 64, 0.0, True),
        ("7.5", jnp.float16, 64, 0.0, False),
        ("gfx942", jnp.bfloat16, 64, 0.0, False),
        ("9.0", jnp.float32, 64, 0.0, False),
        ("9.0", jnp.bfloat16, 60, 0.0, False),
        ("9.0", jnp.bfloat16, 64, 0.1, False),
    ],
)
def test_cudnn_serves_half_precision_without_dropout(
    capability, dtype, width, rate, fused, monkeypatch
):
    calls = []

    def stand_in(q, k, v, *, key_value_seq_lengths, implementation):
        calls.append((key_value_seq_lengths.tolist(), implementation))
        return q

    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(module.jax, "devices", lambda: [Card(capability)])
    monkeypatch.setattr(module.jax.nn, "dot_product_attention", stand_in)
    q, k, v = draw(width=width, dtype=dtype)
    lengths = jnp.asarray([7, 0, 4], jnp.int32)
    attention(q, k, v, lengths, dropout_rate=rate, dropout_key=jax.random.key(0))
    assert calls == ([([7, 1, 4], "cudnn")] if fused else [])
    attention(q, k, v, mask=MASK, dropout_rate=rate, dropout_key=jax.random.key(0))
    assert len(calls) == fused  # never with a mask
