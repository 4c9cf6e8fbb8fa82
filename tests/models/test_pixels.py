import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.models.pixels import Pixels
from tests.modules import run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(rows=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 4, 6, 3)).astype(np.uint8)


def normalised(x):
    return (x / 255 - np.array(MEAN)) / np.array(STD)


def prepared(x, flip=0.0, dtype=jnp.float32, seed=None):
    """What `Pixels` makes of pictures; with a seed, in training."""
    pixels = nnx.view(Pixels(MEAN, STD, flip, dtype=dtype), deterministic=True)
    return np.asarray(run(pixels, x, seed=seed))


def test_every_byte_is_normalised():
    x = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 1, 1, 3))
    result = prepared(x)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, normalised(x), atol=2e-6)
    # By hand: black and white, red channel.
    np.testing.assert_allclose(result[[0, 255], 0, 0, 0], [-2.1179039, 2.2489083], atol=2e-6)


def test_half_precision_is_rounded_once():
    x = pictures()
    np.testing.assert_array_equal(prepared(x, dtype=jnp.bfloat16), prepared(x).astype(jnp.bfloat16))


@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_evaluation_never_flips(flip):
    np.testing.assert_allclose(prepared(pictures(), flip), normalised(pictures()), atol=2e-6)


def test_a_flip_is_a_mirror_image_picture_by_picture():
    x = pictures()
    plain, mirrored = prepared(x), prepared(x[:, :, ::-1])
    result = prepared(x, flip=0.5, seed=0)
    flipped = (result == mirrored).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(flipped, ~(result == plain).all(axis=(1, 2, 3)))
    assert 0.25 < flipped.mean() < 0.75
    np.testing.assert_array_equal(prepared(x, flip=1.0, seed=0), mirrored)
    np.testing.assert_array_equal(prepared(x, flip=0.0, seed=0), plain)


def test_flips_are_drawn_from_the_key():
    x = pictures()
    one, same, other = (prepared(x, flip=0.5, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_flips_happen_as_often_as_asked():
    x = np.zeros((4000, 1, 2, 3), np.uint8)
    x[:, :, 1] = 255
    flipped = prepared(x, flip=0.2, seed=0)[:, 0, 0, 0] > 0
    assert abs(flipped.mean() - 0.2) < 5 * (0.16 / 4000) ** 0.5


def test_flipping_needs_a_key():
    with pytest.raises(ValueError, match="rngs"):
        nnx.view(Pixels(MEAN, STD, 0.5), deterministic=False)(pictures())
