"""The twin of `jfusion/models/cross_attention.py`, with SDPA.

B batch, N tokens of a modality, D width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_frames import masked_mean
from jfusion.config import CrossAttentionFusion

Streams = dict[str, torch.Tensor]


class CrossAttention(nn.Module):
    """Layers in which all modalities attend to each other, then their sum with learnt weights."""

    def __init__(self, widths: Mapping[str, int], fusion: CrossAttentionFusion):
        super().__init__()
        width = fusion.width
        self.projections = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(w, width), norm(width)) for name, w in widths.items()}
        )
        self.layers = nn.ModuleList(Layer(list(widths), fusion) for _ in range(fusion.layers))
        self.norms = nn.ModuleDict({name: norm(width) for name in widths})
        self.gates = nn.ParameterDict({name: torch.zeros(1) for name in widths})
        self.width = width

    def forward(
        self, tokens: Streams, masks: Streams, present: Streams
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Joins tokens [B, N, D], of which `masks` [B, N] are real, of the modalities present [B].

        Returns:
            The joint feature [B, F] and those of the modalities.
        """
        # What is absent is asked, too, and not listened to, so that no softmax is over nothing.
        real = {name: masks[name] & present[name][:, None] for name in tokens}
        x = {
            name: self.projections[name](torch.where(real[name][:, :, None], tokens[name], 0))
            for name in tokens
        }
        for layer in self.layers:
            x = layer(x, masks, present)
        each = {name: masked_mean(self.norms[name](x[name]), real[name]) for name in x}
        here = torch.stack([present[name] for name in x], dim=1)
        scores = torch.cat([self.gates[name] for name in x])
        weights = scores.masked_fill(~here, -torch.inf).softmax(dim=1)  # [B, M]
        features = torch.stack(list(each.values()), dim=1)
        return (weights[:, :, None] * features).sum(dim=1), list(each.values())


class Layer(nn.Module):
    """Every modality attends to every other, then passes two fully connected layers by itself."""

    def __init__(self, names: Sequence[str], fusion: CrossAttentionFusion):
        super().__init__()
        width, dropout = fusion.width, fusion.dropout

        def thinks() -> nn.Module:
            return nn.Sequential(
                norm(width),
                nn.Linear(width, fusion.feed_forward),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(fusion.feed_forward, width),
                nn.Dropout(dropout),
            )

        self.norms = nn.ModuleDict({name: norm(width) for name in names})
        self.attention = nn.ModuleDict(
            {
                name: nn.ModuleDict(
                    {
                        other: Attention(width, fusion.heads, dropout)
                        for other in names
                        if other != name
                    }
                )
                for name in names
            }
        )
        self.feed_forward = nn.ModuleDict({name: thinks() for name in names})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Streams, masks: Streams, present: Streams) -> Streams:
        """The tokens [B, N, D] of all modalities, one layer on."""
        normal = {name: self.norms[name](x[name]) for name in x}
        after = {}
        for name, attentions in self.attention.items():
            total, count = 0, 0
            for other, attention in attentions.items():
                found = attention(normal[name], normal[other], masks[other])
                total = total + torch.where(present[other][:, None, None], found, 0)
                count = count + present[other].float()
            found = total / count.clamp(min=1)[:, None, None]
            y = x[name] + self.dropout(found)
            after[name] = y + self.feed_forward[name](y)
        return after


class Attention(nn.Module):
    """Multi-head attention of one sequence to another; the keys have no bias."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What `x` [B, T, D] finds in `source` [B, S, D] where `mask` [B, S]: [B, T, D]."""

        def split(a: torch.Tensor) -> torch.Tensor:
            return a.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        found = functional.scaled_dot_product_attention(
            split(self.query(x)),
            split(self.key(source)),
            split(self.value(source)),
            attn_mask=mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(found.transpose(1, 2).flatten(2))


def norm(width: int) -> nn.LayerNorm:
    """As all of the fusion's and the sequences'."""
    return nn.LayerNorm(width, eps=1e-5)
