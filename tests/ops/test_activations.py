import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.ops import activations
from jfusion.ops.activations import gelu


def definition(x):
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])


def slope(x):
    density = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    return np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]) + x * density


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_values_and_gradient(backend, monkeypatch):
    monkeypatch.setattr(activations.jax, "default_backend", lambda: backend)
    x = np.concatenate([np.linspace(-12, 12, 301), [0.0, -100.0, 100.0]])
    got, pull = jax.vjp(gelu, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, definition(x), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(pull(jnp.full(x.shape, 2.0))[0], 2 * slope(x), rtol=1e-6, atol=4e-6)


def test_half_precision_keeps_its_dtype():
    x = jnp.linspace(-4, 4, 64, dtype=jnp.bfloat16)
    got, pull = jax.vjp(gelu, x)
    assert got.dtype == jnp.bfloat16 and pull(got)[0].dtype == jnp.bfloat16
    want = definition(np.asarray(x, np.float64))
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=0.01, atol=1e-3)
