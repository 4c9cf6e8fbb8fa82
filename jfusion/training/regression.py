"""Scores of predicted numbers over a whole split, and what they are worth.

A correlation with a constant does not exist: `pearson` is None then. Lin's concordance (1989) is 0
with a constant, and None only where both are the same constant. No score is ever NaN.

Every score follows from sums over rows, so that a bootstrap draw, which takes some rows several
times and some not at all, needs no more than the weighted sums.

Shape legend: `N` rows, `G` groups, `K` sums, `D` draws.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Score = float | None
Bounds = tuple[float | None, float | None]

_ROUNDING = 1e-12  # a spread below this share of the size of the numbers is rounding


def scores(predicted: np.ndarray, targets: np.ndarray, cut: float | None) -> dict[str, Score]:
    """The scores of a split; rows that are only padding must be gone already.

    Args:
        predicted: [N].
        targets: [N].
        cut: From this number on a row counts as positive; None has no such class.

    Returns:
        `rmse`, `mae`, `ccc` (Lin's concordance, population moments), `pearson`, and with a cut
        the `f1` of the positive class (0 without positives and predictions of them).

    Raises:
        ValueError: No row, shapes that differ, or a number that is not finite.
    """
    predicted, targets = _checked(predicted, targets)
    centres = predicted.mean(), targets.mean()
    sums = _terms(predicted, targets, centres, cut).sum(axis=0)
    found = _from_sums(sums[None], centres, cut)
    return {name: _score(values[0]) for name, values in found.items()}


def bootstrap(
    predicted: np.ndarray,
    targets: np.ndarray,
    cut: float | None,
    *,
    groups: Sequence[Any] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Bounds]:
    """Percentile bootstrap intervals of the scores.

    Args:
        predicted: [N].
        targets: [N].
        cut: As for `scores`.
        groups: Whose each row is, [N]: all rows of a person are drawn together. None draws rows.
        draws: How many times as many groups as there are are drawn with replacement.
        level: The share of draws between the bounds.
        seed: Of the draws.

    Returns:
        The bounds of every score of `scores`, over the draws where it is defined; None and None
        where it never is, and where there is one group only, which says nothing about others.

    Raises:
        ValueError: As for `scores`, or another number of groups than of rows.
    """
    predicted, targets = _checked(predicted, targets)
    centres = predicted.mean(), targets.mean()
    terms = _terms(predicted, targets, centres, cut)
    if groups is not None:
        if len(groups) != len(terms):
            raise ValueError(f"{len(groups)} groups for {len(terms)} rows")
        numbers: dict[Any, int] = {}
        owners = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
        of_row, terms = terms, np.zeros((len(numbers), terms.shape[1]))
        np.add.at(terms, owners, of_row)
    size = len(terms)
    rng = np.random.default_rng(seed)
    sums = np.empty((draws, terms.shape[1]))
    for draw in range(draws):
        times = np.bincount(rng.integers(size, size=size), minlength=size)
        sums[draw] = times @ terms
    found = _from_sums(sums, centres, cut)
    return {
        name: _bounds(values, level) if size > 1 else (None, None) for name, values in found.items()
    }


def _checked(predicted: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [N]."""
    predicted, targets = np.asarray(predicted, np.float64), np.asarray(targets, np.float64)
    if predicted.shape != targets.shape or predicted.ndim != 1:
        raise ValueError(
            f"predicted {predicted.shape} and targets {targets.shape} must have the same shape "
            "[rows]"
        )
    if not len(predicted):
        raise ValueError("nothing to score: there is no row")
    for name, values in (("predictions", predicted), ("targets", targets)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            shown = ", ".join(str(row) for row in bad[:20]) + (", ..." if bad.size > 20 else "")
            raise ValueError(
                f"the {name} of {bad.size} of {len(values)} rows are not finite: rows {shown} "
                "(counted from 0); the model has diverged or its input holds NaN"
            )
    return predicted, targets


def _terms(
    predicted: np.ndarray, targets: np.ndarray, centres: tuple[float, float], cut: float | None
) -> np.ndarray:
    """What each row adds to the sums: [N, K]."""
    x, y = predicted - centres[0], targets - centres[1]  # squares of small numbers lose nothing
    errors = predicted - targets
    above, true = (values >= (np.inf if cut is None else cut) for values in (predicted, targets))
    terms = (np.ones(len(x)), errors**2, np.abs(errors), x, y, x * x, y * y, x * y)
    return np.stack([*terms, above & true, above.astype(int) + true], axis=1)


def _from_sums(
    sums: np.ndarray, centres: tuple[float, float], cut: float | None
) -> dict[str, np.ndarray]:
    """The scores [D] that the sums [D, K] give; NaN where undefined."""
    means = sums / sums[:, :1]
    _, squared, absolute, x, y, xx, yy, xy, _, _ = means.T
    x_mean, y_mean = x + centres[0], y + centres[1]
    x_var, y_var = _variance(x, xx, x_mean), _variance(y, yy, y_mean)
    varied = (x_var > 0) & (y_var > 0)
    covariance = np.where(varied, xy - x * y, 0)
    apart = x_mean - y_mean
    apart = np.where(np.abs(apart) > _ROUNDING * np.abs(y_mean), apart, 0)
    found = {
        "rmse": np.sqrt(squared),
        "mae": absolute,
        "ccc": _ratio(2 * covariance, x_var + y_var + apart**2),
        "pearson": np.clip(_ratio(covariance, np.sqrt(x_var) * np.sqrt(y_var)), -1, 1),
    }
    if cut is not None:
        hits, marked = sums[:, -2], sums[:, -1]
        found["f1"] = 2 * hits / np.maximum(marked, 1)
    return found


def _variance(first: np.ndarray, second: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Variances from two moments about any centre; 0 where rounding is all there is."""
    variance = second - first**2
    least = np.maximum(_ROUNDING * second, (_ROUNDING * mean) ** 2)
    return np.where(variance > least, variance, 0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _score(value: float) -> Score:
    return None if np.isnan(value) else float(value)


def _bounds(values: np.ndarray, level: float) -> Bounds:
    known = values[~np.isnan(values)]
    if not known.size:
        return None, None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
