"""Scores over a whole split, by scikit-learn's definitions.

Which labels take part in a mean, stated once:

- F1 counts every label. A fraction with nothing below the line is 0 (`zero_division=0`), so a label
  with neither positives nor predictions scores 0, and so does, in `samples_f1`, a row with neither.
- Average precision means nothing for a label without positives, and AUROC nothing for one without
  positives or without negatives. Such labels are left out of the mean and are None in the table; a
  mean over no label at all is None too. No score is ever NaN, which JSON does not have.

Classes, of which a row has exactly one, are counted the same way: F1 takes all of them.

Shape legend: `N` rows, `C` labels or classes.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

Score = float | None


def multilabel(
    probabilities: np.ndarray, targets: np.ndarray, threshold: float = 0.5
) -> dict[str, Score]:
    """The scores of a split; rows that are only padding must be gone already.

    Args:
        probabilities: [N, C].
        targets: 0 or 1, [N, C].
        threshold: A label is predicted where its probability exceeds this.

    Returns:
        `macro_f1`, `micro_f1`, `weighted_f1` (by support), `samples_f1`, `map` (mean of the
        labels' average precisions) and `auroc` (mean of the labels'); None where undefined.

    Raises:
        ValueError: No row, shapes that differ, or a probability that is not finite.
    """
    probabilities, truth = _checked(probabilities, targets)
    predicted = probabilities > threshold
    of_label = _f1(predicted, truth, axis=0)
    support = truth.sum(axis=0)
    return {
        "macro_f1": float(of_label.mean()),
        "micro_f1": float(_f1(predicted, truth, axis=None)),
        "weighted_f1": float(_ratio(np.sum(of_label * support), support.sum())),
        "samples_f1": float(_f1(predicted, truth, axis=1).mean()),
        "map": _mean(_average_precisions(probabilities, truth)),
        "auroc": _mean(_areas_under_roc(probabilities, truth)),
    }


def classes(scores: np.ndarray, targets: np.ndarray) -> dict[str, Score]:
    """The scores of a split whose rows have one class each.

    Args:
        scores: Logits or probabilities [N, C]; the class of the highest is predicted.
        targets: The classes, integers from 0 to C - 1, [N].

    Returns:
        `macro_f1` and `weighted_f1` (by support) over all C classes, `accuracy`, and
        `top5_accuracy`, which is None unless there are more than five classes.

    Raises:
        ValueError: No row, shapes that do not fit, a score that is not finite, or no such class.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape} must have the shapes "
            "[rows, classes] and [rows]"
        )
    _require_finite(scores, "scores")
    count = scores.shape[1]
    wrong = np.flatnonzero(~np.isin(targets, np.arange(count)))
    if wrong.size:
        raise ValueError(
            f"target {targets[wrong[0]]} of row {wrong[0]} (counted from 0) is none of the "
            f"classes 0 to {count - 1}"
        )
    targets, predicted, every = targets.astype(np.int64), scores.argmax(axis=1), range(count)

    def f1(average: str) -> float:
        found = f1_score(targets, predicted, labels=every, average=average, zero_division=0)
        return float(found)

    top5 = None
    if count > 5:
        top5 = float(top_k_accuracy_score(targets, scores, k=5, labels=every))
    return {
        "macro_f1": f1("macro"),
        "weighted_f1": f1("weighted"),
        "accuracy": float(accuracy_score(targets, predicted)),
        "top5_accuracy": top5,
    }


def per_label(
    probabilities: np.ndarray, targets: np.ndarray, labels: Sequence[str], threshold: float = 0.5
) -> list[dict[str, str | int | Score]]:
    """The scores of each label.

    Args:
        probabilities: [N, C].
        targets: 0 or 1, [N, C].
        labels: The C names.
        threshold: A label is predicted where its probability exceeds this.

    Returns:
        One row per label, in order: `label`, `precision`, `recall`, `f1`, `ap` (None without
        positives) and `support` (the number of positives).

    Raises:
        ValueError: As for `multilabel`.
    """
    probabilities, truth = _checked(probabilities, targets)
    if len(labels) != truth.shape[1]:
        raise ValueError(f"{len(labels)} label names for targets of shape {truth.shape}")
    predicted = probabilities > threshold
    hits, support = (predicted & truth).sum(axis=0), truth.sum(axis=0)
    columns = {
        "precision": _ratio(hits, predicted.sum(axis=0)).tolist(),
        "recall": _ratio(hits, support).tolist(),
        "f1": _f1(predicted, truth, axis=0).tolist(),
        "ap": _average_precisions(probabilities, truth),
        "support": support.tolist(),
    }
    return [
        {"label": label} | {name: column[i] for name, column in columns.items()}
        for i, label in enumerate(labels)
    ]


def per_class(
    scores: np.ndarray, targets: np.ndarray, labels: Sequence[str]
) -> list[dict[str, str | int | Score]]:
    """The scores of each class.

    Args:
        scores: Logits or probabilities [N, C]; the class of the highest is predicted.
        targets: The classes, integers from 0 to C - 1, [N].
        labels: The C names.

    Returns:
        One row per class, in order: `label`, `precision`, `recall`, `f1` and `support` (the number
        of rows of the class); 0 where there is nothing to divide by.
    """
    predicted, every = np.asarray(scores).argmax(axis=1), range(len(labels))
    found = precision_recall_fscore_support(targets, predicted, labels=every, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return [
        {"label": label} | {name: x[i].item() for name, x in zip(names, found, strict=True)}
        for i, label in enumerate(labels)
    ]


def _checked(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, C] as they are, and targets [N, C] as bool."""
    probabilities, targets = np.asarray(probabilities), np.asarray(targets)
    if probabilities.shape != targets.shape or probabilities.ndim != 2:
        raise ValueError(
            f"probabilities {probabilities.shape} and targets {targets.shape} must have the same "
            "shape [rows, labels]"
        )
    _require_finite(probabilities, "probabilities")
    return probabilities, targets > 0.5


def _require_finite(values: np.ndarray, name: str) -> None:
    """Raises a ValueError unless there are values [N, C], and all of them finite."""
    if not values.size:
        raise ValueError(f"nothing to score: {name} have the shape {values.shape}")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        shown = ", ".join(str(row) for row in bad[:20]) + (", ..." if bad.size > 20 else "")
        raise ValueError(
            f"the {name} of {bad.size} of {len(values)} rows are not finite: rows "
            f"{shown} (counted from 0); the model has diverged or its input holds NaN"
        )


def _f1(predicted: np.ndarray, truth: np.ndarray, axis: int | None) -> np.ndarray:
    """2 TP / (predicted + true) over an axis.

    Counted here and not by scikit-learn, which takes a single label for a binary problem and then
    averages over its two classes.
    """
    hits = (predicted & truth).sum(axis=axis)
    return _ratio(2 * hits, predicted.sum(axis=axis) + truth.sum(axis=axis))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.maximum(below, 1), 0.0)


def _average_precisions(probabilities: np.ndarray, truth: np.ndarray) -> list[Score]:
    return [
        float(average_precision_score(t, p)) if t.any() else None
        for p, t in zip(probabilities.T, truth.T, strict=True)
    ]


def _areas_under_roc(probabilities: np.ndarray, truth: np.ndarray) -> list[Score]:
    return [
        float(roc_auc_score(t, p)) if t.any() and not t.all() else None
        for p, t in zip(probabilities.T, truth.T, strict=True)
    ]


def _mean(scores: list[Score]) -> Score:
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None
