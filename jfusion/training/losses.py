"""Losses on the heads' outputs, one number per row, in float32.

Shape legend: `B` rows, `C` labels.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jfusion.config import Classes, Embedding, MultiLabel, Regression, Target
from jfusion.training.contrastive import info_nce

Batch = Mapping[str, Any]

_TINY = 1e-8  # the reference's floor inside the logarithm, needed where `clip` is tiny


def _same(mean: Any) -> Any:
    return mean


class Loss(NamedTuple):
    """The loss of a target.

    Attributes:
        rows: `(outputs, targets, batch) -> float32 [B]`, each row's own part.
        finish: From the weighted mean over the rows to the loss.
        weight: Factor of the loss in the sum over the targets.
    """

    rows: Callable[[jax.Array, jax.Array, Batch], jax.Array]
    finish: Callable[[Any], Any] = _same
    weight: float = 1.0


def build(target: Target, statistics: Mapping[str, Any] | None = None) -> Loss:
    """Makes the loss of a target.

    Args:
        target: Names the loss and its constants.
        statistics: What is known of the training split: `pos_weight` [C] is the factor on the
            positive term of each label (see `positive_weights`), `class_weight` [C] that on the
            rows of each class (see `class_weights`).

    Returns:
        The loss on the outputs of the target's head.
    """
    match target:
        case MultiLabel():
            return _multilabel(target, (statistics or {}).get("pos_weight"))
        case Classes():
            return _classes(target, (statistics or {}).get("class_weight"))
        case Regression():
            return Loss(_square_rows, _root if target.loss == "rmse" else _same, target.weight)
        case Embedding():
            rows = functools.partial(
                info_nce, temperature=target.temperature, positives=target.positives
            )
            return Loss(rows, weight=target.weight)


def _multilabel(target: MultiLabel, pos_weight: Sequence[float] | None) -> Loss:
    """The mean over the labels of each row: logits [B, C], targets 0 or 1 [B, C]."""
    if target.loss == "asymmetric":

        def terms(logits):
            return asymmetric_terms(
                logits, target.gamma_positive, target.gamma_negative, target.clip
            )
    else:
        terms = cross_entropy_terms

    def rows(logits: jax.Array, targets: jax.Array, batch: Batch) -> jax.Array:
        del batch
        targets = targets.astype(jnp.float32)
        positive, negative = terms(logits.astype(jnp.float32))
        if pos_weight is not None:
            positive = positive * jnp.asarray(pos_weight, jnp.float32)[None]
        return jnp.mean(targets * positive + (1 - targets) * negative, axis=-1)

    return Loss(rows, weight=target.weight)


def _classes(target: Classes, class_weight: Sequence[float] | None) -> Loss:
    """Cross-entropy: logits [B, C], class numbers int32 [B].

    A row's weight multiplies its loss, and the mean is over the rows (as in Keras; PyTorch divides
    by the sum of the weights, so that a batch of rare classes counts no more than another).
    """

    def rows(logits: jax.Array, targets: jax.Array, batch: Batch) -> jax.Array:
        del batch
        each = -jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        cost = jnp.take_along_axis(each, targets[:, None], axis=-1)[:, 0]
        if target.smoothing:
            cost = (1 - target.smoothing) * cost + target.smoothing * each.mean(axis=-1)
        if class_weight is not None:
            cost = cost * jnp.asarray(class_weight, jnp.float32)[targets]
        return cost

    return Loss(rows, weight=target.weight)


def _square_rows(values: jax.Array, targets: jax.Array, batch: Batch) -> jax.Array:
    """Squared error: values and targets [B, 1]."""
    del batch
    return jnp.square(values - targets)[:, 0]


def _root(mean: Any) -> Any:
    # The small number keeps the gradient finite where every row is exactly right.
    return (mean + 1e-6) ** 0.5


def cross_entropy_terms(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy with logits x.

    A positive costs -log(sigmoid(x)) = log(1 + exp(-x)), a negative -log(1 - sigmoid(x)) =
    log(1 + exp(x)); neither forms the sigmoid, so no logit overflows. With `build`, this is
    `torch.nn.BCEWithLogitsLoss`, `pos_weight` included.

    Args:
        logits: [B, C], float32.

    Returns:
        The cost of each label as a positive and as a negative, both [B, C].
    """
    return jax.nn.softplus(-logits), jax.nn.softplus(logits)


def asymmetric_terms(
    logits: jax.Array, gamma_positive: float, gamma_negative: float, clip: float
) -> tuple[jax.Array, jax.Array]:
    """The asymmetric loss (Ridnik et al., arXiv 2009.14119, equation 7).

    With p = sigmoid(x) and the shifted probability q = max(p - clip, 0), a positive costs
    (1 - p)^gamma_positive * -log(p) and a negative q^gamma_negative * -log(1 - q). As in the
    authors' code (github.com/Alibaba-MIIL/ASL, `AsymmetricLoss`, whose default is
    `disable_torch_grad_focal_loss=True`), the focusing powers are weights: no gradient flows
    through them. Two things differ from that code: it sums over the labels, where `build` takes the
    mean, so that learning rates for cross-entropy carry over; and -log(p) is computed from the
    logit, so that positives below p = 1e-8 still have a gradient.

    Args:
        logits: [B, C], float32.
        gamma_positive: Focusing exponent on positives.
        gamma_negative: Focusing exponent on negatives.
        clip: Negatives whose probability is below this cost nothing.

    Returns:
        The cost of each label as a positive and as a negative, both [B, C].
    """
    p, not_p = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    positive = jax.nn.softplus(-logits)
    if clip > 0:
        not_q = jnp.minimum(not_p + clip, 1)
        negative = -jnp.log(jnp.maximum(not_q, _TINY))
        q = 1 - not_q
    else:
        negative, q = jax.nn.softplus(logits), p
    focus_positive = jax.lax.stop_gradient(not_p**gamma_positive)
    focus_negative = jax.lax.stop_gradient(q**gamma_negative)
    return focus_positive * positive, focus_negative * negative


def positive_weights(targets: np.ndarray) -> np.ndarray:
    """Negatives / positives of each label, which evens out what both weigh in the loss.

    Args:
        targets: The training split, [rows, C], 0 or 1.

    Returns:
        [C], float32; 1 for a label without positives, which has nothing to weigh, and for one
        without negatives, which a weight of 0 would leave without any loss.
    """
    positives = targets.sum(axis=0, dtype=np.float64)
    negatives = len(targets) - positives
    both = (positives > 0) & (negatives > 0)
    return np.where(both, negatives / np.maximum(positives, 1), 1).astype(np.float32)


def class_weights(targets: np.ndarray, count: int) -> np.ndarray:
    """Rows / (classes x rows of the class), which evens out what the classes weigh in the loss.

    Args:
        targets: The classes of the training split, [rows], integers.
        count: Number of classes, C.

    Returns:
        [C], float32; 1 for a class without rows.
    """
    rows = np.bincount(targets, minlength=count)
    return np.where(rows, len(targets) / (count * np.maximum(rows, 1)), 1).astype(np.float32)
