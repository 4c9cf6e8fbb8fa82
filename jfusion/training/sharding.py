"""Where arrays live: the device mesh, and the placement of batches and state on it.

Nothing in `models/` knows of devices. The batch is split over all devices along its first axis and
the state is replicated; the compiler adds the sums over devices that this implies.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jfusion.config import ConfigError


def make_mesh() -> Mesh:
    """A mesh over all devices of all processes, with the single axis `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))


def local_mesh() -> Mesh:
    """The same over the devices of this process alone."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def check_batch_size(name: str, size: int, parts: int, mesh: Mesh) -> None:
    """Raises `ConfigError` where a batch of `size` rows in `parts` does not divide the devices."""
    unit = mesh.size * parts
    if size % unit:
        near = sorted({max(size // unit, 1) * unit, (size // unit + 1) * unit})
        raise ConfigError(
            f"config.{name}: {size} rows do not divide over {mesh.size} devices"
            f"{f' in {parts} parts' if parts > 1 else ''}; the nearest that do: "
            f"{' and '.join(map(str, near))}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places every leaf whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def abstract(tree: Any, mesh: Mesh) -> Any:
    """The shapes, types and placement of a replicated tree, for restoring into."""
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)


def place_batch(batch: Mapping[str, Any], mesh: Mesh) -> tuple[dict[str, Any], np.ndarray]:
    """Places this process's rows of a batch on its devices.

    Args:
        batch: NumPy arrays, `[B / processes, ...]` each.
        mesh: The mesh.

    Returns:
        The batch as global arrays `[B, ...]` split along the rows, and its `row` numbers, which
        stay in host memory.
    """
    split = NamedSharding(mesh, PartitionSpec("data"))

    def place(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(split, x)

    on_device = {name: part for name, part in batch.items() if name != "row"}
    return jax.tree.map(place, on_device), batch["row"]
