"""What devices tell each other in the compiled step, and what each of them holds.

On the CPU a sum of which each device keeps a part is an all-reduce with a slice after it; GPU and
TPU have passes that make a reduce-scatter of the two.
"""

import math

import jax
import numpy as np
import pytest

from benchmarks import collectives
from jfusion import config
from jfusion.config import MultiLabel, Phase, Train
from jfusion.training import losses, optim, sharding, steps
from tests import tiny
from tests.training import devices

_ROWS = 16


def compiled(data, fsdp, accumulate=1):
    """The exchanges of the tiny model's step, its parameters, and the bytes of its state."""
    section = config.Mesh(data=data, fsdp=fsdp, min_size=64)
    mesh = sharding.make_mesh(section, jax.devices()[: data * fsdp])
    rates = (("encoders/poster/.*stages.*", 0.0), (".*", 1e-3))
    train = Train(phases=(Phase(epochs=1),), batch_size=_ROWS, accumulate=accumulate, ema=0.9)
    network, state, _ = tiny.setup(train, rates=rates)
    specs = sharding.split(network.params, section, mesh)
    places = sharding.placement(state, mesh, specs)
    peak = optim.peak_rates(Phase(epochs=1, rates=rates), network.params)
    tx = optim.adamw(train, peak, lambda step: 1.0)
    loss = {"genres": losses.build(MultiLabel(column="genres"))}
    step = steps.make_train_step(network, loss, train, tx, places)
    state = jax.device_put(state, places)
    batch, _ = sharding.place_batch(tiny.batch(_ROWS) | {"row": np.arange(_ROWS)}, mesh)
    program = step.lower(state, batch, jax.random.key(0)).compile()
    shapes = {path: x.shape for path, x in network.params.items()}
    local = [x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state)]
    return {
        "exchanged": [part[:2] for part in collectives.exchanges(program.as_text())],
        "trained": sum(x.size for x in state.params.values()),
        "split": sorted(shapes[path] for path in specs),
        "whole": sum(math.prod(shape) for path, shape in shapes.items() if path not in specs),
        "held": sum(map(math.prod, local)),
        "total": sum(x.size for x in jax.tree.leaves(state)),
        "arguments": program.memory_analysis().argument_size_in_bytes,
    }


def several():
    """`compiled` for copies of the state, and for two copies in four parts each."""
    return [compiled(4, 1), compiled(2, 4, accumulate=2)]


@pytest.fixture(scope="module")
def programs():
    return devices.call(8, "tests.training.test_compiled_step.several")


def numbers(exchanged, operation):
    return sum(math.prod(s) for name, shapes in exchanged if name == operation for s in shapes)


def test_copies_of_the_state_exchange_the_gradients_in_one_sum_and_nothing_else(programs):
    exchanged, trained = programs[0]["exchanged"], programs[0]["trained"]
    assert {operation for operation, _ in exchanged} == {"all-reduce"}
    largest = max(sum(map(math.prod, shapes)) for _, shapes in exchanged)
    assert trained <= largest  # all gradients together
    assert numbers(exchanged, "all-reduce") - trained <= 4  # loss, weights of the rows, ...
    assert programs[0]["split"] == []


def test_parts_of_the_state_are_gathered_one_by_one_and_no_activation_is(programs):
    found = programs[1]
    assert {operation for operation, _ in found["exchanged"]} == {"all-reduce", "all-gather"}
    gathered = [shapes for operation, shapes in found["exchanged"] if operation == "all-gather"]
    assert all(len(shapes) == 1 for shapes in gathered)
    assert sorted(shapes[0] for shapes in gathered) == found["split"]
    assert len(found["split"]) > 5
    # The gradients once, whatever the number of parts of the batch; scalars of norm and loss.
    summed = numbers(found["exchanged"], "all-reduce")
    assert 0 <= summed - found["trained"] < 50


def test_what_a_device_holds_falls_with_the_devices(programs):
    whole, quarter = programs
    assert whole["held"] == whole["total"]
    # A parameter that is too small to split is whole, and so are its moments and its average.
    assert quarter["held"] <= quarter["total"] / 4 + 4 * quarter["whole"] + 10
    assert quarter["held"] < 1.25 * quarter["total"] / 4
    # The compiled program takes no more than that, and the batch.
    rows = whole["arguments"] - 4 * whole["held"]
    assert quarter["arguments"] <= 4 * quarter["held"] + rows
