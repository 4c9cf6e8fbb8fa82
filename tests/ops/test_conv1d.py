import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jfusion.ops.conv1d import conv1d


def reference(x, kernel, bias, dilation):
    y = lax.conv_general_dilated(
        x, kernel, (1,), "SAME", rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
    )
    return y + bias[None, None]


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_values_and_gradients_are_those_of_the_convolution(width, dilation):
    given = draw(0, 2, 9, 3), draw(1, width, 3, 4), draw(2, 4)
    got, pull_got = jax.vjp(lambda *a: conv1d(*a, dilation=dilation), *given)
    want, pull_want = jax.vjp(lambda *a: reference(*a, dilation), *given)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    for name, a, b in zip(("x", "kernel", "bias"), pull_got(got), pull_want(got), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_single_frame_sees_the_middle_of_the_kernel():
    x, kernel = draw(0, 2, 1, 3), draw(1, 3, 3, 4)
    np.testing.assert_allclose(conv1d(x, kernel, dilation=4), x @ kernel[1][None], atol=1e-6)


def test_half_precision_stays_half():
    x, kernel, bias = draw(0, 2, 9, 8), draw(1, 3, 8, 4), draw(2, 4)
    half = conv1d(*(a.astype(jnp.bfloat16) for a in (x, kernel, bias)))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, reference(x, kernel, bias, 1), atol=0.2)
