"""Each of the three systems gives on several simulated devices what it gives on one."""

import jax
import numpy as np
import pytest

from tests.training import devices, systems

# Devices and how many of them share a copy of the state.
MESHES = {"genres": [(8, 8)], "interviews": [(4, 2)], "products": [(2, 1)]}


def both(system):
    """What a system gives on one device, and on each of its meshes."""
    first = systems.drawn(system)
    meshes = [(1, 1), *MESHES[system]]
    return [jax.device_count(), *(systems.numbers(system, *mesh, *first) for mesh in meshes)]


@pytest.mark.parametrize("system", MESHES)
def test_several_devices_give_the_numbers_of_one(system):
    count, one, *others = devices.call(8, "tests.training.test_devices.both", system)
    assert count == 8 and len(others) == len(MESHES[system])
    for mesh, other in zip(MESHES[system], others, strict=True):
        assert other.keys() == one.keys()
        assert other["rows"] == one["rows"]
        for name, values in one.items():
            np.testing.assert_allclose(
                other[name], values, rtol=1e-4, atol=1e-5, err_msg=f"{name} on {mesh}"
            )
