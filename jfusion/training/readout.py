"""What the outputs of a head say, by kind of target.

Shape legend: `n` rows, `C` labels or classes, `E` width of an embedding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from jfusion.config import Classes, Embedding, MultiLabel, Regression, Target
from jfusion.training import metrics, regression

Scores = dict[str, float | None]


def predicted(target: Target, outputs: np.ndarray) -> np.ndarray:
    """The predictions of a head.

    Args:
        target: The target's section.
        outputs: What the head gave, [n, ...].

    Returns:
        Probabilities [n, C] of a multi-label target and of classes, values [n] of a regression,
        the joint vectors [n, E] of an embedding.
    """
    match target:
        case MultiLabel():
            return expit(outputs)
        case Classes():
            return softmax(outputs, axis=-1)
        case Regression():
            return outputs[:, 0]
        case Embedding():
            return outputs[:, 0]


def scores(target: Target, predictions: np.ndarray, truth: np.ndarray) -> Scores:
    """The metrics of a head over rows.

    Args:
        target: The target's section.
        predictions: See `predicted`.
        truth: The targets of the same rows, as they stand in a batch.

    Returns:
        Metric to score; none for an embedding, which has only its loss.
    """
    match target:
        case MultiLabel():
            return metrics.multilabel(predictions, truth, target.threshold)
        case Classes():
            return metrics.classes(predictions, truth)
        case Regression():
            return regression.scores(predictions, truth[:, 0], cut(target))
        case Embedding():
            return {}


def of_labels(
    target: MultiLabel | Classes,
    predictions: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
) -> list[dict[str, Any]]:
    """The scores of each label or class, a row each.

    Args:
        target: The target's section.
        predictions: See `predicted`.
        truth: The targets of the same rows, as they stand in a batch.
        labels: The C names.
    """
    if isinstance(target, MultiLabel):
        return metrics.per_label(predictions, truth, labels, target.threshold)
    return metrics.per_class(predictions, truth, labels)


def cut(target: Regression) -> float | None:
    """The number from which on a row counts as positive."""
    return target.cut[0] if target.cut else None


def is_error(metric: str) -> bool:
    """Whether a metric is better when lower."""
    return metric.endswith(("loss", "rmse", "mae"))


def columns(
    name: str,
    target: Target,
    labels: Sequence[str],
    prediction: np.ndarray | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """What a table of predictions says of one row.

    Args:
        name: The target's.
        target: Its section.
        labels: Its label names; of a multi-label target or of classes.
        prediction: The row's, see `predicted`; None where nothing was predicted.
        facts: `radius` of the interval around a regression, if it is known.

    Returns:
        The target's column and its further columns, None where nothing was predicted.
    """
    match target:
        case MultiLabel():
            chosen = _above(labels, prediction, target.threshold)
            return {name: chosen} | _of_labels(name, labels, prediction)
        case Classes():
            chosen = None if prediction is None else labels[int(np.argmax(prediction))]
            return {name: chosen} | _of_labels(name, labels, prediction)
        case Regression():
            return _of_value(name, target, prediction, facts.get("radius"))
        case Embedding():
            vector = None if prediction is None else [_short(x) for x in prediction]
            return {name: vector}


def _above(labels: Sequence[str], prediction: np.ndarray | None, threshold: float):
    if prediction is None:
        return None
    return [label for label, p in zip(labels, prediction, strict=True) if p > threshold]


def _of_labels(name: str, labels: Sequence[str], prediction: np.ndarray | None):
    values = [None] * len(labels) if prediction is None else [_short(p) for p in prediction]
    return {f"{name}/{label}": value for label, value in zip(labels, values, strict=True)}


def _of_value(name: str, target: Regression, prediction: Any, radius: float | None):
    value = None if prediction is None else _short(prediction)
    found = {name: value}
    if radius is not None:
        found[f"{name}/low"] = None if value is None else value - radius
        found[f"{name}/high"] = None if value is None else value + radius
    if target.cut:
        found[f"{name}/positive"] = None if value is None else value >= target.cut[0]
    return found


def _short(x: Any) -> float:
    """The number with the shortest decimal that gives the same float32 back."""
    return float(str(np.float32(x)))
