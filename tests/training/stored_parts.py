"""What one of several processes, each with a disk of its own, does with checkpoints in a bucket."""

import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jfusion import processes
from jfusion.bucket import Folder
from jfusion.training import sharding
from jfusion.training.checkpoint import Checkpoints, Progress
from jfusion.training.state import State

PARTS = {"split": PartitionSpec("data"), "columns": PartitionSpec(None, "data")}


class Position:
    """A data iterator that is nothing but a number."""

    def __init__(self, step):
        self.step = step

    def get_state(self):
        return {"step": self.step}

    def set_state(self, state):
        self.step = state["step"]


def values(step):
    """The state as plain arrays."""
    rng = np.random.default_rng(step)
    return State(
        step=np.int32(step),
        params={
            "split": rng.normal(size=(8, 5)).astype(np.float32),
            "columns": rng.normal(size=(3, 8)).astype(np.float32),
            "whole": rng.normal(size=(4, 3)).astype(np.float32),
            "odd": rng.normal(size=(5,)).astype(np.float32),
            "zeros": np.zeros((8, 2), np.float32),
        },
        frozen={"split": np.random.default_rng(99).normal(size=(8, 6)).astype(np.float32)},
        stats={},
        opt_state={"adam": {}, "average": {}, "scale": {}},
    )


def placed(step):
    """The same on the devices of all processes."""
    mesh = sharding.make_mesh()
    tree = values(step)
    places = sharding.placement(tree, mesh, PARTS)

    def place(x, where: NamedSharding):
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, where, lambda index: host[index])

    return jax.tree.map(place, tree, places)


def abstract(progress=None):
    """Shapes, types and placement."""
    tree = placed(0)
    return sharding.abstract(tree, jax.tree.map(lambda x: x.sharding, tree))


def work(url, *steps):
    """Restores the newest checkpoint, saves some more, and says what was restored."""
    said, folder = [], Path(tempfile.mkdtemp()) / "checkpoints"
    checkpoints = Checkpoints(folder, 1, said.append, Folder(url))
    found = checkpoints.restore_newest(abstract, lambda progress: Position(-1))
    if found:
        state, position, progress = found
        check(state, position.step)
        said.append(f"restored {position.step}, best {progress.best_step}")
    for step in steps:
        checkpoints.save(step, placed(step), Position(step), Progress(best_step=steps[0]))
    checkpoints.wait()
    if steps:  # what this process has written itself is a part only
        check(checkpoints.restore_state(steps[0], 0, abstract()), steps[0])
    checkpoints.close()
    return said


def check(state, step):
    """Compares a restored state with what was saved, bit by bit."""
    found = sharding.fetch(state)
    jax.tree.map(np.testing.assert_array_equal, found, values(step))


if __name__ == "__main__":
    processes.join(20)
    print(json.dumps(work(sys.argv[1], *map(int, sys.argv[2:]))))
