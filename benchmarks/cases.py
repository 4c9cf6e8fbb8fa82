"""What is trained in a measurement: networks, batch and numbers that both sides share."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jfusion import config_file
from jfusion.config import (
    Classes,
    ConcatFusion,
    Embedding,
    Fusion,
    MultiLabel,
    Regression,
    Target,
)

CONFIGS = Path(__file__).parents[1] / "configs"
DTYPES = ("float32", "bfloat16")
LABELS = 23  # MM-IMDb's genres
RATE, DECAY, CLIP = 1e-4, 0.01, 1.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CENTRE, SPREAD = 6.7, 5.9  # of PHQ-8 scores, about

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
ALL_LINEAR = ("query", "key", "value", "dense")
IMAGE = dict(hidden_sizes=(96, 192, 384, 768), depths=(3, 3, 9, 3), drop_path_rate=0.1)
MOBILENET = dict(depth_multiplier=1.0)
EFFICIENTNET = dict(
    width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, drop_connect_rate=0.2
)
FRAMES = dict(audio=74, video=10)
CNN = dict(width=512, kernel_size=3, dilations=(1, 2, 4), dropout=0.15)

GENRES = dict(genres=MultiLabel("genres"))


@dataclasses.dataclass(frozen=True)
class Case:
    """One network at one batch size and precision.

    Attributes:
        name: The row's name in the table.
        text: Sizes of the network that reads the text, or None without a text.
        image: Sizes of the network that reads the picture, or None without a picture.
        text_network: `distilbert` or `bert`.
        image_network: `convnext`, `mobilenet_v2` or `efficientnet`.
        lora: Adapters of the text's network, which is frozen then; None trains all of it.
        frames: The sequences and their features per frame.
        cnn: Sizes of the temporal CNN that reads each sequence, for cross-modal attention; None
            averages the frames, for concatenation.
        fusion: How the modalities are joined, as a config says it.
        targets: What is predicted, as a config says it.
        batch: Rows of a batch.
        dtype: `float32` or `bfloat16` (parameters and optimizer stay float32).
        tokens: Positions of a text.
        pixels: Side of a picture.
        steps: Frames of a sequence.
    """

    name: str
    text: Mapping[str, Any] | None = None
    image: Mapping[str, Any] | None = None
    text_network: str = "distilbert"
    image_network: str = "convnext"
    lora: Mapping[str, Any] | None = None
    frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    cnn: Mapping[str, Any] | None = None
    fusion: Fusion = dataclasses.field(default_factory=ConcatFusion)
    targets: Mapping[str, Target] = dataclasses.field(default_factory=lambda: GENRES)
    batch: int = 8
    dtype: str = "float32"
    tokens: int = 256
    pixels: int = 224
    steps: int = 100

    def inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """The arrays of each modality: `text`, `image` and the sequences, as far as there are."""
        rng = np.random.default_rng(0)
        inputs = {}
        if self.text:
            ids = rng.integers(1, self.text["vocab_size"], (self.batch, self.tokens))
            # Texts are of all lengths; both sides compute all positions and mask the rest.
            lengths = rng.integers(self.tokens // 4, self.tokens, self.batch, endpoint=True)
            ids = np.where(np.arange(self.tokens) < lengths[:, None], ids, 0)
            inputs["text"] = {"ids": ids.astype(np.int32), "length": lengths.astype(np.int32)}
        if self.image:
            shape = (self.batch, self.pixels, self.pixels, 3)
            inputs["image"] = {"pixels": rng.integers(0, 256, shape, np.uint8)}
        for name, features in self.frames.items():
            shape = (self.batch, self.steps, features)
            seen = rng.random((self.batch, self.steps, 1)) < 0.9  # a face is not found everywhere
            inputs[name] = {
                "frames": rng.normal(size=shape).astype(np.float32),
                "valid": np.broadcast_to(seen, shape).copy(),
            }
        return inputs

    def truth(self) -> dict[str, np.ndarray]:
        """The array of each target; every row is of a person of its own."""
        rng = np.random.default_rng(1)
        arrays = {}
        for name, target in self.targets.items():
            match target:
                case MultiLabel():
                    drawn = rng.integers(0, 2, (self.batch, LABELS)).astype(np.float32)
                case Classes():
                    drawn = rng.integers(0, outputs(target), self.batch).astype(np.int32)
                case Regression():
                    drawn = rng.integers(0, 25, (self.batch, 1)).astype(np.float32)
                case Embedding():
                    rows = np.arange(self.batch, dtype=np.int32)
                    drawn = np.stack([np.full_like(rows, -1), rows], axis=1)
            arrays[name] = drawn
        return arrays


def outputs(target: Target) -> int:
    """How many numbers the head of `target` gives: those of one vector, for an embedding."""
    match target:
        case MultiLabel():
            return LABELS
        case Classes():
            return 2
        case Regression():
            return 1
        case Embedding():
            return target.width


def _as_in(name: str) -> dict[str, Any]:
    """The fusion and the targets of a config's full recipe."""
    config = config_file.load(f"{CONFIGS / name}.py:daic_woz")
    return dict(fusion=config.fusion, targets=config.targets)


_BERT = dict(text=BERT, text_network="bert")
_LABELS_ONLY = dict(fusion=ConcatFusion(hidden=()))
MODELS = {
    "distilbert": dict(text=TEXT),
    "convnext_tiny": dict(image=IMAGE),
    "mobilenet_v2": dict(image=MOBILENET, image_network="mobilenet_v2"),
    "efficientnet": dict(image=EFFICIENTNET, image_network="efficientnet"),
    "genre_fusion": dict(text=TEXT, image=IMAGE),
    "full_bert": dict(**_BERT, **_LABELS_ONLY),
    "lora_bert": dict(**_BERT, **_LABELS_ONLY, lora=LORA),
    "lora_bert_all": dict(**_BERT, **_LABELS_ONLY, lora=LORA | dict(layers=ALL_LINEAR)),
    "phq8_lora": dict(**_BERT, lora=LORA, frames=FRAMES, **_as_in("phq8_lora")),
    "phq8_lora_norm": dict(**_BERT, lora=LORA, frames=FRAMES, **_as_in("phq8_lora_norm")),
    "phq8_attention": dict(text=TEXT, frames=FRAMES, cnn=CNN, **_as_in("phq8_attention")),
}
