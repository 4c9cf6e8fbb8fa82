"""Over several devices the statistics are those of the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from jfusion.models.batch_norm import BatchNorm
from jfusion.training import sharding

ROOT = Path(__file__).parents[2]


def differences():
    """How far a pass over all devices is from one over a single device, and how many there are."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3, 5)).astype(np.float32)
    # The devices have different numbers of rows that count, one of them none.
    rows = np.array([1, 1, 1, 0, 1, 1, 0, 0], np.float32)
    graph, params, stats = nnx.split(BatchNorm(5), nnx.Param, nnx.BatchStat)
    stats = nnx.to_pure_dict(stats)

    @jax.jit
    def one_pass(x, rows):
        def loss(x):
            norm = nnx.merge(graph, params, stats)
            y = norm(x, rows)
            return (jnp.sin(y) * rows[:, None, None]).sum(), (y, norm.mean[...], norm.var[...])

        return jax.grad(loss, has_aux=True)(x)

    split = NamedSharding(sharding.make_mesh(), PartitionSpec("data"))
    alone = one_pass(x, rows)
    together = one_pass(*(jax.device_put(a, split) for a in (x, rows)))
    pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True)
    return max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs), jax.device_count()


def test_the_statistics_are_those_of_the_whole_batch():
    program = "from tests.models.test_batch_norm_devices import differences; print(*differences())"
    out = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ
        | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    difference, devices = out.split()[-2:]
    assert float(difference) < 1e-5 and devices == "4"
