"""The sections of the modalities and of the networks that read them."""

from dataclasses import dataclass, field
from typing import Any, Literal

from jfusion.config.checks import require

# The networks that read each kind of modality.
TEXT_NETWORKS = ("distilbert", "bert", "text_cnn")
IMAGE_NETWORKS = ("convnext", "mobilenet_v2", "efficientnet")
SEQUENCE_NETWORKS = ("mean_pool", "temporal_cnn", "frame_transformer")
TABULAR_NETWORKS = ("tabular",)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters beside linear layers (arXiv 2106.09685).

    The layers keep their own weights: freeze those by a rate of 0, and train what matches
    `.*/lora_[ab]`.

    Attributes:
        rank: Width of the adapters; 0 has none.
        alpha: The adapters' output is scaled by `alpha / rank`.
        dropout: Rate on the adapters' input.
        patterns: Which linear layers, by their paths within the encoder; the first two are the
            query and value layers of BERT and DistilBERT.
        weights: A folder with a trained adapter in PEFT's layout; empty starts from nothing, where
            the network's answers are those of its own weights.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.1
    patterns: tuple[str, ...] = (".*/(query|value)", ".*/(q_lin|v_lin)")
    weights: str = ""

    def __post_init__(self):
        require(self.rank >= 0, "rank", "0 or more", self.rank)
        require(self.alpha > 0, "alpha", "above 0", self.alpha)
        require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        require(bool(self.patterns), "patterns", "at least one", self.patterns)


@dataclass(frozen=True)
class Encoder:
    """The network that reads one modality.

    Attributes:
        network: Which architecture.
        weights: Pretrained weights: a local folder or a Hugging Face id; empty trains from scratch.
        revision: The hub revision (commit, tag or branch) of `weights`; empty takes the commit that
            jfusion pins for well-known ids; others are not downloaded without one.
        init_from: A model folder of an earlier run, `RUN/model`, or `RUN/model:name` where the
            modality has another name there. The encoder comes from there with its weights, sizes,
            statistics, `dense` layer and adapters, and so does what turns cells into arrays: the
            vocabulary, the scaling. It must be what this section asks for.
        sizes: Constructor numbers of the network, by the reference's names. Without `weights` they
            define it; with `weights` they may change only what has no parameters (dropout rates).
        lora: Adapters beside its linear layers.
        eval_when_frozen: While all of its parameters are frozen, it runs in training as it does in
            evaluation: no dropout and no drop path, so that its features can be cached. (A frozen
            BatchNorm always keeps its statistics.)
        dense: Width of a fully connected layer (with BatchNorm, ReLU, dropout) on its pooled
            feature; 0 has none.
        dense_dropout: Rate after that layer.
    """

    network: Literal[
        "distilbert",
        "bert",
        "text_cnn",
        "convnext",
        "mobilenet_v2",
        "efficientnet",
        "mean_pool",
        "temporal_cnn",
        "frame_transformer",
        "tabular",
    ]
    weights: str = ""
    revision: str = ""
    init_from: str = ""
    sizes: dict[str, Any] = field(default_factory=dict)
    lora: Lora = field(default_factory=Lora)
    eval_when_frozen: bool = False
    dense: int = 0
    dense_dropout: float = 0.3

    def __post_init__(self):
        require(self.dense >= 0, "dense", "0 or more", self.dense)
        one = not (self.init_from and self.weights)
        require(one, "init_from", "none with weights", self.init_from)
        rate = self.dense_dropout
        require(0 <= rate < 1, "dense_dropout", "in [0, 1)", rate)
        needs = not self.lora.weights or (self.weights and self.lora.rank)
        require(needs, "lora.weights", "none without weights and lora.rank", self.lora.weights)


def _require_network(encoder: Encoder, networks: tuple[str, ...], kind: str) -> None:
    expected = f"one that reads {kind} ({', '.join(networks)})"
    require(encoder.network in networks, "encoder.network", expected, encoder.network)


@dataclass(frozen=True)
class Text:
    """A text column.

    Attributes:
        column: The table's column.
        max_tokens: Tokens of a window, with the special ones.
        windows: Longer texts are read in up to so many windows, spread over the whole text, whose
            features are averaged; what is left out is counted.
        tokenizer: A folder or hub id; empty takes that of the encoder's weights, or, for an encoder
            from scratch, fits a vocabulary of whole words on the training split.
        vocabulary: Size of a fitted vocabulary: the commonest words, special tokens among them. For
            text_cnn there are none: the words alone, and padding on top.
        ids: The cells are lists of token numbers already, `[15, 847, 23]`: numbers from 1 to
            `vocabulary`, and 0 for padding.
    """

    encoder: Encoder
    column: str
    kind: Literal["text"] = "text"
    max_tokens: int = 256
    windows: int = 1
    tokenizer: str = ""
    vocabulary: int = 15_000
    ids: bool = False

    def __post_init__(self):
        _require_network(self.encoder, TEXT_NETWORKS, self.kind)
        require(self.max_tokens >= 3, "max_tokens", "at least 3", self.max_tokens)
        require(self.windows >= 1, "windows", "at least 1", self.windows)
        require(self.vocabulary >= 10, "vocabulary", "at least 10", self.vocabulary)
        require(not (self.ids and self.tokenizer), "tokenizer", "none with ids", self.tokenizer)
        own = not (self.encoder.init_from and self.tokenizer)
        require(own, "tokenizer", "none with encoder.init_from", self.tokenizer)


@dataclass(frozen=True)
class Image:
    """A picture column: paths relative to the table, or encoded bytes.

    Attributes:
        column: The table's column.
        size: Side of the square picture the network sees, in pixels.
        crop: Share of the shorter side that the centre crop keeps (0.875: resize to 256, crop 224);
            0 resizes straight to the square without keeping the aspect.
        trim: Cut off white borders first.
        flip: Probability of a horizontal flip in training.
        mean: Channel means of pictures scaled to [0, 1]; empty takes those of the encoder's
            weights, or ImageNet's.
        std: Channel standard deviations, likewise.
    """

    encoder: Encoder
    column: str
    kind: Literal["image"] = "image"
    size: int = 224
    crop: float = 0.875
    trim: bool = False
    flip: float = 0.5
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        _require_network(self.encoder, IMAGE_NETWORKS, self.kind)
        require(self.size >= 8, "size", "at least 8 pixels", self.size)
        require(0 <= self.crop <= 1, "crop", "between 0 and 1", self.crop)
        require(0 <= self.flip <= 1, "flip", "between 0 and 1", self.flip)
        require(len(self.mean) in (0, 3), "mean", "three numbers or empty", self.mean)
        require(len(self.std) in (0, 3), "std", "three numbers or empty", self.std)
        require(all(s > 0 for s in self.std), "std", "numbers above 0", self.std)


@dataclass(frozen=True)
class Frames:
    """A column of feature sequences: numbers per frame, over time.

    Attributes:
        column: The table's column: paths to `.npy` files of shape [frames, features] relative to
            the table, or nested lists. NaN marks what is not known.
        steps: Longer sequences are averaged into so many equal stretches of time.
        features: Which features, by name, where the data set names them; empty takes all.
    """

    encoder: Encoder
    column: str
    kind: Literal["sequence"] = "sequence"
    steps: int = 100
    features: tuple[str, ...] = ()

    def __post_init__(self):
        _require_network(self.encoder, SEQUENCE_NETWORKS, self.kind)
        require(not self.encoder.weights, "encoder.weights", "none", self.encoder.weights)
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        distinct = len(set(self.features)) == len(self.features)
        require(distinct, "features", "all different", self.features)


@dataclass(frozen=True)
class Tabular:
    """Columns of numbers and of categories, read together.

    Attributes:
        numbers: The table's columns of numbers. They are standardised by the training split.
        categories: Its columns of categories. A name that the training split does not have is a
            value of its own, and so is an empty cell in any column.
        log: Those of the numbers that are read as sign(x) log(1 + |x|), for what is skewed.
    """

    encoder: Encoder
    kind: Literal["tabular"] = "tabular"
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    log: tuple[str, ...] = ()

    def __post_init__(self):
        _require_network(self.encoder, TABULAR_NETWORKS, self.kind)
        require(not self.encoder.weights, "encoder.weights", "none", self.encoder.weights)
        expected = "at least one column here or in categories"
        require(bool(self.columns), "numbers", expected, self.numbers)
        distinct = len(set(self.columns)) == len(self.columns)
        expected = "all different, and none of numbers"
        require(distinct, "categories", expected, self.categories)
        require(set(self.log) <= set(self.numbers), "log", "some of numbers", self.log)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, first the numbers."""
        return (*self.numbers, *self.categories)
