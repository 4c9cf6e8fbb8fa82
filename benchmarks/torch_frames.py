"""The twins of what reads sequences: the mean over time and the temporal CNN.

B batch, T frames, F features of a frame, D width.
"""

from collections.abc import Sequence

import torch
from torch import nn


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the second axis of what `mask` [B, N, D] or [B, N] marks: [B, D]."""
    if mask.ndim == 2:
        mask = mask[:, :, None]
    return torch.where(mask, x, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class TemporalCNN(nn.Module):
    """Residual blocks of dilated convolutions."""

    def __init__(
        self,
        features: int,
        width: int,
        kernel_size: int,
        dilations: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width if index else features, width, kernel_size, dilation, dropout)
            for index, dilation in enumerate(dilations)
        )

    def forward(self, frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Frames [B, T, F] with what is known of them, bool [B, T, F], to tokens [B, T, D]."""
        mask = valid.any(dim=-1)[:, :, None]
        x = torch.where(valid, frames, 0)
        for block in self.blocks:
            x = block(x, mask)
        return x


class Block(nn.Module):
    """Convolution, LayerNorm, ReLU and dropout beside a residual."""

    def __init__(
        self, in_features: int, width: int, kernel_size: int, dilation: int, dropout: float
    ):
        super().__init__()
        self.conv = nn.Conv1d(in_features, width, kernel_size, padding="same", dilation=dilation)
        self.rest = nn.Sequential(nn.LayerNorm(width, eps=1e-5), nn.ReLU(), nn.Dropout(dropout))
        same = in_features == width
        self.projection = nn.Identity() if same else nn.Linear(in_features, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, T, I] -> [B, T, D], 0 where `mask` [B, T, 1] is False."""
        y = self.rest(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return torch.where(mask, self.projection(x) + y, 0)
