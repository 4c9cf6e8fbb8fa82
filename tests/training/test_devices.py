"""Each of the three systems gives on several devices, and in two processes, what it gives on one.

Only some of the cases are tried each time; with JFUSION_ALL_MESHES=1 all of them are.
"""

import json
import os

import jax
import numpy as np
import pytest

from tests.training import devices, systems

ALL = os.environ.get("JFUSION_ALL_MESHES") == "1"

# Devices and how many of them share a copy of the state.
MESHES = {"genres": [(8, 8)], "interviews": [(4, 2)], "products": [(2, 1)]}
if ALL:
    every = [(2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 1), (8, 2), (8, 8)]
    MESHES = {system: every for system in systems.SYSTEMS}


def both(system, meshes):
    """What a system gives on one device, and on each of some meshes."""
    first = systems.drawn(system)
    return [
        jax.device_count(),
        *(systems.numbers(system, *mesh, *first) for mesh in [(1, 1), *meshes]),
    ]


def require_same(one, other, where):
    assert other.keys() == one.keys()
    assert other["rows"] == one["rows"]
    for name, values in one.items():
        np.testing.assert_allclose(
            other[name], values, rtol=1e-4, atol=1e-5, err_msg=f"{name} on {where}"
        )


@pytest.mark.parametrize("system", MESHES)
def test_several_devices_give_the_numbers_of_one(system):
    meshes = MESHES[system]
    count, one, *others = devices.call(8, "tests.training.test_devices.both", system, meshes)
    assert count == 8 and len(others) == len(meshes)
    for mesh, other in zip(meshes, others, strict=True):
        require_same(one, other, mesh)


@pytest.mark.skipif(not ALL, reason="takes minutes; test_together has two processes, too")
@pytest.mark.parametrize("system", systems.SYSTEMS)
def test_two_processes_give_the_numbers_of_one(system, tmp_path):
    _, one = devices.call(1, "tests.training.test_devices.both", system, [])
    file = tmp_path / "numbers.json"
    program = (
        "from jfusion import processes; processes.join(60);"
        "import jax; jax.config.update('jax_numpy_rank_promotion', 'raise');"
        f"from tests.training import systems; systems.write({str(file)!r}, {system!r}, 4, 2)"
    )
    done = devices.together([("-c", program)] * 2)
    assert [process.returncode for process in done] == [0, 0], done
    require_same(one, json.loads(file.read_text()), "two processes")
