import numpy as np
import pytest

from jfusion.training import conformal


def test_radius_is_the_order_statistic():
    residuals = np.array([-5.0, 1.0, -2.0, 4.0, 3.0, 0.5, -6.0, 7.0, 8.0])
    assert conformal.radius(residuals, 0.9) == 8.0  # ceil(10 * 0.9) = 9th of 9
    assert conformal.radius(residuals, 0.8) == 7.0
    assert conformal.radius(residuals, 0.75) == 7.0
    assert conformal.radius(residuals, 0.05) == 0.5
    assert type(conformal.radius(residuals.astype(np.float32), 0.9)) is float


def test_rounding_of_the_rank_takes_no_wider_interval():
    assert 100 * 0.55 > 55
    assert conformal.radius(np.arange(1.0, 100), 0.55) == 55.0


@pytest.mark.parametrize("coverage, least", [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_too_few_residuals_have_no_radius(coverage, least):
    assert conformal.radius(np.ones(least), coverage) == 1.0
    assert conformal.radius(np.ones(least - 1), coverage) is None
    assert conformal.radius(np.zeros(0), coverage) is None


@pytest.mark.parametrize("rows, wanted", [(20, 0.9), (35, 0.8), (200, 0.95)])
def test_new_rows_are_covered_as_promised(rows, wanted):
    """Coverage is ceil((n + 1) * wanted) / (n + 1) exactly, for any distribution without ties."""
    rng = np.random.default_rng(0)
    trials = 4000
    residuals = rng.standard_t(2, size=(trials, rows))  # heavy tails
    new = rng.standard_t(2, size=trials)
    hits = [
        conformal.coverage(np.array([y]), np.zeros(1), conformal.radius(r, wanted))
        for r, y in zip(residuals, new, strict=True)
    ]
    expected = np.ceil((rows + 1) * wanted - 1e-9) / (rows + 1)
    assert wanted <= expected < wanted + 1 / (rows + 1)
    assert abs(np.mean(hits) - expected) < 4 * np.sqrt(expected * (1 - expected) / trials)


def test_coverage_counts_the_bounds():
    predicted, targets = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 5.0, 1.5])
    assert conformal.coverage(predicted, targets, 1.0) == 0.5
    assert conformal.coverage(predicted, targets, 0.0) == 0.25
    assert type(conformal.coverage(predicted, targets, 3.0)) is float


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"finite numbers \[rows\]"):
        conformal.radius(np.array([1.0, np.nan]), 0.5)
    with pytest.raises(ValueError, match=r"\(3, 1\)"):
        conformal.radius(np.ones((3, 1)), 0.5)
    for coverage in (0.0, 1.0, 90.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            conformal.radius(np.ones(3), coverage)
    with pytest.raises(ValueError, match=r"\(3,\).*\(3, 1\)"):
        conformal.coverage(np.ones(3), np.ones((3, 1)), 1.0)
    with pytest.raises(ValueError, match="one row at least"):
        conformal.coverage(np.ones(0), np.ones(0), 1.0)
