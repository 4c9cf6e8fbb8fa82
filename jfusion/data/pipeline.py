"""From a split to batches: order, padding, and the share of each process.

Everything slow (decoding, tokenizing) is done once and cached, so a batch is one gather from
memory-mapped arrays; background threads stay a few batches ahead of the training step. Worker
processes would only add a copy of each batch.
"""

import functools
from typing import Any

import grain
import numpy as np

from jfusion.data.split import Split

Batch = dict[str, Any]
"""`inputs`, `present`, `targets`, `row`, `weight`; see `batches`."""

_THREADS = 2
_AHEAD = 4


def batches(
    split: Split,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    epochs: int | None = 1,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """The batches of a split. Iterators over it can be saved and resumed at any batch.

    An epoch visits every row of `split.keep` once, in an order drawn anew for each epoch from
    `seed` (or ascending), and is padded to whole batches, so no batch mixes epochs. Batch k holds
    the same rows however many processes share it: each takes an equal, consecutive part.

    Args:
        split: What `prepare_split` returned.
        batch_size: Rows of a batch over all processes (B).
        shuffle: Whether the order is drawn at random.
        seed: Seeds the order.
        epochs: Passes over the split; None never ends.
        process_index: Which process this is.
        process_count: How many processes share each batch.

    Returns:
        Batches of NumPy arrays, b = B / process_count rows each:
        `{"inputs": {modality: {array: [b, ...]}}, "present": {modality: bool [b]},
        "targets": {head: [b, ...]}, "row": int64 [b], "weight": float32 [b]}`.
        Targets keep their type, see `Split`. Padding has row -1, weight 0, nothing present, and
        zeros elsewhere: it looks like class 0 and subject 0, and only the weight tells it.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} cannot be shared equally by {process_count} processes"
        )
    if not len(split):
        raise ValueError(f"no row of {split.name} takes part, so it has no batches")
    share = batch_size // process_count
    start = process_index * share
    positions = grain.MapDataset.range(len(split))
    if shuffle:
        positions = positions.seed(seed).shuffle()
    # Repeating after batching keeps epochs apart; `repeat` still reshuffles each of them.
    chosen = positions.batch(batch_size, batch_fn=np.asarray).repeat(epochs)
    gather = functools.partial(_gather, split, start, share)
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
    return chosen.map(gather).to_iter_dataset(options)


def batch_count(rows: int, batch_size: int) -> int:
    """The number of batches of an epoch."""
    return -(-rows // batch_size)


def _gather(split: Split, start: int, share: int, positions: np.ndarray) -> Batch:
    """One process's part of the batch that holds `positions` of `split.keep`."""
    rows = split.keep[positions[start : start + share]]  # [n], n < share where padded
    weight = np.zeros(share, np.float32)
    weight[: len(rows)] = 1
    row = np.full(share, -1, np.int64)
    row[: len(rows)] = rows
    take = functools.partial(_take, rows=rows, size=share)
    return {
        "inputs": {
            name: {key: take(array) for key, array in arrays.items()}
            for name, arrays in split.inputs.items()
        },
        "present": {name: take(flags) for name, flags in split.present.items()},
        "targets": {head: take(values) for head, values in split.targets.items()},
        "row": row,
        "weight": weight,
    }


def _take(array: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Gathers rows of an array and pads with zeros: [rows, ...] to [size, ...]."""
    taken = np.empty((size, *array.shape[1:]), array.dtype)
    taken[len(rows) :] = 0
    # mode="clip" writes straight into `out`; the default would go through a buffer.
    np.take(array, rows, axis=0, out=taken[: len(rows)], mode="clip")
    return taken
