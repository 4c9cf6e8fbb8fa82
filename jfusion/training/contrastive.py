"""InfoNCE: draws the vectors of what belongs together towards each other, away from all others.

Shape legend: `B` rows, `M` modalities, `E` width of a vector.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

# Far below any similarity, and finite: a row of nothing else has a gradient of 0 and not NaN.
_NEVER = -1e9


def info_nce(
    vectors: jax.Array,
    targets: jax.Array,
    batch: Mapping[str, Any],
    *,
    temperature: float,
    positives: Literal["modalities", "class", "both"],
) -> jax.Array:
    """The loss of each row, against the other rows of the batch.

    For an anchor a, a positive p and the negatives N, with similarities s / temperature, the loss
    is -log(exp(s_ap) / (exp(s_ap) + sum_n exp(s_an))) (van den Oord et al., arXiv 1807.03748,
    equation 4), averaged over the positives. In `modalities` the anchor is a modality's vector, the
    positive another modality's of the same row, and the negatives are that other modality's in
    other rows (CLIP's pairing, arXiv 2103.00020, for every directed pair). In `class` anchor and
    candidates are the joint vectors, positives the rows of the same class (as in supervised
    contrastive learning, arXiv 2004.11362; but there the other positives also stand below the
    line). An anchor without positives costs 0, and so does one without negatives.

    Args:
        vectors: Of length 1, the joint one first and then those of the modalities, sorted by name,
            [B, 1 + M, E].
        targets: Class number (-1: none) and subject number of each row, int32 [B, 2]. Rows of the
            same subject are never negatives of each other.
        batch: Its `present` and `weight`; rows of weight 0 are neither positives nor negatives.
        temperature: Divides the similarities.
        positives: What belongs together.

    Returns:
        The loss of each row, float32 [B].
    """
    vectors = vectors.astype(jnp.float32)
    real = batch["weight"] > 0
    classes, subjects = targets[:, 0], targets[:, 1]
    stranger = real[None, :] & (subjects[:, None] != subjects[None, :])  # [B, B]
    total = jnp.zeros(len(vectors))
    if positives != "class":
        present = jnp.stack([batch["present"][name] for name in sorted(batch["present"])], axis=1)
        total += _across_modalities(vectors[:, 1:], present, stranger, temperature)
    if positives != "modalities":
        total += _within_classes(vectors[:, 0], classes, real, stranger, temperature)
    return total


def _across_modalities(vectors, present, stranger, temperature):
    """[B, M, E] and present bool [B, M] to [B], averaged over the pairs that a row has."""
    M = vectors.shape[1]
    scores = jnp.einsum("ime,jne->mnij", vectors, vectors) / temperature
    negative = stranger[None, None] & present.T[None, :, None, :]  # [1, M, B, B]
    against = jax.nn.logsumexp(jnp.where(negative, scores, _NEVER), axis=-1)  # [M, M, B]
    own = jnp.diagonal(scores, axis1=2, axis2=3)
    pair = present.T[:, None] & present.T[None] & ~jnp.eye(M, dtype=bool)[:, :, None]
    return _mean(jax.nn.softplus(against - own), pair, axis=(0, 1))


def _within_classes(vectors, classes, real, stranger, temperature):
    """[B, E] to [B], averaged over the positives that a row has."""
    scores = vectors @ vectors.T / temperature
    known = real & (classes >= 0)
    same = classes[:, None] == classes[None, :]
    others = ~jnp.eye(len(classes), dtype=bool)
    positive = same & others & known[:, None] & known[None, :]
    negative = stranger & ~same & known[:, None] & known[None, :]
    against = jax.nn.logsumexp(jnp.where(negative, scores, _NEVER), axis=-1)  # [B]
    return _mean(jax.nn.softplus(against[:, None] - scores), positive, axis=1)


def _mean(values, chosen, axis):
    """The mean over what is chosen; 0 where nothing is."""
    count = jnp.sum(chosen, axis=axis)
    return jnp.sum(jnp.where(chosen, values, 0), axis=axis) / jnp.maximum(count, 1)
