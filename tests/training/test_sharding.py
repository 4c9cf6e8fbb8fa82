from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jfusion.config import ConfigError, Mesh, MultiLabel, Phase, Train
from jfusion.training import evaluation, losses, sharding, steps
from tests import tiny
from tests.training import devices


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


@pytest.mark.parametrize(
    ("section", "sizes"),
    [
        ({}, (8, 1)),
        ({"fsdp": 4}, (2, 4)),
        ({"data": 2, "fsdp": -1}, (2, 4)),
        ({"data": 1, "fsdp": 8}, (1, 8)),
    ],
)
def test_the_axes_of_a_mesh(section, sizes, monkeypatch):
    made = []
    monkeypatch.setattr(jax, "make_mesh", lambda *args, **kwargs: made.append((args, kwargs)))
    sharding.make_mesh(Mesh(**section), range(8))
    ((shape, axes, _), options) = made[0]
    assert (shape, axes, options) == (sizes, ("data", "fsdp"), {"devices": range(8)})


@pytest.mark.parametrize("section", [{"fsdp": 3}, {"data": 2, "fsdp": 2}, {"data": 16, "fsdp": -1}])
def test_a_mesh_of_another_number_of_devices(section):
    with pytest.raises(ConfigError, match=r"^config.mesh: mesh.data=.* does not fit 8 devices"):
        sharding.make_mesh(Mesh(**section), range(8))


PARAMS = {
    path: jax.ShapeDtypeStruct(shape, np.float32)
    for path, shape in {
        "a/kernel": (3, 3, 16, 64),
        "a/bias": (64,),
        "b/embedding": (1001, 32),
        "b/odd": (999, 33),
    }.items()
}


@pytest.mark.parametrize(
    ("rules", "split"),
    [
        # The largest dimension that divides; too small, and none that divides.
        (
            ((".*", "largest"),),
            {"a/kernel": (None, None, None, "fsdp"), "b/embedding": (None, "fsdp")},
        ),
        ((("b/.*", "whole"), (".*", "-2")), None),
        (
            (("b/.*", "whole"), (".*kernel", "-2"), (".*", "0")),
            {"a/kernel": (None, None, "fsdp"), "a/bias": ("fsdp",)},
        ),
    ],
)
def test_what_is_split(rules, split):
    section = Mesh(fsdp=4, min_size=65, rules=rules)
    mesh = SimpleNamespace(shape={"data": 2, "fsdp": 4})
    if split is None:
        with pytest.raises(
            ConfigError, match=r"a/bias of shape \[64\] .* along dimension -2 over 4"
        ):
            sharding.split(PARAMS, section, mesh)
        return
    assert sharding.split(PARAMS, section, mesh) == {
        path: PartitionSpec(*spec) for path, spec in split.items()
    }
    whole = SimpleNamespace(shape={"data": 8, "fsdp": 1})
    assert sharding.split(PARAMS, section, whole) == {}


def test_a_rule_that_matches_nothing_is_an_error_of_the_config():
    mesh = SimpleNamespace(shape={"data": 8, "fsdp": 1})
    with pytest.raises(ConfigError, match=r"^config.mesh.rules: pattern 'c/\.\*' matches no"):
        sharding.split(PARAMS, Mesh(rules=(("c/.*", "0"), (".*", "whole"))), mesh)


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
    places = sharding.placement(state, mesh, {})
    abstract = jax.tree.leaves(sharding.abstract(state, places))
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
    four = devices.call(4, "tests.training.test_sharding.train_two_steps")
    one = train_two_steps()
    assert (four["devices"], one["devices"]) == (4, 1)
    assert four["rows"] == one["rows"] == list(range(6))
    np.testing.assert_allclose(four["losses"], one["losses"], atol=1e-5)
    np.testing.assert_allclose(four["logits"], one["logits"], atol=1e-3)
