"""Frozen encoders' features: computed once, kept on disk, and trained on in their inputs' place.

While an encoder is frozen and nothing in it is drawn at random, it makes the same of a row in every
epoch. A phase then trains and is evaluated on what it made; the random numbers of the rest of the
model stay those of a run without any of this. Features are no part of a run's state: a run that is
resumed finds them or computes them again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jfusion import models, ops, processes
from jfusion.data.cache import remember_array
from jfusion.data.split import InputReader, Split
from jfusion.models.pixels import mirror
from jfusion.pretrained.networks import DEFAULTS
from jfusion.training import sharding
from jfusion.training.state import Network, Tree

Advance = Callable[[int], None]
"""Called with the number of rows just done; may raise to stop."""
Track = Callable[[str, int], contextlib.AbstractContextManager[Advance]]
"""Begins to show a piece of work: what it is, and how many rows it has."""

_ROWS = 64  # of a batch on a device, at most
# The names of the rates at which networks drop something in training.
_DROPS = (
    *("dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("drop_path_rate", "drop_connect_rate"),
)


def plan(
    network: Network, rates: Mapping[str, float], splits: Mapping[str, Split]
) -> dict[str, str]:
    """The frozen encoders of a phase.

    Args:
        network: The model.
        rates: Peak learning rate of every parameter.
        splits: Any splits of the run.

    Returns:
        Modality -> why its features are not to be cached; empty if they are.
    """
    inputs = next(iter(splits.values())).inputs
    return {
        name: _refusal(network, name, inputs[name])
        for name in sorted(network.spec["encoders"])
        if is_frozen(name, rates)
    }


def is_frozen(name: str, rates: Mapping[str, float]) -> bool:
    """Whether a modality's encoder has parameters, none of which is trained."""
    own = [rate for path, rate in rates.items() if path.startswith(f"encoders/{name}/")]
    return bool(own) and not any(own)


def attach(
    network: Network,
    weights: Mapping[str, Any],
    name: str,
    splits: Mapping[str, Split],
    reader: InputReader,
    *,
    batch_size: int,
    cache_dir: str,
    track: Track,
) -> dict[str, Split]:
    """Puts the features of a modality in the place of its arrays.

    All devices compute them together, and every process keeps those of all rows: its batches are
    drawn from all. Processes that share a disk end up with one entry.

    Args:
        network: The model.
        weights: Its parameters and statistics.
        name: The modality.
        splits: The splits.
        reader: What made the modality's arrays.
        batch_size: Rows of a training batch on one device: as many fit at least.
        cache_dir: See `cache.cache_root`.
        track: Shows how far it is.

    Returns:
        The splits with `inputs[name] = {"features": float32 [all rows, V, D]}`,
        memory-mapped; zeros where absent. V is 2, plain and mirrored, of pictures that are flipped
        in training, else 1.

    Raises:
        DataError: The cache cannot be written.
    """
    own = {p: x for p, x in weights.items() if p.startswith(f"encoders/{name}/")}
    own = sharding.fetch(own)
    part = network.spec["encoders"][name]
    pixels = dict(part.get("pixels", {}))
    versions = 2 if pixels.pop("flip", 0) else 1
    rows = min(batch_size, _ROWS)
    key = {
        "code": _code(),
        "versions": {p: importlib.metadata.version(p) for p in ("jax", "jaxlib", "flax")},
        "device": jax.devices()[0].device_kind,
        "batch": rows,
        "weights": _digest(own),
        "encoder": {key: part[key] for key in ("network", "sizes", "lora") if key in part},
        "pixels": pixels,
        "flipped": versions == 2,
        "precision": [jnp.dtype(network.dtype).name, str(jax.config.jax_default_matmul_precision)],
        "input": reader.spec(),
    }
    compute = _Compute(network, own, name, versions, rows)
    attached = {}
    for title, split in splits.items():
        arrays, present = split.inputs[name], split.present[name]
        shape = (len(present), versions, compute.width(arrays))
        of_split = {"source": split.source.fingerprint, "present": _digest({"": present})}

        def blocks(arrays=arrays, present=present, title=title) -> Iterator[np.ndarray]:
            with track(f"{name}: features of {title}", int(present.sum())) as advance:
                yield from compute(arrays, present, advance)

        found = remember_array(
            cache_dir, {**key, **of_split}, shape, np.float32, blocks, processes.all_of
        )
        inputs = {**split.inputs, name: {"features": found}}
        attached[title] = dataclasses.replace(split, inputs=inputs)
    return attached


class _Compute:
    """An encoder, ready to run over all rows.

    Args:
        network: The model.
        weights: The encoder's parameters and statistics.
        name: The modality.
        versions: 2 to encode the mirror images, too; else 1.
        rows: Rows of a batch on each device.
    """

    def __init__(self, network: Network, weights: Tree, name: str, versions: int, rows: int):
        self._network, self._weights, self._name = network, weights, name
        self._versions, self._rows = versions, rows
        self._mesh = sharding.make_mesh()

        def step(weights: Tree, arrays: Mapping[str, jax.Array]) -> jax.Array:
            found = network.encode(name, weights, arrays).astype(jnp.float32)
            return sharding.whole(found, self._mesh)

        self._step = jax.jit(step)

    def width(self, arrays: Mapping[str, np.ndarray]) -> int:
        """The features of the encoder."""
        return jax.eval_shape(self._step, self._weights, _batch_like(arrays)).shape[-1]

    def __call__(
        self, arrays: Mapping[str, np.ndarray], present: np.ndarray, advance: Advance
    ) -> Iterator[np.ndarray]:
        """The features of all rows, [n, V, D] for one stretch of rows after the other."""
        weights = sharding.replicate(self._weights, self._mesh)
        size, full, done = self._rows * self._mesh.size, np.flatnonzero(present), 0
        for start in range(0, len(full), size):
            rows = full[start : start + size]
            padded = np.resize(rows, size)  # rows once more, which are cut off again
            forms = [
                self._encode(weights, arrays, padded, turn)
                for turn in (np.asarray, mirror)[: self._versions]
            ]
            end = int(rows[-1]) + 1
            block = np.zeros((end - done, self._versions, forms[0].shape[-1]), np.float32)
            block[rows - done] = np.stack(jax.device_get(forms), axis=1)[: len(rows)]
            yield block
            done = end
            advance(len(rows))
        if done < len(present):
            yield np.zeros((len(present) - done, self._versions, self.width(arrays)), np.float32)

    def _encode(
        self,
        weights: Tree,
        arrays: Mapping[str, np.ndarray],
        rows: np.ndarray,
        turn: Callable[[np.ndarray], np.ndarray],
    ) -> jax.Array:
        """The features of some rows [n, D], whose arrays are turned into another form first."""
        batch = {
            key: sharding.place_read(
                (len(rows), *array.shape[1:]),
                lambda part, array=array: np.ascontiguousarray(turn(array[rows[part]])),
                self._mesh,
            )
            for key, array in arrays.items()
        }
        return sharding.settle(self._step(weights, batch))


def _refusal(network: Network, name: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Why the features of a frozen encoder would not do; empty if they would."""
    kind, part = network.spec["fusion"]["kind"], network.spec["encoders"][name]
    if kind != "concat":
        return f"{kind} reads all of its tokens"
    numbers = {**DEFAULTS[part["network"]], **part["sizes"]}
    drops = {key: numbers[key] for key in _DROPS if numbers.get(key)}
    if part.get("lora", {}).get("dropout"):
        drops["lora.dropout"] = part["lora"]["dropout"]
    if drops and not part.get("eval_when_frozen"):
        told = ", ".join(f"{key} {rate:g}" for key, rate in drops.items())
        return f"{told} within the encoder (inputs.{name}.encoder.eval_when_frozen leaves it out)"
    weights = {
        path: leaf
        for path, leaf in {**network.params, **network.stats}.items()
        if path.startswith(f"encoders/{name}/")
    }

    def trained(weights: Tree, arrays: Mapping[str, jax.Array]) -> jax.Array:
        return network.encode(name, weights, arrays, train=True)

    try:
        jax.eval_shape(trained, weights, _batch_like(arrays))
    except ValueError as error:
        return f"in training, {str(error).splitlines()[0]}"
    return ""


def _batch_like(arrays: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of one row, without its numbers."""
    return {key: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for key, x in arrays.items()}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path, array in sorted(arrays.items()):
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@functools.cache
def _code() -> str:
    """A digest of the networks' own source, which is part of what fixes a feature."""
    digest = hashlib.sha256()
    for package in (models, ops):
        for path in sorted(Path(package.__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
