"""The whole experiment."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any

from jfusion.config.checks import RangeError, require
from jfusion.config.data import Data
from jfusion.config.fusion import ConcatFusion, CrossAttentionFusion
from jfusion.config.inputs import Frames, Image, Text
from jfusion.config.targets import METRICS, Classes, Embedding, MultiLabel, Regression
from jfusion.config.train import Train


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
        require(self.every >= 1, "every", "at least 1", self.every)
        require(self.pictures >= 0, "pictures", "0 or more", self.pictures)


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
        seeds: Trains so many times, from this seed on, and reports mean and spread.
        folds: Trains so many times, each time with another part of the rows as the test split; 0
            keeps the data set's own splits.
        name: The config file's name and variant, set when it is loaded.
    """

    inputs: dict[str, Text | Image | Frames]
    targets: dict[str, MultiLabel | Classes | Regression | Embedding]
    train: Train
    data: Data = field(default_factory=Data)
    fusion: ConcatFusion | CrossAttentionFusion = field(default_factory=ConcatFusion)
    log: Log = field(default_factory=Log)
    seed: int = 0
    seeds: int = 1
    folds: int = 0
    name: str = ""

    def __post_init__(self):
        require(bool(self.inputs), "inputs", "at least one modality", self.inputs)
        require(bool(self.targets), "targets", "at least one target", self.targets)
        require(self.seeds >= 1, "seeds", "at least 1", self.seeds)
        require(self.folds == 0 or self.folds >= 3, "folds", "0, or at least 3", self.folds)
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
