import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.ops.linear import add_bias, linear


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("outputs", [4, 8])
def test_values_and_gradients(shape, biased, outputs):
    rng = np.random.default_rng(0)
    x, kernel, bias, weight = (
        jnp.asarray(rng.standard_normal(s), jnp.float32)
        for s in (shape, (6, outputs), (outputs,), (*shape[:-1], outputs))
    )
    bias = bias if biased else None
    got, pull = jax.vjp(linear, x, kernel, bias)
    want = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    want = want + (np.asarray(bias) if biased else 0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    dx, dkernel, dbias = pull(weight)
    flat_x, flat_g = np.asarray(x).reshape(-1, 6), np.asarray(weight).reshape(-1, outputs)
    np.testing.assert_allclose(dx, np.asarray(weight) @ np.asarray(kernel).T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dkernel, flat_x.T @ flat_g, rtol=1e-4, atol=1e-5)
    if biased:
        np.testing.assert_allclose(dbias, flat_g.sum(axis=0), rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_its_dtype():
    x, kernel, bias = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16), jnp.ones(4)
    assert linear(x, kernel, bias.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert add_bias(x, bias[:3]).dtype == jnp.bfloat16


def test_the_bias_gradient_is_summed_in_float32():
    x, bias = jnp.zeros((2, 300, 3), jnp.bfloat16), jnp.zeros(3, jnp.float32)
    _, pull = jax.vjp(lambda bias: add_bias(x, bias), bias)
    # 600 ones: bfloat16 stands still at 256.
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], 600)
