import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.ops import norms
from jfusion.ops.norms import layer_norm


def definition(x, scale, bias, epsilon):
    x = np.asarray(x, np.float64)
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * np.asarray(scale) + np.asarray(bias)


def plain(x, scale, bias, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    y = centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + epsilon)
    shape = (1,) * (x.ndim - 1) + scale.shape
    return y * scale.reshape(shape) + bias.reshape(shape)


def draw(shape, mean=0.0):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape) + mean, jnp.float32)
    scale, bias = (jnp.asarray(rng.standard_normal(shape[-1]), jnp.float32) for _ in range(2))
    return x, scale, bias


@pytest.mark.parametrize("shape", [(8,), (3, 5), (2, 3, 17), (2, 3, 4, 33), (130, 768)])
@pytest.mark.parametrize(("epsilon", "backend"), [(1e-12, "cpu"), (1e-2, "cpu"), (1e-6, "gpu")])
def test_values_and_gradients(shape, epsilon, backend, monkeypatch):
    monkeypatch.setattr(norms.jax, "default_backend", lambda: backend)
    x, scale, bias = draw(shape)
    got, pull_got = jax.vjp(jax.jit(lambda *a: layer_norm(*a, epsilon)), x, scale, bias)
    _, pull_want = jax.vjp(jax.jit(lambda *a: plain(*a, epsilon)), x, scale, bias)
    np.testing.assert_allclose(got, definition(x, scale, bias, epsilon), rtol=1e-5, atol=1e-5)
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
    for name, a, b in zip(("x", "scale", "bias"), pull_got(weight), pull_want(weight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=f"gradient of {name}")


def test_a_large_mean_costs_no_digits():
    x, scale, bias = draw((4, 256), mean=3000.0)
    want = definition(x, scale, bias, 1e-6)
    np.testing.assert_allclose(layer_norm(x, scale, bias, 1e-6), want, rtol=1e-3, atol=2e-3)


def test_half_precision_has_float32_statistics():
    x, scale, bias = draw((4, 256), mean=10.0)
    x = x.astype(jnp.bfloat16)
    got, pull = jax.vjp(lambda *a: layer_norm(*a, 1e-6), x, scale, bias)
    assert got.dtype == jnp.bfloat16
    assert [g.dtype for g in pull(got)] == [jnp.bfloat16, jnp.float32, jnp.float32]
    want = definition(x.astype(jnp.float32), scale, bias, 1e-6)
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=0.01, atol=0.02)


def test_a_constant_row_gives_the_bias():
    _, scale, bias = draw((3, 6))
    np.testing.assert_allclose(layer_norm(jnp.full((2, 6), 7.0), scale, bias, 1e-6)[0], bias)
