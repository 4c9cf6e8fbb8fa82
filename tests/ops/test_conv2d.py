import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jfusion.ops import conv2d as module
from jfusion.ops.conv2d import conv2d
from jfusion.ops.padding import padding


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(x, kernel, stride, around):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=numbers)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 9), (3, 2)])
def test_equals_the_convolution_with_gradients(stride, size):
    x, kernel, around = draw(2, *size, 3), draw(3, 3, 3, 4, seed=1), ((0, 1), (1, 1))
    want, pull_want = jax.vjp(lambda x, k: reference(x, k, stride, around), x, kernel)
    got, pull_got = jax.vjp(lambda x, k: conv2d(x, k, stride=stride, padding=around), x, kernel)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-5)
    weight = draw(*want.shape, seed=2)
    for a, b in zip(pull_got(weight), pull_want(weight), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_accelerators_get_the_convolution(monkeypatch):
    x, kernel, around = draw(2, 8, 8, 3), draw(3, 3, 3, 4), ((0, 1), (0, 1))
    here = jax.make_jaxpr(lambda *a: conv2d(*a, stride=2, padding=around))(x, kernel)
    assert "conv_general_dilated" not in str(here)
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    there = conv2d(jnp.asarray(x), kernel, stride=2, padding=around)
    np.testing.assert_array_equal(there, reference(x, kernel, 2, around))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (1, 2), (13, 14)])
def test_same_is_what_xla_calls_same(kernel, stride, size):
    want = lax.padtype_to_pads(size, (kernel, kernel), (stride, stride), "SAME")
    assert padding("same", size, kernel, stride) == tuple(map(tuple, want))


@pytest.mark.parametrize("convention", ["same", "even", "symmetric"])
def test_without_a_step_all_are_alike(convention):
    assert padding(convention, (6, 7), 5, 1) == ((2, 2), (2, 2))


def test_what_the_conventions_do_with_a_step():
    assert padding("symmetric", (6, 7), 3, 2) == ((1, 1), (1, 1))
    assert padding("even", (6, 7), 3, 2) == ((0, 1), (0, 1))
    assert padding("same", (6, 7), 3, 2) == ((0, 1), (1, 1))
    assert padding("even", (6, 7), 5, 2) == ((1, 2), (1, 2))
    assert padding("same", (6, 7), 5, 2) == ((1, 2), (2, 2))
    with pytest.raises(ValueError, match=r"'valid' is none of same, even, symmetric"):
        padding("valid", (6, 7), 3, 2)
