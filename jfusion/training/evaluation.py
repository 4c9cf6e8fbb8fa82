"""Runs a model over a whole split and scores it, every row once."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from scipy.special import expit

from jfusion.training import metrics, sharding
from jfusion.training.state import Tree

Scores = dict[str, float | None]


class Outputs(NamedTuple):
    """What a model says of the rows of a split, in the order of the rows.

    Attributes:
        rows: Row numbers within the split, int64 `[n]`.
        logits: Float32 `[n, C]` by head.
        losses: Float32 `[n]` by head; empty in prediction.
    """

    rows: np.ndarray
    logits: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]

    def probabilities(self, head: str) -> np.ndarray:
        """Sigmoid outputs of a multi-label head, float32 `[n, C]`."""
        return expit(self.logits[head])


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
        outputs = eval_step(params, stats, batch)
        collected.append((rows, host_batch["weight"], outputs))
        after_batch()
    rows, weights, outputs = zip(*collected, strict=True)
    rows, weights = (np.concatenate([_gather(p) for p in parts]) for parts in (rows, weights))
    joined = jax.tree.map(lambda *parts: np.concatenate([_fetch(p) for p in parts]), *outputs)
    real = np.flatnonzero(weights > 0)
    order = real[np.argsort(rows[real], kind="stable")]
    return Outputs(
        rows=rows[order],
        logits={name: x[order] for name, x in joined["logits"].items()},
        losses={name: x[order] for name, x in joined["loss"].items()},
    )


def score(
    outputs: Outputs,
    targets: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    weights: Mapping[str, float],
) -> Scores:
    """The metrics of a split.

    Args:
        outputs: The model's outputs.
        targets: The targets of every row of the split, `[rows, C]` by head.
        thresholds: Decision threshold by head.
        weights: Weight of each head's loss.

    Returns:
        `loss`, and the metrics of each head; with several heads `<head>/<metric>`.
    """
    each = {name: float(x.mean(dtype=np.float64)) for name, x in outputs.losses.items()}
    values: Scores = {"loss": sum(weights[name] * loss for name, loss in each.items())}
    if len(each) > 1:
        values |= {f"{name}/loss": loss for name, loss in each.items()}
    for name, threshold in thresholds.items():
        scores = metrics.multilabel(
            outputs.probabilities(name), targets[name][outputs.rows], threshold
        )
        prefix = f"{name}/" if len(thresholds) > 1 else ""
        values |= {f"{prefix}{metric}": value for metric, value in scores.items()}
    return values


def better(values: Scores, best: Scores, monitor: str) -> bool:
    """Whether `values` beat `best` in the monitored metric; anything beats nothing.

    Losses and errors are better when lower. A metric that is undefined (None) beats nothing.
    """
    if not best:
        return True
    new, old = values[monitor], best[monitor]
    if new is None or old is None:
        return old is None and new is not None
    return new < old if monitor.endswith(("loss", "rmse", "mae")) else new > old


def _fetch(x: jax.Array) -> np.ndarray:
    if jax.process_count() == 1:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _gather(x: np.ndarray) -> np.ndarray:
    if jax.process_count() == 1:
        return x
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
