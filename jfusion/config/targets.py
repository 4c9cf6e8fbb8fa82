"""The sections of what is predicted."""

from dataclasses import dataclass
from typing import Literal

from jfusion.config.checks import require


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
        require(self.delimiter != "", "delimiter", "at least one character", self.delimiter)
        require(self.gamma_negative >= 0, "gamma_negative", "0 or more", self.gamma_negative)
        require(self.gamma_positive >= 0, "gamma_positive", "0 or more", self.gamma_positive)
        require(0 <= self.clip < 1, "clip", "in [0, 1)", self.clip)
        require(0 < self.threshold < 1, "threshold", "between 0 and 1", self.threshold)
        require(self.weight >= 0, "weight", "0 or more", self.weight)
        require(len(set(self.labels)) == len(self.labels), "labels", "all different", self.labels)


@dataclass(frozen=True)
class Classes:
    """A column with one label per row.

    Attributes:
        column: The table's column.
        labels: The names, in order; empty takes the data set's own, or the sorted names of the
            training split. Any other name in the column is an error.
        cut: Makes two classes of a column of numbers, below this number and from it on; `labels`
            names them (empty: `no` and `yes`). Empty: the column holds names.
        class_weight: Weigh the rows of each class by rows / (classes x rows of the class) in the
            training split, which evens out what the classes weigh in the loss.
        smoothing: Share of the target's probability that is spread over all classes
            (arXiv 1512.00567, section 7).
        weight: Weight of this target in the sum of losses.
    """

    column: str
    kind: Literal["classes"] = "classes"
    labels: tuple[str, ...] = ()
    cut: tuple[float, ...] = ()
    class_weight: bool = False
    smoothing: float = 0.0
    weight: float = 1.0

    def __post_init__(self):
        require(self.weight >= 0, "weight", "0 or more", self.weight)
        require(0 <= self.smoothing < 1, "smoothing", "in [0, 1)", self.smoothing)
        require(len(set(self.labels)) == len(self.labels), "labels", "all different", self.labels)
        require(len(self.cut) <= 1, "cut", "one number or none", self.cut)
        two = not self.cut or len(self.labels) in (0, 2)
        require(two, "labels", "two names, of the classes below and above the cut", self.labels)


@dataclass(frozen=True)
class Regression:
    """A column of numbers.

    Attributes:
        column: The table's column.
        limits: The lowest and the highest number that may stand there; empty has none.
        loss: Mean squared error, or its square root over the batch.
        cut: From this number on a row counts as positive in `f1`; empty has no such class.
        coverage: Share of new rows that the interval around a prediction is to cover.
        weight: Weight of this target in the sum of losses.
    """

    column: str
    kind: Literal["regression"] = "regression"
    limits: tuple[float, ...] = ()
    loss: Literal["mse", "rmse"] = "mse"
    cut: tuple[float, ...] = ()
    coverage: float = 0.9
    weight: float = 1.0

    def __post_init__(self):
        require(self.weight >= 0, "weight", "0 or more", self.weight)
        ordered = not self.limits or (len(self.limits) == 2 and self.limits[0] < self.limits[1])
        require(ordered, "limits", "a lower and a higher number, or none", self.limits)
        require(len(self.cut) <= 1, "cut", "one number or none", self.cut)
        require(0 < self.coverage < 1, "coverage", "between 0 and 1", self.coverage)


@dataclass(frozen=True)
class Embedding:
    """A vector of length 1 per row, trained by contrast (InfoNCE, arXiv 1807.03748).

    Attributes:
        column: The column of classes, for `positives` of `class` or `both`.
        positives: What is drawn together: the modalities of a row (needs a fusion that keeps them
            apart), the rows of a class (arXiv 2004.11362), or both.
        width: Length of the vector.
        temperature: Divides the similarities.
        cut: As in `classes`: makes two classes of a column of numbers.
        subject_column: Rows with the same value here never count as negatives of each other.
        weight: Weight of this target in the sum of losses.
    """

    column: str = ""
    kind: Literal["embedding"] = "embedding"
    positives: Literal["modalities", "class", "both"] = "modalities"
    width: int = 128
    temperature: float = 0.07
    cut: tuple[float, ...] = ()
    subject_column: str = ""
    weight: float = 1.0

    def __post_init__(self):
        require(self.weight >= 0, "weight", "0 or more", self.weight)
        require(self.width >= 1, "width", "at least 1", self.width)
        require(self.temperature > 0, "temperature", "above 0", self.temperature)
        require(len(self.cut) <= 1, "cut", "one number or none", self.cut)
        given = bool(self.column) == (self.positives != "modalities")
        expected = "a column of classes" if self.positives != "modalities" else "none"
        require(given, "column", expected, self.column)


Target = MultiLabel | Classes | Regression | Embedding


def metrics_of(target: Target) -> tuple[str, ...]:
    """The names of a target's scores besides its loss."""
    match target:
        case MultiLabel():
            return ("macro_f1", "micro_f1", "weighted_f1", "samples_f1", "map", "auroc")
        case Classes():
            return ("macro_f1", "weighted_f1", "accuracy", "top5_accuracy")
        case Regression():
            return ("rmse", "mae", "ccc", "pearson", *(("f1",) if target.cut else ()))
        case Embedding():
            return ()
