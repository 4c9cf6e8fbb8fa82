import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jfusion.ops import depthwise
from jfusion.ops.depthwise import depthwise_conv2d

CASES = [
    # shape of x, kernel, strides, padding
    ((2, 9, 11, 5), (7, 7), (1, 1), ((3, 3), (3, 3))),
    ((1, 3, 4, 8), (7, 7), (1, 1), ((3, 3), (3, 3))),
    ((3, 8, 6, 3), (3, 3), (2, 2), ((0, 1), (1, 0))),
    ((2, 7, 10, 4), (5, 3), (2, 1), ((2, 2), (1, 1))),
    ((2, 8, 21, 4), (3, 3), (3, 2), ((1, 0), (1, 1))),  # the last pixels of H are not seen
    ((2, 6, 5, 4), (3, 2), (1, 1), ((0, 0), (0, 0))),
    ((2, 6, 5, 4), (3, 3), (1, 1), ((4, 3), (0, 5))),
    ((2, 1, 13, 16), (1, 5), (1, 1), ((0, 0), (4, 0))),
    ((1, 4, 4, 1), (1, 1), (3, 3), ((0, 0), (0, 0))),
    # MobileNetV2's and EfficientNet's steps, over maps of even and odd size.
    ((2, 8, 9, 6), (3, 3), (2, 2), ((0, 1), (1, 1))),
    ((2, 8, 9, 6), (5, 5), (2, 2), ((1, 2), (2, 2))),
    ((2, 1, 2, 6), (5, 5), (2, 2), ((2, 2), (1, 2))),
    ((5, 14, 13, 20), (3, 7), (1, 1), ((1, 1), (3, 3))),
]


@functools.partial(jax.jit, static_argnums=(2, 3))
def reference(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision="highest",
    )


def draw(shape, taps, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape), dtype)
    return x, jnp.asarray(rng.standard_normal((*taps, 1, shape[-1])), dtype)


@pytest.mark.parametrize(("shape", "taps", "strides", "padding"), CASES)
def test_equals_grouped_convolution_with_gradients(shape, taps, strides, padding):
    x, kernel = draw(shape, taps)

    def ours(x, kernel):
        return depthwise_conv2d(x, kernel, strides=strides, padding=padding)

    want, pull_want = jax.vjp(lambda x, k: reference(x, k, strides, padding), x, kernel)
    got, pull_got = jax.vjp(jax.jit(ours), x, kernel)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(want.shape), jnp.float32)
    for name, a, b in zip(("x", "kernel"), pull_got(weight), pull_want(weight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=f"gradient of {name}")


def test_accelerators_get_the_convolution(monkeypatch):
    shape, taps, strides, padding = CASES[0]
    x, kernel = draw(shape, taps)
    here = jax.make_jaxpr(lambda *a: depthwise_conv2d(*a, strides=strides, padding=padding))
    assert "conv_general_dilated" not in str(here(x, kernel))
    monkeypatch.setattr(depthwise.jax, "default_backend", lambda: "gpu")
    there = depthwise_conv2d(x, kernel, strides=strides, padding=padding)
    np.testing.assert_array_equal(there, reference(x, kernel, strides, padding))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_its_dtype_and_is_near_float32(dtype):
    x, kernel = draw((2, 9, 8, 16), (7, 7), dtype)

    @jax.jit
    def loss(x, kernel):
        y = depthwise_conv2d(x, kernel, padding=((3, 3), (3, 3)))
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    (_, y), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, kernel)
    assert y.dtype == dtype and all(g.dtype == dtype for g in grads)
    x32, kernel32 = x.astype(jnp.float32), kernel.astype(jnp.float32)
    want = reference(x32, kernel32, (1, 1), ((3, 3), (3, 3)))
    np.testing.assert_allclose(y.astype(jnp.float32), want, rtol=0.05, atol=0.3)


def test_vmap_equals_a_loop():
    x, kernel = draw((3, 5, 6, 4), (3, 3))
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])

    @jax.jit
    def one(x, kernel):
        return depthwise_conv2d(x[None], kernel, padding=((1, 1), (1, 1)))[0]

    got = jax.vmap(one)(x, kernels)
    want = jnp.stack([one(a, b) for a, b in zip(x, kernels, strict=True)])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
