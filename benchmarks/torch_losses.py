"""The twins of jfusion's losses, in float32.

B batch, M modalities, E width of a vector.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

from jfusion.config import Classes, Embedding, MultiLabel, Regression, Target


def total(
    targets: Mapping[str, Target],
    outputs: Mapping[str, torch.Tensor],
    truth: Mapping[str, torch.Tensor],
    present: torch.Tensor,
) -> torch.Tensor:
    """The sum of the targets' losses by their weights.

    Args:
        targets: What is predicted.
        outputs: What the heads say.
        truth: What they should.
        present: Which rows have which modality, bool [B, M].
    """
    return sum(
        target.weight * _loss(target, outputs[name].float(), truth[name], present)
        for name, target in targets.items()
    )


def info_nce(
    vectors: torch.Tensor, subjects: torch.Tensor, present: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The contrast across modalities, the mean over the rows.

    Args:
        vectors: Of length 1, by modality, [B, M, E].
        subjects: Number of each row's person [B].
        present: Which rows have which modality, bool [B, M].
        temperature: Divides the similarities.
    """
    scores = torch.einsum("ime,jne->mnij", vectors, vectors) / temperature
    here = present.T
    negative = (subjects[:, None] != subjects[None]) & here[None, :, None, :]
    against = scores.masked_fill(~negative, -1e9).logsumexp(dim=-1)  # [M, M, B]
    each = functional.softplus(against - scores.diagonal(dim1=2, dim2=3))
    apart = ~torch.eye(len(here), dtype=torch.bool, device=here.device)
    pair = here[:, None] & here[None] & apart[:, :, None]
    return (torch.where(pair, each, 0).sum((0, 1)) / pair.sum((0, 1)).clamp(min=1)).mean()


def _loss(
    target: Target, outputs: torch.Tensor, truth: torch.Tensor, present: torch.Tensor
) -> torch.Tensor:
    match target:
        case MultiLabel():
            return functional.binary_cross_entropy_with_logits(outputs, truth)
        case Classes():
            return functional.cross_entropy(outputs, truth)
        case Regression():
            mean = functional.mse_loss(outputs, truth)
            return (mean + 1e-6).sqrt() if target.loss == "rmse" else mean
        case Embedding():
            return info_nce(outputs[:, 1:], truth[:, 1], present, target.temperature)
