import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.models import heads
from jfusion.models.encoded import Fused

FUSED = Fused(
    joint=jax.random.normal(jax.random.key(0), (5, 8)),
    each={name: jax.random.normal(jax.random.key(i), (5, 8)) for i, name in enumerate("vat", 1)},
    weights={},
)


def made(spec, **types):
    return heads.build(spec, 8, rngs=nnx.Rngs(params=0), **types)


def test_logits():
    head = made({"kind": "logits", "outputs": 3})
    expected = FUSED.joint @ head.kernel[...] + head.bias[...][None]
    np.testing.assert_allclose(head(FUSED), expected, atol=1e-6)


def test_a_value_is_on_the_targets_own_scale():
    head = made({"kind": "value", "centre": 7.0, "spread": 5.0})
    linear = FUSED.joint @ head.kernel[...] + head.bias[...][None]
    assert head(FUSED).shape == (5, 1)
    np.testing.assert_allclose(head(FUSED), 7 + 5 * linear, rtol=1e-5)
    head.kernel[...] *= 0
    np.testing.assert_array_equal(head(FUSED), np.full((5, 1), 7.0))


def test_vectors_have_length_1_and_go_by_name():
    head = made({"kind": "vectors", "outputs": 4})
    vectors = head(FUSED)
    assert vectors.shape == (5, 4, 4)
    np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
    for place, part in enumerate((FUSED.joint, *(FUSED.each[name] for name in "atv"))):
        x = part @ head.kernel[...] + head.bias[...][None]
        expected = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        np.testing.assert_allclose(vectors[:, place], expected, atol=1e-5)
    alone = head(FUSED._replace(each={}))
    np.testing.assert_allclose(alone, vectors[:, :1], atol=1e-6)


def test_a_vector_of_nothing_has_a_gradient():
    head = made({"kind": "vectors", "outputs": 4})
    nothing = FUSED._replace(joint=jnp.zeros((5, 8)))
    gradient = jax.grad(lambda x: head(nothing._replace(joint=x)).sum())(nothing.joint)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("kind", ["logits", "value", "vectors"])
def test_outputs_are_float32_whatever_is_computed_with(kind):
    numbers = {"value": {"centre": 1.0, "spread": 2.0}}.get(kind, {"outputs": 3})
    assert made({"kind": kind, **numbers}, dtype=jnp.bfloat16)(FUSED).dtype == jnp.float32
