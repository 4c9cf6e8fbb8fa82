"""The sections of how the modalities become one vector."""

from dataclasses import dataclass
from typing import Literal

from jfusion.config.checks import require


@dataclass(frozen=True)
class ConcatFusion:
    """Joins the pooled features (sorted by modality name), then fully connected layers.

    Attributes:
        project: Width that each modality's feature is projected to first; 0 takes it as it is.
        norm: LayerNorm or BatchNorm after each projection and in each fully connected layer.
        hidden: Widths of the fully connected layers (Linear, ReLU, dropout) before the heads.
        dropout: Rate after each of them.
        dropouts: A rate for each of them, in place of `dropout`.
        modality_dropout: Probability, per row and modality, of hiding a present modality in
            training; the last modality of a row is never hidden.
    """

    kind: Literal["concat"] = "concat"
    project: int = 0
    norm: Literal["none", "layer", "batch"] = "none"
    hidden: tuple[int, ...] = (512,)
    dropout: float = 0.3
    dropouts: tuple[float, ...] = ()
    modality_dropout: float = 0.0

    def __post_init__(self):
        fits = len(self.dropouts) in (0, len(self.hidden))
        require(fits, "dropouts", f"{len(self.hidden)} rates, as many as hidden", self.dropouts)
        require(
            all(0 <= x < 1 for x in self.dropouts), "dropouts", "rates in [0, 1)", self.dropouts
        )
        require(self.project >= 0, "project", "0 or more", self.project)
        _require_rates(self)


@dataclass(frozen=True)
class CrossAttentionFusion:
    """Every modality attends to every other in each layer, then a weighted sum of all.

    Attributes:
        width: Width that each modality's tokens are projected to.
        layers: Number of layers.
        heads: Attention heads; they share the width.
        feed_forward: Width inside each layer's fully connected part.
        gate: What the weights of the sum depend on: `learned` has one per modality, `sample` makes
            them of each row's features.
        dropout: Rate on attention weights and after each part of a layer.
        modality_dropout: As for `concat`.
    """

    kind: Literal["cross_attention"] = "cross_attention"
    width: int = 512
    layers: int = 6
    heads: int = 8
    feed_forward: int = 1024
    gate: Literal["learned", "sample"] = "learned"
    dropout: float = 0.1
    modality_dropout: float = 0.0

    def __post_init__(self):
        require(self.layers >= 1, "layers", "at least 1", self.layers)
        require(self.heads >= 1, "heads", "at least 1", self.heads)
        whole = self.width >= 1 and self.width % self.heads == 0
        require(whole, "width", f"a multiple of heads ({self.heads})", self.width)
        require(self.feed_forward >= 1, "feed_forward", "at least 1", self.feed_forward)
        _require_rates(self)


Fusion = ConcatFusion | CrossAttentionFusion


def _require_rates(fusion: Fusion) -> None:
    require(0 <= fusion.dropout < 1, "dropout", "in [0, 1)", fusion.dropout)
    rate = fusion.modality_dropout
    require(0 <= rate < 1, "modality_dropout", "in [0, 1)", rate)
