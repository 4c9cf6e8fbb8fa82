"""What is trained in a measurement: networks, batch and numbers that both sides share."""

import dataclasses
from typing import Any

import numpy as np

LABELS = 23  # MM-IMDb's genres
HIDDEN = 512  # the fully connected layer between the features and the labels of genre_fusion
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
BERT = dict(
    vocab_size=30522,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
)
LORA = dict(layers=("query", "value"), rank=8, alpha=16.0, dropout=0.1)
IMAGE = dict(hidden_sizes=(96, 192, 384, 768), depths=(3, 3, 9, 3), drop_path_rate=0.1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network at one batch size and precision.

    Attributes:
        name: The row's name in the table.
        text: Sizes of the network that reads the text, or None without a text.
        image: ConvNeXt's sizes, or None without a picture.
        text_network: `distilbert` or `bert`.
        lora: Adapters of the text's network, which is frozen then; None trains all of it.
        hidden: Width of the fully connected layer before the labels; 0 has none.
        batch: Rows of a batch.
        dtype: `float32` or `bfloat16` (parameters and optimizer stay float32).
        tokens: Positions of a text.
        pixels: Side of a picture.
    """

    name: str
    text: dict[str, Any] | None
    image: dict[str, Any] | None
    text_network: str = "distilbert"
    lora: dict[str, Any] | None = None
    hidden: int = HIDDEN
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
    "full_bert": dict(text=BERT, image=None, text_network="bert", hidden=0),
    "lora_bert": dict(text=BERT, image=None, text_network="bert", hidden=0, lora=LORA),
}
