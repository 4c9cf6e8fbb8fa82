"""Intervals around predicted numbers, by split conformal (Lei et al. 2018, arXiv 1604.04173).

If the rows that the radius comes from and a new row are exchangeable, and the model has seen
neither, then `prediction - radius .. prediction + radius` holds the new row's true number with at
least the wanted probability, whatever the model and the distribution. That is a mean over rows and
splits: it is promised to no single kind of row.
"""

import math

import numpy as np


def radius(residuals: np.ndarray, coverage: float) -> float | None:
    """Half the width of the interval.

    Args:
        residuals: Predicted minus true, or true minus predicted, of rows held out from training,
            [n].
        coverage: The wanted probability, between 0 and 1.

    Returns:
        The ceil((n + 1) * coverage)-th smallest absolute residual; None where n is smaller than
        that, so that no finite interval would do.

    Raises:
        ValueError: Residuals that are not a finite [n], or a coverage out of bounds.
    """
    residuals = np.asarray(residuals, np.float64)
    if residuals.ndim != 1 or not np.isfinite(residuals).all():
        raise ValueError(f"residuals must be finite numbers [rows], got shape {residuals.shape}")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
    # 100 * 0.55 is a little more than 55 in floating point.
    rank = math.ceil((len(residuals) + 1) * coverage - 1e-9)
    if rank > len(residuals):
        return None
    return float(np.sort(np.abs(residuals))[rank - 1])


def coverage(predicted: np.ndarray, targets: np.ndarray, radius: float) -> float:
    """The share of rows whose interval holds the truth.

    Args:
        predicted: [n].
        targets: [n].
        radius: Half the width of the intervals.

    Raises:
        ValueError: No row, or shapes that differ.
    """
    predicted, targets = np.asarray(predicted, np.float64), np.asarray(targets, np.float64)
    if predicted.shape != targets.shape or predicted.ndim != 1 or not len(predicted):
        raise ValueError(
            f"predicted {predicted.shape} and targets {targets.shape} must have the same shape "
            "[rows], of one row at least"
        )
    return float(np.mean(np.abs(predicted - targets) <= radius))
