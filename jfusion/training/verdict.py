"""What a model's scores are worth: constants, intervals, coverage, modalities left out."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jfusion.config import Data, Regression, Target
from jfusion.data import groups
from jfusion.data.split import Split
from jfusion.training import conformal, evaluation, readout, regression
from jfusion.training.evaluation import Outputs
from jfusion.training.losses import Loss
from jfusion.training.readout import Scores


@dataclass(frozen=True)
class Verdict:
    """The scores of a model on a split, and what stands beside them.

    Attributes:
        scores: See `evaluation.score`.
        constants: `mean` and `median` (of the training split) -> the scores of whoever always
            predicts that; empty without a regression.
        intervals: Metric -> the bounds of its 95 % interval, of the regressions.
        coverage: Regression -> `radius` of the interval around each prediction, and the share of
            rows it was to cover (`wanted`) and did (`measured`).
        patterns: Modalities, joined by ` + ` -> `rows` and the scores of the model that is given
            these only; empty with a single modality.
    """

    scores: Scores
    constants: dict[str, Scores] = field(default_factory=dict)
    intervals: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    coverage: dict[str, dict[str, float]] = field(default_factory=dict)
    patterns: dict[str, Scores] = field(default_factory=dict)


def judge(
    outputs_of: Callable[[Collection[str] | None], Outputs],
    modalities: Collection[str],
    targets: Mapping[str, np.ndarray],
    sections: Mapping[str, Target],
    losses: Mapping[str, Loss],
    statistics: Mapping[str, Mapping[str, Any]],
    radii: Mapping[str, float | None],
    owners: Sequence[Any] | None = None,
) -> tuple[Verdict, Outputs]:
    """Scores a split with all modalities and with every smaller choice of them.

    Args:
        outputs_of: Runs the model on the split with only the given modalities; None is all.
        modalities: The names of all.
        targets: The targets of every row of the split, by head.
        sections: The targets' config sections.
        losses: The loss of each target.
        statistics: Of the training split, see `assemble.statistics`.
        radii: Half-width of the interval around each regression's predictions.
        owners: Whom each row of the split's source is of; the intervals draw all rows of one
            together. None: each row by itself.

    Returns:
        The verdict, and the outputs with all modalities.
    """
    outputs = outputs_of(None)
    scores = evaluation.score(outputs, targets, sections, losses)
    verdict = Verdict(scores, patterns=dict.fromkeys(_choices(modalities), scores))
    for chosen in list(verdict.patterns):
        names = chosen.split(" + ")
        given = outputs if len(names) == len(modalities) else outputs_of(names)
        found = evaluation.score(given, targets, sections, losses) if len(given.rows) else {}
        verdict.patterns[chosen] = {"rows": len(given.rows), **found}
    for name, section in sections.items():
        if isinstance(section, Regression):
            prefix = evaluation.prefix(name, sections)
            _judge_values(
                verdict,
                name,
                prefix,
                section,
                readout.predicted(section, outputs.heads[name]),
                targets[name][outputs.rows, 0],
                statistics[name],
                radii.get(name),
                None if owners is None else [owners[row] for row in outputs.rows],
            )
    return verdict, outputs


def radii(
    sections: Mapping[str, Target], outputs: Outputs, targets: Mapping[str, np.ndarray]
) -> dict[str, float | None]:
    """Half-width of the interval around each regression's predictions, by split conformal.

    Args:
        sections: The targets' config sections.
        outputs: Of rows that the model was not trained on: the validation split. That it also
            chose the best epoch makes the intervals a little narrow; the coverage measured on the
            test split tells.
        targets: The targets of every row of that split, by head.

    Returns:
        By regression; None where the split has too few rows for its coverage.
    """
    return {
        name: conformal.radius(
            readout.predicted(section, outputs.heads[name]) - targets[name][outputs.rows, 0],
            section.coverage,
        )
        for name, section in sections.items()
        if isinstance(section, Regression)
    }


def groups_of(split: Split, data: Data) -> list[str] | None:
    """Whom each row of a split's source is of; None if the config names no such column."""
    if not data.group_column:
        return None
    return groups.of_rows(split.source, data.group_column, data.cache_dir)


def _choices(modalities: Collection[str]) -> list[str]:
    """Every non-empty choice of several modalities, the largest first."""
    names = sorted(modalities)
    if len(names) == 1:
        return []
    sizes = range(len(names), 0, -1)
    return [" + ".join(c) for size in sizes for c in itertools.combinations(names, size)]


def _judge_values(
    verdict: Verdict,
    name: str,
    prefix: str,
    section: Regression,
    predicted: np.ndarray,
    truth: np.ndarray,
    statistics: Mapping[str, Any],
    radius: float | None,
    owners: Sequence[Any] | None,
) -> None:
    """Adds what there is to say of one regression."""
    cut = readout.cut(section)
    for constant in ("mean", "median"):
        always = np.full(len(truth), statistics[constant])
        found = regression.scores(always, truth, cut)
        verdict.constants.setdefault(constant, {})
        verdict.constants[constant] |= {f"{prefix}{metric}": x for metric, x in found.items()}
    intervals = regression.bootstrap(predicted, truth, cut, groups=owners)
    verdict.intervals.update({f"{prefix}{metric}": x for metric, x in intervals.items()})
    if radius is not None:
        verdict.coverage[name] = {
            "radius": radius,
            "wanted": section.coverage,
            "measured": conformal.coverage(predicted, truth, radius),
        }
