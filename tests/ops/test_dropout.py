import jax
import numpy as np
import pytest

from jfusion.ops.dropout import keep_mask


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
def test_each_element_stays_with_the_given_probability(rate):
    draw = jax.jit(jax.vmap(lambda key: keep_mask(key, rate, (8, 33))))
    kept = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    deviation = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) <= 4 * deviation
    each = kept.mean(axis=0)
    np.testing.assert_allclose(each, 1 - rate, atol=6 * np.sqrt(rate * (1 - rate) / 4000))


def test_elements_are_independent():
    kept = np.asarray(keep_mask(jax.random.key(1), 0.5, (50_000, 6))).astype(float)
    correlation = np.corrcoef(kept, rowvar=False)
    np.testing.assert_allclose(correlation, np.eye(6), atol=0.03)


def test_the_key_decides():
    first, again, other = (
        np.asarray(keep_mask(jax.random.key(seed), 0.3, (64,))) for seed in (0, 0, 1)
    )
    assert (first == again).all() and (first != other).any()
