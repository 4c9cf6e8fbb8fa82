"""Runs a model over a whole split and scores it, every row once."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jfusion.config import Target
from jfusion.training import readout, sharding
from jfusion.training.losses import Loss
from jfusion.training.readout import Scores
from jfusion.training.state import Tree


class Outputs(NamedTuple):
    """What a model says of the rows of a split, in the order of the rows.

    Attributes:
        rows: Row numbers within the split, int64 `[n]`.
        heads: What each head gave, float32 `[n, ...]`.
        losses: Float32 `[n]` by head; empty in prediction.
        shares: Weight of each modality in the fused feature, float32 `[n]`; empty where the fusion
            has no such weights.
    """

    rows: np.ndarray
    heads: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]
    shares: dict[str, np.ndarray]


def run(
    eval_step: Callable[[Tree, Tree, Any], Mapping[str, Any]],
    params: Tree,
    stats: Tree,
    batches: Iterable[Mapping[str, Any]],
    mesh: Mesh,
    after_batch: Callable[[], None] = lambda: None,
) -> Outputs:
    """Applies the evaluation step to every batch.

    Args:
        eval_step: See `steps.make_eval_step`.
        params: All parameters.
        stats: Running statistics.
        batches: NumPy batches of this process, the last one padded with weight 0.
        mesh: The device mesh.
        after_batch: Called after each batch; may raise to stop.

    Returns:
        The outputs of all real rows of all processes.
    """
    collected = []
    for host_batch in batches:
        batch, rows = sharding.place_batch(host_batch, mesh)
        outputs = sharding.settle(eval_step(params, stats, batch))
        # Placed like the outputs, so that they come back in the same order.
        rows = sharding.place_rows(rows.astype(np.int32), mesh)
        collected.append((rows, batch["weight"], outputs))
        after_batch()
    rows, weights, outputs = jax.tree.map(
        lambda *parts: np.concatenate(parts), *map(sharding.fetch, collected)
    )
    rows = rows.astype(np.int64)
    real = np.flatnonzero(weights > 0)
    order = real[np.argsort(rows[real], kind="stable")]
    return Outputs(rows[order], *(jax.tree.map(lambda x: x[order], part) for part in outputs))


def only(
    batches: Iterable[Mapping[str, Any]], modalities: Collection[str]
) -> Iterator[dict[str, Any]]:
    """The batches with all other modalities hidden; rows that have none left get weight 0."""
    for batch in batches:
        present = {name: x & (name in modalities) for name, x in batch["present"].items()}
        left = np.any(list(present.values()), axis=0)
        yield {**batch, "present": present, "weight": batch["weight"] * left}


def score(
    outputs: Outputs,
    targets: Mapping[str, np.ndarray],
    sections: Mapping[str, Target],
    losses: Mapping[str, Loss],
) -> Scores:
    """The metrics of a split.

    Args:
        outputs: The model's outputs.
        targets: The targets of every row of the split, `[rows, ...]` by head.
        sections: The targets' config sections.
        losses: The loss of each target.

    Returns:
        `loss`, and the metrics of each head; with several heads `<head>/<metric>`.
    """
    each = {
        name: float(losses[name].finish(x.mean(dtype=np.float64)))
        for name, x in outputs.losses.items()
    }
    values: Scores = {"loss": sum(losses[name].weight * loss for name, loss in each.items())}
    if len(each) > 1:
        values |= {f"{name}/loss": loss for name, loss in each.items()}
    for name, section in sections.items():
        predictions = readout.predicted(section, outputs.heads[name])
        found = readout.scores(section, predictions, targets[name][outputs.rows])
        values |= {f"{prefix(name, sections)}{metric}": x for metric, x in found.items()}
    return values


def prefix(name: str, sections: Collection[str]) -> str:
    """What stands before the metrics of a target: its name, if there are several."""
    return f"{name}/" if len(sections) > 1 else ""


def better(values: Scores, best: Scores, monitor: str) -> bool:
    """Whether `values` beat `best` in the monitored metric; anything beats nothing.

    Losses and errors are better when lower. A metric that is undefined (None) beats nothing.
    """
    if not best:
        return True
    new, old = values[monitor], best[monitor]
    if new is None or old is None:
        return old is None and new is not None
    return new < old if readout.is_error(monitor) else new > old
