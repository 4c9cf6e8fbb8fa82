import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.ops.masked_mean import masked_mean


@pytest.mark.parametrize("of_elements", [True, False])
def test_it_is_the_mean_of_what_is_marked(of_elements):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 3)).astype(np.float32)
    mask = rng.random((4, 6, 3)) < 0.5 if of_elements else rng.random((4, 6)) < 0.5
    mask[1] = False
    full = np.broadcast_to(mask if of_elements else mask[..., None], x.shape)
    got = np.asarray(masked_mean(x, mask))
    for row in (0, 2, 3):
        for feature in range(3):
            marked = x[row, full[row, :, feature], feature]
            want = marked.mean() if len(marked) else 0
            np.testing.assert_allclose(got[row, feature], want, atol=1e-6)
    assert not got[1].any()
    dirty = np.where(full, x, np.nan)
    np.testing.assert_array_equal(masked_mean(dirty, mask), got)
    gradient = jax.grad(lambda x: jnp.sin(masked_mean(x, mask)).sum())(dirty)
    assert np.isfinite(gradient).all() and not gradient[~full].any() and gradient[full].all()


def test_half_precision_is_summed_in_float32():
    ones = jnp.ones((1, 4096, 1), jnp.bfloat16)  # bfloat16 counts to 256
    mean = masked_mean(ones, jnp.ones((1, 4096), bool))
    assert mean.dtype == jnp.bfloat16 and mean[0, 0] == 1
