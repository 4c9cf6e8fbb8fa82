import jax
import numpy as np
from flax import nnx

from jfusion.models.mean_pool import MeanPool
from tests.models.sequences import FEATURES, sequences
from tests.modules import run


def test_it_is_the_mean_of_each_feature_over_the_frames_in_which_it_is_valid():
    inputs = sequences()
    inputs["valid"][3, :, 1] = False  # a feature that is never valid
    model = MeanPool(FEATURES)
    pooled = run(model, inputs).pooled
    assert model.width == FEATURES and not jax.tree.leaves(nnx.state(model))
    for row in range(6):
        for feature in range(FEATURES):
            valid = inputs["valid"][row, :, feature]
            values = inputs["frames"][row, valid, feature]
            expected = values.mean() if valid.any() else 0
            np.testing.assert_allclose(pooled[row, feature], expected, atol=1e-6)
    assert pooled[3, 1] == 0 and pooled[3, 0] != 0


def test_the_tokens_are_the_frames():
    inputs = sequences()
    np.testing.assert_array_equal(run(MeanPool(FEATURES), inputs).tokens, inputs["frames"])
