import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.ops.fence import stored


def test_what_is_stored_is_as_it_was_with_its_gradient():
    x = jnp.arange(6.0).reshape(2, 3)

    def plain(x):
        return jnp.sin(x), {"sum": x.sum(axis=0)}

    got, pull_got = jax.vjp(jax.jit(lambda x: stored(lambda: plain(x))), x)
    want, pull_want = jax.vjp(plain, x)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    np.testing.assert_array_equal(pull_got(want)[0], pull_want(want)[0])


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="others compute it in place")
def test_the_compiler_leaves_it_apart():
    """It must not find out that there is no choice, and take what is stored into other loops."""
    program = jax.jit(lambda x: stored(lambda: jnp.sin(x)) * 2)
    assert " conditional(" in program.lower(jnp.ones((64, 64))).compile().as_text()


def test_other_backends_take_it_as_it_is(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "cond" not in str(jax.make_jaxpr(lambda x: stored(lambda: jnp.sin(x)))(1.0))
