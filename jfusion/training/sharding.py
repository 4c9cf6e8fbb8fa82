"""Where arrays live: the device mesh, and the placement of batches and state on it.

Nothing in `models/` knows of devices. A batch is split over all of them along its first axis, the
state is whole on every device or split over those of a group; the compiler adds what this implies:
sums over devices, and the gathering of split parameters where they are needed.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jfusion import config, trees
from jfusion.config import ConfigError
from jfusion.config.mesh import LARGEST, WHOLE

Tree = dict[str, jax.Array]
Specs = Mapping[str, PartitionSpec]
"""How parameters are split, by path; those that are not in it are whole on every device."""

_AXES = ("data", "fsdp")
_ROWS = PartitionSpec(_AXES)


def make_mesh(
    section: config.Mesh | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with the axes `data` and `fsdp`.

    Args:
        section: Their sizes.
        devices: The devices; all of all processes by default.

    Raises:
        ConfigError: There is another number of devices.
    """
    section, devices = section or config.Mesh(), jax.devices() if devices is None else devices
    sizes = {"data": section.data, "fsdp": section.fsdp}
    free = [name for name, size in sizes.items() if size < 0]
    taken = sizes["data"] * sizes["fsdp"] * (-1 if free else 1)
    if len(devices) % taken or (not free and len(devices) != taken):
        shown = " x ".join(f"mesh.{name}={size}" for name, size in sizes.items())
        raise ConfigError(
            f"config.mesh: {shown} does not fit {len(devices)} devices; "
            "their product must be that number, and one of them can be -1 for what is left"
        )
    for name in free:
        sizes[name] = len(devices) // taken
    return jax.make_mesh(tuple(sizes.values()), _AXES, (AxisType.Auto,) * 2, devices=devices)


def local_mesh() -> Mesh:
    """A mesh over the devices of this process alone, `data` being their number."""
    return make_mesh(devices=jax.local_devices())


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


def split(params: Mapping[str, Any], section: config.Mesh, mesh: Mesh) -> Specs:
    """Which parameters are split over `fsdp`, and how.

    Args:
        params: The parameters or their shapes, by path.
        section: The rules.
        mesh: The mesh.

    Raises:
        ConfigError: The rules leave a parameter uncovered, or one matches nothing, or a parameter
            cannot be split as they say.
    """
    try:
        rules = trees.first_match(section.rules, params)
    except ValueError as error:
        raise ConfigError(f"config.mesh.rules: {error}") from None
    parts = mesh.shape["fsdp"]
    if parts == 1:
        return {}
    specs = {}
    for path, rule in rules.items():
        shape = params[path].shape
        if rule == LARGEST:
            fitting = [d for d, size in enumerate(shape) if size % parts == 0]
            large = params[path].size >= section.min_size
            dimension = max(fitting, key=lambda d: shape[d]) if fitting and large else None
        else:
            dimension = None if rule == WHOLE else _dimension(path, shape, int(rule), parts)
        if dimension is not None:
            specs[path] = PartitionSpec(*(None,) * dimension, "fsdp")
    return specs


def placement(tree: Any, mesh: Mesh, specs: Specs) -> Any:
    """The place of every leaf of a state: that of the parameter whose path its own ends in."""

    def place(path: tuple, leaf: Any) -> NamedSharding:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        spec = specs.get(names[-1]) if names else None
        return NamedSharding(mesh, spec or PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, tree)


def gather(tree: Tree, places: Mapping[str, NamedSharding]) -> Tree:
    """Parameters that are whole on every device, for the layers that read them.

    Without this the compiler would carry the split of a kernel on into what it is multiplied with,
    and take batches apart by channels. The gradient goes back to where the parameter lies.

    Args:
        tree: Parameters by path.
        places: Where they lie.
    """
    split = {path for path in tree if not places[path].is_fully_replicated}
    return {path: _gather(places[path])(x) if path in split else x for path, x in tree.items()}


def whole(tree: Tree, mesh: Mesh) -> Tree:
    """The same without gradients, wherever the parameters lie."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


@functools.cache
def _gather(place: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    whole = NamedSharding(place.mesh, PartitionSpec())

    @jax.custom_vjp
    def gathered(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, whole)

    def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        # Summed over all devices, of which each keeps its part: on GPU and TPU one reduce-scatter.
        # Without the first constraint activations would be gathered to compute only that part.
        gradient = jax.lax.with_sharding_constraint(gradient, whole)
        return (jax.lax.with_sharding_constraint(gradient, place),)

    gathered.defvjp(lambda x: (gathered(x), None), backward)
    return gathered


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places every leaf whole on every device; each process must have the same."""
    whole = NamedSharding(mesh, PartitionSpec())

    def place(x: Any) -> jax.Array:
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    # `device_put` would compare every leaf over all processes.
    return jax.device_put(tree, whole) if jax.process_count() == 1 else jax.tree.map(place, tree)


def abstract(tree: Any, places: Any) -> Any:
    """The shapes, types and placement of a tree, for restoring into."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places
    )


def place_batch(batch: Mapping[str, Any], mesh: Mesh) -> tuple[dict[str, Any], np.ndarray]:
    """Places this process's rows of a batch on its devices.

    Args:
        batch: NumPy arrays, `[B / processes, ...]` each.
        mesh: The mesh.

    Returns:
        The batch as global arrays `[B, ...]` split along the rows, and its `row` numbers, which
        stay in host memory.
    """
    on_device = {name: part for name, part in batch.items() if name != "row"}
    return place_rows(on_device, mesh), batch["row"]


def place_rows(arrays: Any, mesh: Mesh) -> Any:
    """Places this process's part of NumPy arrays: [B / processes, ...] to global [B, ...]."""
    rows = NamedSharding(mesh, _ROWS)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), arrays)


def place_read(
    shape: tuple[int, ...], read: Callable[[slice], np.ndarray], mesh: Mesh
) -> jax.Array:
    """A global array split along its rows, of which each process reads those of its devices.

    Args:
        shape: Its shape; the rows divide over the devices.
        read: Reads a stretch of rows; in any process it gives the same.
        mesh: The mesh.
    """
    places = NamedSharding(mesh, _ROWS)
    return jax.make_array_from_callback(shape, places, lambda index: read(index[0]))


def settle(tree: Any) -> Any:
    """Waits for results on several CPU devices, before the next program is begun.

    There, programs that are under way at once take threads from each other, and can wait for each
    other's part of an exchange without end. Accelerators run one after the other.
    """
    if jax.device_count() > 1 and jax.default_backend() == "cpu":
        jax.block_until_ready(tree)
    return tree


def fetch(tree: Any) -> Any:
    """Brings arrays into the memory of every process, whole; all processes must call it."""

    def whole(x: jax.Array) -> np.ndarray:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(whole, tree)


def _dimension(path: str, shape: tuple[int, ...], wanted: int, parts: int) -> int:
    """A dimension named by a rule, counted from 0."""
    if not -len(shape) <= wanted < len(shape) or shape[wanted] % parts:
        raise ConfigError(
            f"config.mesh.rules: {path} of shape {list(shape)} cannot be split along dimension "
            f"{wanted} over {parts} devices"
        )
    return wanted % len(shape)
