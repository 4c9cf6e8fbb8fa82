import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jfusion.config import ConfigError, MultiLabel, Phase, Train
from jfusion.training import evaluation, losses, sharding, steps
from tests import tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("size", "parts", "devices", "message"),
    [
        (30, 1, 8, "30 rows do not divide over 8 devices; the nearest that do: 24 and 32"),
        (30, 4, 2, "30 rows do not divide over 2 devices in 4 parts; the nearest that do: 24 and"),
        (3, 1, 8, "3 rows do not divide over 8 devices; the nearest that do: 8"),
        (4, 4, 2, "4 rows do not divide over 2 devices in 4 parts; the nearest that do: 8"),
    ],
)
def test_a_batch_size_that_does_not_divide(size, parts, devices, message):
    with pytest.raises(ConfigError) as caught:
        sharding.check_batch_size("train.batch_size", size, parts, SimpleNamespace(size=devices))
    assert str(caught.value).startswith(f"config.train.batch_size: {message}")
    assert not str(caught.value).endswith("and")


@pytest.mark.parametrize(
    ("size", "parts", "devices"), [(32, 1, 8), (32, 4, 8), (5, 5, 1), (7, 1, 1)]
)
def test_a_batch_size_that_divides(size, parts, devices):
    sharding.check_batch_size("train.batch_size", size, parts, SimpleNamespace(size=devices))


def train_two_steps():
    """Losses and logits of a tiny model, trained over all devices there are; and how many."""
    train = Train(phases=(Phase(epochs=1),), batch_size=8, accumulate=2)
    network, state, step = tiny.setup(train)
    mesh = sharding.make_mesh()
    state = sharding.replicate(state, mesh)
    found = []
    for i in range(2):
        host = tiny.batch(8, padding=i, seed=i) | {"row": np.arange(8)}
        batch, rows = sharding.place_batch(host, mesh)
        np.testing.assert_array_equal(rows, np.arange(8))
        assert all(len(x.sharding.device_set) == mesh.size for x in jax.tree.leaves(batch))
        pixels = batch["inputs"]["poster"]["pixels"]
        assert pixels.addressable_shards[0].data.shape[0] == 8 // mesh.size
        state, scalars = step(state, batch, jax.random.key(0))
        found.append(float(scalars["loss"]))
    leaves = jax.tree.leaves(state)
    assert all(leaf.sharding.is_fully_replicated for leaf in leaves)
    abstract = jax.tree.leaves(sharding.abstract(state, mesh))
    for leaf, shape in zip(leaves, abstract, strict=True):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)

    loss = {"genres": losses.build(MultiLabel(column="genres"))}
    host = tiny.batch(8, padding=2) | {"row": np.array([*range(6), -1, -1])}
    eval_step = steps.make_eval_step(network, loss)
    outputs = evaluation.run(eval_step, state.evaluated, state.stats, [host], mesh)
    return {
        "devices": mesh.size,
        "losses": found,
        "rows": outputs.rows.tolist(),
        "logits": outputs.heads["genres"].tolist(),
    }


def test_four_devices_train_as_one_does():
    program = (
        "import json; from tests.training.test_sharding import train_two_steps;"
        "print(json.dumps(train_two_steps()))"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    four, one = json.loads(result.stdout), train_two_steps()
    assert (four["devices"], one["devices"]) == (4, 1)
    assert four["rows"] == one["rows"] == list(range(6))
    np.testing.assert_allclose(four["losses"], one["losses"], atol=1e-5)
    np.testing.assert_allclose(four["logits"], one["logits"], atol=1e-3)
