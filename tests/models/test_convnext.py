import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion import trees
from jfusion.models.convnext import ConvNeXt, Layer
from tests.modules import drawn, run

TINY = dict(hidden_sizes=(8, 12), depths=(1, 1), layer_scale_init_value=1.0)


def tiny(**changes):
    return drawn(lambda: ConvNeXt(**{**TINY, **changes}, rngs=nnx.Rngs(0)))


def pictures(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)


def test_tokens_are_the_places_of_the_last_map():
    model = tiny()
    encoded = run(model, {"pixels": pictures(2, 24, 40)})
    assert encoded.tokens.shape == (2, 3 * 5, 12)
    assert encoded.mask.shape == (2, 15) and encoded.mask.all()
    assert encoded.pooled.shape == (2, model.width)
    mean = run(model.layernorm, encoded.tokens.mean(axis=1))
    np.testing.assert_allclose(encoded.pooled, mean, atol=1e-6)


def test_pixels_that_fill_no_patch_are_left_out():
    model, x = tiny(), pictures(1, 27, 31)
    cut = run(model, {"pixels": x[:, :24, :28]})
    np.testing.assert_array_equal(run(model, {"pixels": x}).tokens, cut.tokens)


def test_bfloat16_is_near_float32():
    # Logits as large as those of a fresh head (0.02) over 768 features.
    head = np.random.default_rng(1).normal(size=(12, 5)) * 0.02 * (768 / 12) ** 0.5
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = tiny(dtype=dtype)
        encoded = run(model, {"pixels": pictures(8, 32, 32)})
        assert encoded.tokens.dtype == encoded.pooled.dtype == dtype
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model)))
        logits[dtype] = np.asarray(encoded.pooled, np.float32) @ head
    assert np.abs(logits[jnp.float32]).max() > 0.5
    np.testing.assert_allclose(logits[jnp.bfloat16], logits[jnp.float32], atol=1e-2)


def test_parameters_can_be_kept_in_another_type():
    leaves = jax.tree.leaves(nnx.state(tiny(param_dtype=jnp.bfloat16)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}


def test_drop_path_leaves_out_a_whole_block_of_a_row():
    types = dict(dtype=jnp.float32, param_dtype=jnp.float32)
    layer = drawn(lambda: Layer(8, 0.25, 1.0, **types, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(400, 4, 4, 8)).astype(np.float32)

    branch, trained = run(layer, x) - x, run(layer, x, seed=3) - x

    dropped = (trained == 0).all(axis=(1, 2, 3))
    assert 0.17 < dropped.mean() < 0.33
    np.testing.assert_allclose(trained[~dropped], branch[~dropped] / 0.75, atol=1e-5)


def test_drop_path_rises_from_the_first_block_to_the_last():
    model = tiny(depths=(2, 3), drop_path_rate=0.4)
    rates = [layer.drop_path.rate for stage in model.encoder.stages for layer in stage.layers]
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_acts_in_training_only():
    model, inputs = tiny(drop_path_rate=0.9), {"pixels": pictures(8, 16, 16)}
    evaluation = run(model, inputs).pooled
    one, other = run(model, inputs, seed=1).pooled, run(model, inputs, seed=2).pooled
    assert not np.allclose(one, other)
    assert not np.allclose(one, evaluation)
    with pytest.raises(ValueError, match="rngs"):
        run(nnx.view(model, deterministic=False), inputs)


def test_without_a_rate_training_equals_evaluation():
    model, inputs = tiny(), {"pixels": pictures(2, 16, 16)}
    np.testing.assert_array_equal(run(model, inputs, seed=1).pooled, run(model, inputs).pooled)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({}, 27_820_128),
        (dict(depths=(3, 3, 27, 3), hidden_sizes=(128, 256, 512, 1024)), 87_566_464),
    ],
    ids=["tiny", "base"],
)
def test_the_published_sizes_have_the_references_parameters(sizes, count):
    # 28,589,128 and 88,591,464 of the published networks, without classifiers to 1000 classes.
    state = nnx.state(nnx.eval_shape(lambda: ConvNeXt(**sizes, rngs=nnx.Rngs(0))))
    assert trees.size(trees.flatten(nnx.to_pure_dict(state))) == count


def test_layer_scale_can_be_absent():
    paths = trees.flatten(nnx.to_pure_dict(nnx.state(tiny(layer_scale_init_value=0.0))))
    assert not [path for path in paths if "layer_scale" in path]


def test_initialisation():
    @jax.jit
    def draw():
        sizes = {**TINY, "layer_scale_init_value": 1e-6}
        return nnx.to_pure_dict(nnx.state(ConvNeXt(**sizes, rngs=nnx.Rngs(0))))

    for path, leaf in trees.flatten(draw()).items():
        if path.endswith("scale"):
            assert (leaf == 1).all(), path
        elif path.endswith("layer_scale_parameter"):
            assert (leaf == np.float32(1e-6)).all(), path
        elif path.endswith("bias"):
            assert (leaf == 0).all(), path
        else:
            assert np.abs(leaf).max() <= 0.04 and 0.01 < leaf.std() < 0.03, path


def test_depths_and_widths_must_agree():
    with pytest.raises(ValueError, match=r"hidden_sizes=\(8, 12\) and depths=\(1,\)"):
        tiny(depths=(1,))
