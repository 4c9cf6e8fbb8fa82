import jax
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jfusion import trees
from jfusion.models.temporal_cnn import TemporalCNN
from tests.models.sequences import FEATURES, sequences
from tests.modules import drawn, run


def a_network(width=16, **sizes):
    return drawn(lambda: TemporalCNN(FEATURES, width, **sizes, rngs=nnx.Rngs(0)))


def by_hand(model, inputs, dilations):
    """The network in other words: convolutions of XLA, normalisation by NumPy."""
    mask = inputs["valid"].any(axis=-1)[..., None]
    x = inputs["frames"]
    for block, dilation in zip(model.blocks, dilations, strict=True):
        y = lax.conv_general_dilated(
            x,
            block.conv.kernel[...],
            (1,),
            "SAME",
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        y = np.asarray(y) + np.asarray(block.conv.bias[...])
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        y = np.maximum(y * np.asarray(block.norm.scale[...]) + np.asarray(block.norm.bias[...]), 0)
        if block.projection is not None:
            x = x @ np.asarray(block.projection.kernel[...])
        x = np.where(mask, x + y, 0)
    return x


def test_it_is_what_it_says():
    model, inputs = a_network(dilations=(1, 2, 4)), sequences()
    for block in model.blocks:
        block.conv.bias[...] += np.linspace(-0.1, 0.1, 16)
        block.norm.bias[...] += np.linspace(-0.3, 0.3, 16)
    expected = by_hand(model, inputs, (1, 2, 4))
    encoded = run(model, inputs)
    np.testing.assert_allclose(encoded.tokens, expected, atol=1e-4)
    mean = expected[1:].sum(axis=1) / inputs["valid"].any(axis=-1)[1:].sum(axis=1)[:, None]
    np.testing.assert_allclose(encoded.pooled[1:], mean, atol=1e-4)


@pytest.mark.parametrize(("dilations", "reach"), [((1,), 1), ((1, 2), 3), ((1, 2, 4), 7)])
def test_a_frame_reaches_as_far_as_the_dilations_say_both_ways(dilations, reach):
    model = a_network(dilations=dilations)
    inputs = {"frames": np.ones((1, 21, FEATURES), np.float32), "valid": np.ones((1, 21, 5), bool)}
    moved = inputs["frames"].copy()
    moved[0, 10, 0] = 3
    one, other = run(model, inputs).tokens, run(model, {**inputs, "frames": moved}).tokens
    changed = (np.asarray(one) != np.asarray(other)).any(axis=-1)[0]
    np.testing.assert_array_equal(np.flatnonzero(changed)[[0, -1]], [10 - reach, 10 + reach])


def test_a_projection_stands_only_where_widths_differ():
    projections = [block.projection is not None for block in a_network().blocks]
    assert projections == [True, False, False]
    assert not any(block.projection is not None for block in a_network(width=FEATURES).blocks)


def test_a_network_without_blocks_is_refused():
    with pytest.raises(ValueError, match="dilations is empty"):
        a_network(dilations=())


@pytest.mark.parametrize(("features", "count"), [(74, 1_729_536), (10, 1_598_464)])
def test_the_full_sizes(features, count):
    model = nnx.eval_shape(lambda: TemporalCNN(features, rngs=nnx.Rngs(0)))
    params = trees.flatten(nnx.to_pure_dict(nnx.state(model)))
    assert {path: params[path].shape for path in params if path.endswith("conv/kernel")} == {
        "blocks/0/conv/kernel": (3, features, 512),
        "blocks/1/conv/kernel": (3, 512, 512),
        "blocks/2/conv/kernel": (3, 512, 512),
    }
    assert trees.size(params) == count


def test_it_starts_with_signals_of_one_size():
    params = jax.jit(
        lambda: nnx.to_pure_dict(nnx.state(TemporalCNN(FEATURES, 64, rngs=nnx.Rngs(0))))
    )()
    for path, leaf in trees.flatten(params).items():
        if path.endswith("scale"):
            assert (leaf == 1).all(), path
        elif path.endswith("bias"):
            assert not leaf.any(), path
        else:
            bound = np.prod(leaf.shape[:-1]) ** -0.5
            assert 0.9 * bound < np.abs(leaf).max() <= bound, path
