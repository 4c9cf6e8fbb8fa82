"""What is trained in a measurement: networks, batch and numbers that both sides share."""

import dataclasses
from typing import Any

import numpy as np

LABELS = 23  # MM-IMDb's genres
HIDDEN = 512  # the fully connected layer between the features and the labels
HEAD_DROPOUT = 0.3
RATE, DECAY, CLIP = 1e-4, 0.01, 1.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TEXT = dict(
    vocab_size=30522,
    dim=768,
    n_layers=6,
    n_heads=12,
    hidden_dim=3072,
    max_position_embeddings=512,
    dropout=0.1,
    attention_dropout=0.1,
)
IMAGE = dict(hidden_sizes=(96, 192, 384, 768), depths=(3, 3, 9, 3), drop_path_rate=0.1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network at one batch size and precision.

    Attributes:
        name: The row's name in the table.
        text: DistilBERT's sizes, or None without a text.
        image: ConvNeXt's sizes, or None without a picture.
        batch: Rows of a batch.
        dtype: `float32` or `bfloat16` (parameters and optimizer stay float32).
        tokens: Positions of a text.
        pixels: Side of a picture.
    """

    name: str
    text: dict[str, Any] | None
    image: dict[str, Any] | None
    batch: int = 8
    dtype: str = "float32"
    tokens: int = 256
    pixels: int = 224

    def arrays(self) -> dict[str, np.ndarray]:
        """A batch: `ids` and `length`, `pixels`, and `labels`, as far as the case has them."""
        rng = np.random.default_rng(0)
        arrays = {"labels": rng.integers(0, 2, (self.batch, LABELS)).astype(np.float32)}
        if self.text:
            ids = rng.integers(1, self.text["vocab_size"], (self.batch, self.tokens))
            # Plots are of all lengths; both sides compute all positions and mask the rest.
            lengths = rng.integers(self.tokens // 4, self.tokens, self.batch, endpoint=True)
            arrays["ids"] = np.where(np.arange(self.tokens) < lengths[:, None], ids, 0)
            arrays["ids"] = arrays["ids"].astype(np.int32)
            arrays["length"] = lengths.astype(np.int32)
        if self.image:
            shape = (self.batch, self.pixels, self.pixels, 3)
            arrays["pixels"] = rng.integers(0, 256, shape, np.uint8)
        return arrays


MODELS = {
    "distilbert": dict(text=TEXT, image=None),
    "convnext_tiny": dict(text=None, image=IMAGE),
    "genre_fusion": dict(text=TEXT, image=IMAGE),
}
