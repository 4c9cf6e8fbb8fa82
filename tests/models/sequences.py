"""Random sequences with holes, for the tests of the networks that read them."""

import numpy as np

FEATURES = 5


def sequences(rows=6, steps=12, seed=0):
    """Frames with holes of every kind: of a feature, of frames, at the end, and a whole row."""
    rng = np.random.default_rng(seed)
    valid = rng.random((rows, steps, FEATURES)) < 0.8
    valid &= rng.random((rows, steps, 1)) < 0.8
    valid[0] = False
    valid[1, steps // 2 :] = False
    valid[2] = True
    valid[2, 0] = False
    frames = rng.normal(size=valid.shape).astype(np.float32)
    return {"frames": np.where(valid, frames, 0), "valid": valid}


def with_garbage(inputs, value):
    """The same sequences with something else where they are not valid."""
    return {**inputs, "frames": np.where(inputs["valid"], inputs["frames"], np.float32(value))}


def appended(inputs, steps):
    """The same sequences with frames after their end that are not there."""
    return {key: np.pad(x, ((0, 0), (0, steps), (0, 0))) for key, x in inputs.items()}
