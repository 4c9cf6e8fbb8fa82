"""The whole experiment."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any

from jfusion.config.checks import RangeError, require
from jfusion.config.data import Data
from jfusion.config.fusion import ConcatFusion, CrossAttentionFusion
from jfusion.config.inputs import Frames, Image, Tabular, Text
from jfusion.config.mesh import Mesh
from jfusion.config.targets import Classes, Embedding, MultiLabel, Regression, metrics_of
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
        mesh: How the devices share the work.
        attach_to: A model folder of an earlier run, `RUN/model`: the new model is that one, and the
            inputs that it does not have are attached to it through gates that start from 0. The
            inputs that it has, the targets and the fusion stay as they were there (`weights` and
            `init_from` of those inputs are not read again); rates of dropout may differ. Rows that
            both have must be divided as there.
        seed: Seeds initialisation, shuffling, dropout, and random splits.
        seeds: Trains so many times, from this seed on, and reports mean and spread.
        folds: Trains so many times, each time with another part of the rows as the test split; 0
            keeps the data set's own splits.
        name: The config file's name and variant, set when it is loaded.
    """

    inputs: dict[str, Text | Image | Frames | Tabular]
    targets: dict[str, MultiLabel | Classes | Regression | Embedding]
    train: Train
    data: Data = field(default_factory=Data)
    fusion: ConcatFusion | CrossAttentionFusion = field(default_factory=ConcatFusion)
    log: Log = field(default_factory=Log)
    mesh: Mesh = field(default_factory=Mesh)
    attach_to: str = ""
    seed: int = 0
    seeds: int = 1
    folds: int = 0
    name: str = ""

    def __post_init__(self):
        require(bool(self.inputs), "inputs", "at least one modality", self.inputs)
        require(bool(self.targets), "targets", "at least one target", self.targets)
        require(self.seeds >= 1, "seeds", "at least 1", self.seeds)
        require(self.folds == 0 or self.folds >= 3, "folds", "0, or at least 3", self.folds)
        if self.train.accumulate > 1:
            for name, target in self.targets.items():
                whole = target.kind == "embedding" or getattr(target, "loss", "") == "rmse"
                expected = f"1 with the loss of targets.{name}, which needs a whole batch at once"
                require(not whole, "train.accumulate", expected, self.train.accumulate)
        self._require_parts()
        monitor, known = self.train.monitor, self._metrics()
        if monitor not in known:
            near = difflib.get_close_matches(monitor, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RangeError(f"train.monitor: {monitor!r} is none of {', '.join(known)}{hint}")

    def _metrics(self) -> list[str]:
        """The names of all validation metrics."""
        if len(self.targets) == 1:
            return ["loss", *(m for t in self.targets.values() for m in metrics_of(t))]
        return [
            "loss",
            *(f"{n}/{m}" for n, t in self.targets.items() for m in ("loss", *metrics_of(t))),
        ]

    def _require_parts(self) -> None:
        """Raises where one section needs what another is not."""
        for name, part in self.inputs.items():
            fits = not part.encoder.dense or self.fusion.kind == "concat"
            key = f"inputs.{name}.encoder.dense"
            require(fits, key, f"0 with fusion.kind={self.fusion.kind}", part.encoder.dense)
        for name, target in self.targets.items():
            if target.kind == "embedding" and target.positives != "class":
                key, value = f"targets.{name}.positives", target.positives
                require(len(self.inputs) > 1, key, "class with a single modality", value)
                apart = self.fusion.kind == "cross_attention"
                require(apart, key, f"class with fusion.kind={self.fusion.kind}", value)


def to_dict(config: Any) -> dict[str, Any]:
    """The plain, JSON-ready form of a config or of a section."""
    return dataclasses.asdict(config)
