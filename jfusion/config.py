"""What an experiment is: every section and its defaults.

A config file (`configs/*.py`) returns plain values and says only what differs from the defaults
here; `config_file.py` reads it and checks it against these classes. Nothing heavy is imported, so
a wrong key or value ends a command at once.
"""

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any, Literal

from jfusion.errors import UserError


class ConfigError(UserError):
    """A config that cannot run; the message is one line that names the key."""


class RangeError(ValueError):
    """A value out of its range, named by its key within the section."""


# The networks that read each kind of modality.
TEXT_NETWORKS = ("distilbert", "bert")
IMAGE_NETWORKS = ("convnext",)

# The scores of each kind of target, see `training/metrics.py`.
METRICS = {
    "multilabel": ("macro_f1", "micro_f1", "weighted_f1", "samples_f1", "map", "auroc"),
}


def _require(condition: bool, key: str, expected: str, value: Any) -> None:
    if not condition:
        raise RangeError(f"{key}: expected {expected}, got {value!r}")


@dataclass(frozen=True)
class Encoder:
    """The network that reads one modality.

    Attributes:
        network: Which architecture.
        weights: Pretrained weights: a local folder or a Hugging Face id; empty trains from scratch.
        revision: The hub revision (commit, tag or branch) of `weights`; empty takes the commit that
            jfusion pins for well-known ids, `main` for others.
        sizes: Constructor numbers of the network, by the reference's names. Without `weights` they
            define it; with `weights` they may change only what has no parameters (dropout rates).
    """

    network: Literal["distilbert", "bert", "convnext"]
    weights: str = ""
    revision: str = ""
    sizes: dict[str, Any] = field(default_factory=dict)


def _require_network(encoder: Encoder, networks: tuple[str, ...], kind: str) -> None:
    expected = f"one that reads {kind} ({', '.join(networks)})"
    _require(encoder.network in networks, "encoder.network", expected, encoder.network)


@dataclass(frozen=True)
class Text:
    """A text column.

    Attributes:
        column: The table's column.
        max_tokens: Longer texts are cut (and counted).
        tokenizer: A folder or hub id; empty takes that of the encoder's weights, or, for an encoder
            from scratch, fits a vocabulary of whole words on the training split.
        vocabulary: Size of a fitted vocabulary.
    """

    encoder: Encoder
    column: str
    kind: Literal["text"] = "text"
    max_tokens: int = 256
    tokenizer: str = ""
    vocabulary: int = 15_000

    def __post_init__(self):
        _require_network(self.encoder, TEXT_NETWORKS, self.kind)
        _require(self.max_tokens >= 3, "max_tokens", "at least 3", self.max_tokens)
        _require(self.vocabulary >= 10, "vocabulary", "at least 10", self.vocabulary)


@dataclass(frozen=True)
class Image:
    """A picture column: paths relative to the table, or encoded bytes.

    Attributes:
        column: The table's column.
        size: Side of the square picture the network sees, in pixels.
        crop: Share of the shorter side that the centre crop keeps (0.875: resize to 256, crop 224);
            0 resizes straight to the square without keeping the aspect.
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
    flip: float = 0.5
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        _require_network(self.encoder, IMAGE_NETWORKS, self.kind)
        _require(self.size >= 8, "size", "at least 8 pixels", self.size)
        _require(0 <= self.crop <= 1, "crop", "between 0 and 1", self.crop)
        _require(0 <= self.flip <= 1, "flip", "between 0 and 1", self.flip)
        _require(len(self.mean) in (0, 3), "mean", "three numbers or empty", self.mean)
        _require(len(self.std) in (0, 3), "std", "three numbers or empty", self.std)
        _require(all(s > 0 for s in self.std), "std", "numbers above 0", self.std)


@dataclass(frozen=True)
class MultiLabel:
    """A column with any number of labels per row.

    Attributes:
        column: The table's column: a list, a JSON list, or names joined by `delimiter`.
        labels: The names, in order; empty takes the data set's own, or the sorted names of the
            training split. Any other name in the column is an error.
        delimiter: What joins the names of a cell that is not a list.
        loss: Binary cross-entropy, or the asymmetric loss (arXiv 2009.14119).
        pos_weight: Weigh positives of each label by negatives / positives of the training split.
        gamma_negative: Focusing exponent of the asymmetric loss on negatives.
        gamma_positive: The same on positives.
        clip: Probability margin of the asymmetric loss on negatives.
        threshold: A label is predicted where its probability exceeds this.
        weight: Weight of this target in the sum of losses.
    """

    column: str
    kind: Literal["multilabel"] = "multilabel"
    labels: tuple[str, ...] = ()
    delimiter: str = "|"
    loss: Literal["bce", "asymmetric"] = "bce"
    pos_weight: bool = False
    gamma_negative: float = 4.0
    gamma_positive: float = 1.0
    clip: float = 0.05
    threshold: float = 0.5
    weight: float = 1.0

    def __post_init__(self):
        _require(self.delimiter != "", "delimiter", "at least one character", self.delimiter)
        _require(self.gamma_negative >= 0, "gamma_negative", "0 or more", self.gamma_negative)
        _require(self.gamma_positive >= 0, "gamma_positive", "0 or more", self.gamma_positive)
        _require(0 <= self.clip < 1, "clip", "in [0, 1)", self.clip)
        _require(0 < self.threshold < 1, "threshold", "between 0 and 1", self.threshold)
        _require(self.weight >= 0, "weight", "0 or more", self.weight)
        _require(len(set(self.labels)) == len(self.labels), "labels", "all different", self.labels)


@dataclass(frozen=True)
class Data:
    """Where the rows come from.

    Attributes:
        source: `movies` is the embedded sample; `mm_imdb` a data set built by `jfusion.prepare`;
            `table` a CSV, TSV, Parquet or JSONL file of one's own.
        path: The table file, or the folder that `jfusion.prepare` wrote to (empty: its default).
        root: Folder that picture paths are relative to and may not leave; empty: the table's.
        val_path: A separate validation table.
        test_path: A separate test table.
        split_column: Column with `train`, `val` or `test`; without it and without separate files,
            rows are split at random (by `seed`) into the two fractions below and the rest.
        val_fraction: Share of rows for validation.
        test_fraction: Share of rows for the test.
        id_column: Column that names a row and may hold no name twice.
        on_error: A bad cell ends the run (`raise`), counts as an absent modality (`missing`), or
            leaves its row out (`skip`). A row whose label is bad is left out by both of the latter.
        cache_dir: Folder for tokenized texts and decoded pictures; empty: `~/.cache/jfusion`.
        rows: Number of rows of the embedded sample, or 0 for its full size.
    """

    source: Literal["movies", "mm_imdb", "table"] = "table"
    path: str = ""
    root: str = ""
    val_path: str = ""
    test_path: str = ""
    split_column: str = ""
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    id_column: str = ""
    on_error: Literal["raise", "missing", "skip"] = "raise"
    cache_dir: str = ""
    rows: int = 0

    def __post_init__(self):
        _require(self.val_fraction > 0, "val_fraction", "above 0", self.val_fraction)
        _require(self.test_fraction > 0, "test_fraction", "above 0", self.test_fraction)
        _require(
            self.val_fraction + self.test_fraction < 1,
            "test_fraction",
            "below 1 together with val_fraction",
            self.test_fraction,
        )
        _require(self.source != "table" or self.path, "path", "a table file", self.path)
        _require(self.rows >= 0, "rows", "0 or more", self.rows)


@dataclass(frozen=True)
class Fusion:
    """How the encodings become one vector.

    Attributes:
        kind: `concat` joins the pooled features (sorted by modality name), then fully connected
            layers.
        hidden: Widths of the fully connected layers (Linear, ReLU, dropout) before the heads.
        dropout: Rate after each of them.
        modality_dropout: Probability, per row and modality, of hiding a present modality in
            training; the last modality of a row is never hidden.
    """

    kind: Literal["concat"] = "concat"
    hidden: tuple[int, ...] = (512,)
    dropout: float = 0.3
    modality_dropout: float = 0.0

    def __post_init__(self):
        _require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        _require(
            0 <= self.modality_dropout < 1, "modality_dropout", "in [0, 1)", self.modality_dropout
        )


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own trainable parameters and rates.

    Attributes:
        epochs: Passes over the training split, at most (early stopping may end it before).
        rates: `(pattern, peak learning rate)` pairs over parameter paths; the first full match wins
            and a rate of 0 freezes. Every parameter must be covered.
        schedule: Shape of the rate after the warm-up.
        warmup: Share of the phase's steps over which the rate rises from 0.
    """

    epochs: int
    rates: tuple[tuple[str, float], ...] = ((".*", 1e-3),)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.1

    def __post_init__(self):
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        for pattern, rate in self.rates:
            _require(rate >= 0, "rates", f"0 or more for {pattern!r}", rate)


@dataclass(frozen=True)
class Train:
    """The optimisation.

    Attributes:
        phases: The phases, in order.
        batch_size: Rows per optimizer step, over all devices and hosts.
        accumulate: Equal parts a batch is cut into, one after the other, to save memory.
        precision: Compute type; parameters, loss and statistics stay float32. float16 adds dynamic
            loss scaling.
        weight_decay: Decoupled decay, on matrices and kernels only.
        clip: Largest global norm of the gradient; 0 does not clip.
        b1: Adam's first-moment decay.
        b2: Adam's second-moment decay.
        ema: Decay of an average of the weights that evaluation uses; 0 has none.
        monitor: Validation metric that picks the best model: `loss`, or a metric of the target;
            with several targets `<target>/<metric>`.
        patience: Evaluations without improvement that end a phase; 0 never does.
        checkpoint_every: Steps between checkpoints, besides those at the end of each epoch; 0 none.
        keep: How many of the newest checkpoints stay, besides the best.
        max_steps: Ends the run after this many steps; 0 does not.
    """

    phases: tuple[Phase, ...]
    batch_size: int = 32
    accumulate: int = 1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    weight_decay: float = 0.01
    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    ema: float = 0.0
    monitor: str = "macro_f1"
    patience: int = 0
    checkpoint_every: int = 0
    keep: int = 2
    max_steps: int = 0

    def __post_init__(self):
        _require(bool(self.phases), "phases", "at least one phase", self.phases)
        _require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        _require(
            self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
            "accumulate",
            f"a divisor of batch_size ({self.batch_size})",
            self.accumulate,
        )
        _require(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        _require(self.clip >= 0, "clip", "0 or more", self.clip)
        _require(0 <= self.b1 < 1, "b1", "in [0, 1)", self.b1)
        _require(0 <= self.b2 < 1, "b2", "in [0, 1)", self.b2)
        _require(0 <= self.ema < 1, "ema", "in [0, 1)", self.ema)
        _require(self.patience >= 0, "patience", "0 or more", self.patience)
        for key in ("checkpoint_every", "max_steps"):
            _require(getattr(self, key) >= 0, key, "0 or more", getattr(self, key))
        _require(self.keep >= 1, "keep", "at least 1", self.keep)


@dataclass(frozen=True)
class Log:
    """What a run reports.

    Attributes:
        every: Steps between writes of training losses, rates and speed.
        pictures: Validation rows on TensorBoard's page of pictures with true and predicted labels.
    """

    every: int = 10
    pictures: int = 16

    def __post_init__(self):
        _require(self.every >= 1, "every", "at least 1", self.every)
        _require(self.pictures >= 0, "pictures", "0 or more", self.pictures)


@dataclass(frozen=True)
class Config:
    """One experiment.

    Attributes:
        inputs: The modalities, by name.
        targets: What is predicted, by name.
        train: The optimisation.
        data: Where the rows come from.
        fusion: How the modalities are joined.
        log: What is reported.
        seed: Seeds initialisation, shuffling, dropout, and random splits.
        name: The config file's name and variant, set when it is loaded.
    """

    inputs: dict[str, Text | Image]
    targets: dict[str, MultiLabel]
    train: Train
    data: Data = field(default_factory=Data)
    fusion: Fusion = field(default_factory=Fusion)
    log: Log = field(default_factory=Log)
    seed: int = 0
    name: str = ""

    def __post_init__(self):
        _require(bool(self.inputs), "inputs", "at least one modality", self.inputs)
        _require(bool(self.targets), "targets", "at least one target", self.targets)
        monitor, known = self.train.monitor, self._metrics()
        if monitor not in known:
            near = difflib.get_close_matches(monitor, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RangeError(f"train.monitor: {monitor!r} is none of {', '.join(known)}{hint}")

    def _metrics(self) -> list[str]:
        """The names of all validation metrics."""
        if len(self.targets) == 1:
            return ["loss", *(m for t in self.targets.values() for m in METRICS[t.kind])]
        return [
            "loss",
            *(f"{n}/{m}" for n, t in self.targets.items() for m in ("loss", *METRICS[t.kind])),
        ]


def to_dict(config: Any) -> dict[str, Any]:
    """The plain, JSON-ready form of a config or of a section."""
    return dataclasses.asdict(config)
