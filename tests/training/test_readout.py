import numpy as np
import pytest

from jfusion.config import Classes, Embedding, MultiLabel, Regression
from jfusion.training import readout

LABELS = ("no", "yes")
NONE = {}


def test_probabilities_of_large_logits_are_finite():
    outputs = np.array([[-1e4, 0, 1e4]], np.float32)
    found = readout.predicted(MultiLabel(column="genres"), outputs)
    np.testing.assert_array_equal(found, [[0, 0.5, 1]])
    assert found.dtype == np.float32
    found = readout.predicted(Classes(column="kind"), outputs)
    np.testing.assert_allclose(found, [[0, 0, 1]], atol=1e-6)


def test_values_and_joint_vectors():
    np.testing.assert_array_equal(
        readout.predicted(Regression(column="phq8"), np.array([[3.0], [4.0]])), [3, 4]
    )
    vectors = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(readout.predicted(Embedding(), vectors), [[0.0, 1.0], [6.0, 7.0]])


def test_an_embedding_has_no_scores():
    assert readout.scores(Embedding(), np.ones((2, 3)), np.zeros((2, 2), np.int32)) == {}


@pytest.mark.parametrize(
    ("target", "prediction", "facts", "expected"),
    [
        (
            MultiLabel(column="x", threshold=0.4),
            np.array([0.3, 0.45], np.float32),
            NONE,
            {"t": ["yes"], "t/no": 0.3, "t/yes": 0.45},
        ),
        (
            Classes(column="x"),
            np.array([0.75, 0.25], np.float32),
            NONE,
            {"t": "no", "t/no": 0.75, "t/yes": 0.25},
        ),
        (Regression(column="x"), np.float32(7.1), NONE, {"t": 7.1}),
        (
            Regression(column="x", cut=(10.0,)),
            np.float32(10.0),
            {"radius": 2.5},
            {"t": 10.0, "t/low": 7.5, "t/high": 12.5, "t/positive": True},
        ),
        (Embedding(), np.array([0.6, 0.8], np.float32), NONE, {"t": [0.6, 0.8]}),
    ],
)
def test_columns_of_a_row(target, prediction, facts, expected):
    assert readout.columns("t", target, LABELS, prediction, facts) == expected
    nothing = readout.columns("t", target, LABELS, None, facts)
    assert nothing == dict.fromkeys(expected), "the same columns where nothing was predicted"
