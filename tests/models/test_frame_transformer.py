import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.frame_transformer import FrameTransformer
from tests.models.sequences import FEATURES, sequences
from tests.modules import drawn, run

SIZES = dict(width=16, layers=2, heads=2, hidden=32, max_steps=12)


def a_network(**changes):
    return drawn(lambda: FrameTransformer(FEATURES, **{**SIZES, **changes}, rngs=nnx.Rngs(0)))


def test_frames_are_known_by_their_positions():
    inputs = {"frames": np.ones((1, 12, FEATURES), np.float32)}
    inputs["valid"] = np.ones((1, 12, FEATURES), bool)
    model = a_network()
    tokens = run(model, inputs).tokens[0]
    assert not np.allclose(tokens[0], tokens[5], atol=1e-4)
    model.positions.embedding[...] *= 0
    tokens = run(model, inputs).tokens[0]
    np.testing.assert_allclose(tokens, np.repeat(tokens[:1], 12, axis=0), atol=1e-6)


def test_every_frame_sees_every_other():
    model = a_network(layers=1)
    for kernel in (model.projection.kernel, model.layers[0].attention.value.kernel):
        kernel[...] *= 20
    inputs = sequences(rows=3)
    inputs["valid"][2] = True
    moved = inputs["frames"].copy()
    moved[2, 11] += 1
    one, other = run(model, inputs).tokens, run(model, {**inputs, "frames": moved}).tokens
    np.testing.assert_array_equal((np.asarray(one) != np.asarray(other)).any(axis=-1)[2], True)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"13 frames.*12 positions.*max_steps"):
        run(a_network(), sequences(steps=13))
    with pytest.raises(ValueError, match="16 is not a multiple of heads=3"):
        a_network(heads=3)


def test_the_full_size():
    model = nnx.eval_shape(lambda: FrameTransformer(74, rngs=nnx.Rngs(0)))
    params = trees.flatten(nnx.to_pure_dict(nnx.state(model)))
    layer = 4 * 256 * 256 + 3 * 256 + 2 * 256 * 512 + 512 + 256 + 4 * 256
    assert trees.size(params) == 75 * 256 + 1000 * 256 + 2 * layer + 2 * 256
