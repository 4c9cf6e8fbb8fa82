"""The sections of the optimisation."""

from dataclasses import dataclass
from typing import Literal

from jfusion.config.checks import require


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
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        for pattern, rate in self.rates:
            require(rate >= 0, "rates", f"0 or more for {pattern!r}", rate)


@dataclass(frozen=True)
class Train:
    """The optimisation.

    Attributes:
        phases: The phases, in order.
        batch_size: Rows per optimizer step, over all devices and hosts.
        accumulate: Equal parts a batch is cut into, one after the other, to save memory. The loss
            is that of the whole batch; BatchNorm normalises each part by the part's own statistics
            (over all devices), which its running ones take in one after the other.
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
        cache_features: What an encoder makes of its input is computed once and kept on disk (in
            `data.cache_dir`) for the phases in which it is frozen, wherever that gives the same
            numbers: nothing in it is drawn at random, and the fusion reads its pooled feature
            alone. Of pictures that are flipped both forms are kept.
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
    cache_features: bool = True

    def __post_init__(self):
        require(bool(self.phases), "phases", "at least one phase", self.phases)
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        require(
            self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
            "accumulate",
            f"a divisor of batch_size ({self.batch_size})",
            self.accumulate,
        )
        require(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        require(self.clip >= 0, "clip", "0 or more", self.clip)
        require(0 <= self.b1 < 1, "b1", "in [0, 1)", self.b1)
        require(0 <= self.b2 < 1, "b2", "in [0, 1)", self.b2)
        require(0 <= self.ema < 1, "ema", "in [0, 1)", self.ema)
        require(self.patience >= 0, "patience", "0 or more", self.patience)
        for key in ("checkpoint_every", "max_steps"):
            require(getattr(self, key) >= 0, key, "0 or more", getattr(self, key))
        require(self.keep >= 1, "keep", "at least 1", self.keep)
