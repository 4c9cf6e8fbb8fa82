import json

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import f1_score, mean_absolute_error, root_mean_squared_error

from jfusion.training import regression


def draw(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.round(np.clip(rng.normal(8, 6, rows), 0, 24))
    predicted = 0.6 * targets + rng.normal(3, 3, rows)
    return predicted.astype(np.float32), targets.astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_scikit_learn_and_scipy(seed):
    predicted, targets = draw(seed=seed)
    got = regression.scores(predicted, targets, 10.0)
    x, y = predicted.astype(np.float64), targets.astype(np.float64)
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    want = {
        "rmse": root_mean_squared_error(y, x),
        "mae": mean_absolute_error(y, x),
        "ccc": 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2),
        "pearson": scipy.stats.pearsonr(x, y).statistic,
        "f1": f1_score(y >= 10, x >= 10),
    }
    assert list(got) == list(want)
    np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-10)
    assert all(type(score) is float for score in got.values())
    assert list(regression.scores(predicted, targets, None)) == ["rmse", "mae", "ccc", "pearson"]


def test_scores_by_hand():
    got = regression.scores(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]), 3.0)
    assert got["rmse"] == pytest.approx(np.sqrt((1 + 4 + 9) / 3))
    assert got["mae"] == pytest.approx(2.0)
    # Variances 2/3 and 8/3, covariance 4/3, means 2 apart.
    assert got["ccc"] == pytest.approx((8 / 3) / (2 / 3 + 8 / 3 + 4))
    assert got["pearson"] == pytest.approx(1.0)
    assert got["f1"] == pytest.approx(2 / 3)  # 3 of (4, 6) found


def test_a_perfect_and_an_inverse_prediction():
    _, targets = draw()
    perfect = regression.scores(targets, targets, 10.0)
    assert perfect == pytest.approx({"rmse": 0, "mae": 0, "ccc": 1, "pearson": 1, "f1": 1})
    mirrored = regression.scores(2 * targets.mean() - targets, targets, None)
    assert mirrored["ccc"] == pytest.approx(-1, abs=1e-6)
    assert mirrored["pearson"] == pytest.approx(-1, abs=1e-6) and mirrored["pearson"] >= -1


@pytest.mark.parametrize("constant", [0.0, 0.1, 7.3, 1e6])
def test_a_constant_has_no_correlation(constant):
    _, targets = draw()
    for x, y in [(np.full(120, constant), targets), (targets, np.full(120, constant))]:
        got = regression.scores(x, y, 10.0)
        assert got["pearson"] is None and got["ccc"] == 0.0
        json.dumps(got, allow_nan=False)
    both = regression.scores(np.full(7, constant), np.full(7, constant), None)
    assert both == {"rmse": 0.0, "mae": 0.0, "ccc": None, "pearson": None}
    apart = regression.scores(np.full(7, constant), np.full(7, constant + 1), None)
    assert apart["ccc"] == 0.0 and apart["pearson"] is None


def test_one_row_has_errors_only():
    got = regression.scores(np.array([3.0]), np.array([5.0]), 10.0)
    assert got == {"rmse": 2.0, "mae": 2.0, "ccc": 0.0, "pearson": None, "f1": 0.0}


def test_small_spreads_far_from_zero_keep_their_correlation():
    predicted, targets = (x.astype(np.float64) for x in draw())
    shifted = regression.scores(1e6 + 1e-3 * predicted, 1e6 + 1e-3 * targets, None)
    assert shifted["pearson"] == pytest.approx(
        regression.scores(predicted, targets, None)["pearson"], rel=1e-5
    )


def test_the_cut_itself_is_positive():
    got = regression.scores(np.array([10.0, 9.9]), np.array([10.0, 10.0]), 10.0)
    assert got["f1"] == pytest.approx(2 / 3)


def test_wrong_rows_are_refused():
    predicted, targets = draw()
    predicted[[2, 5]] = np.nan, np.inf
    with pytest.raises(ValueError, match="predictions of 2 of 120 rows are not finite: rows 2, 5 "):
        regression.scores(predicted, targets, 10.0)
    with pytest.raises(ValueError, match="targets of 2 of 120"):
        regression.bootstrap(targets, predicted, 10.0)
    with pytest.raises(ValueError, match=r"\(3,\).*\(3, 1\)"):
        regression.scores(np.zeros(3), np.zeros((3, 1)), None)
    with pytest.raises(ValueError, match="no row"):
        regression.scores(np.zeros(0), np.zeros(0), None)
    with pytest.raises(ValueError, match="2 groups for 3 rows"):
        regression.bootstrap(np.arange(3), np.arange(3), None, groups=["a", "b"])


def _resampled(predicted, targets, groups, draws, seed):
    """The scores of rows put together draw by draw: the definition."""
    rng = np.random.default_rng(seed)
    owners = list(dict.fromkeys(groups))
    for _ in range(draws):
        drawn = rng.integers(len(owners), size=len(owners))
        rows = [r for g in drawn for r, group in enumerate(groups) if group == owners[g]]
        yield regression.scores(predicted[rows], targets[rows], 10.0)


@pytest.mark.parametrize("grouped", [False, True])
def test_bootstrap_resamples_rows_or_whole_groups(grouped):
    predicted, targets = draw(rows=30)
    groups = [f"p{(row * 7) % 11}" for row in range(30)] if grouped else None
    got = regression.bootstrap(predicted, targets, 10.0, groups=groups, draws=60, seed=3)
    each = list(_resampled(predicted, targets, groups or range(30), 60, 3))
    assert list(got) == ["rmse", "mae", "ccc", "pearson", "f1"]
    for name, bounds in got.items():
        want = np.quantile([scores[name] for scores in each], [0.025, 0.975])
        np.testing.assert_allclose(bounds, want, rtol=1e-9)


def test_bootstrap_equals_scipy():
    predicted, targets = (x.astype(np.float64) for x in draw())
    got = regression.bootstrap(predicted, targets, None, draws=4000, level=0.9)
    want = scipy.stats.bootstrap(
        (predicted, targets),
        lambda x, y, axis: np.sqrt(np.mean((x - y) ** 2, axis=axis)),
        paired=True,
        n_resamples=4000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = want.high - want.low
    np.testing.assert_allclose(got["rmse"], [want.low, want.high], atol=0.05 * width)


def test_repeated_rows_of_a_person_are_no_new_evidence():
    """Five copies of all predictions leave the interval as wide, if drawn by person."""
    predicted, targets = draw()
    once = regression.bootstrap(predicted, targets, 10.0)
    copies = np.tile(predicted, 5), np.tile(targets, 5), 10.0
    assert regression.bootstrap(*copies, groups=list(range(120)) * 5) == {
        name: pytest.approx(bounds) for name, bounds in once.items()
    }
    narrow = regression.bootstrap(*copies)["rmse"]
    assert narrow[1] - narrow[0] < 0.6 * (once["rmse"][1] - once["rmse"][0])


def test_bootstrap_covers_the_truth():
    """The 90 % interval of the RMSE holds the process's own in about 90 % of samples."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = regression.bootstrap(
            rng.normal(0, 2, 80), np.zeros(80), None, draws=200, level=0.9
        )["rmse"]
        hits += low <= 2 <= high
    assert 0.8 < hits / 200 < 0.96


def test_bootstrap_follows_its_seed():
    predicted, targets = draw()
    first = regression.bootstrap(predicted, targets, 10.0)
    assert regression.bootstrap(predicted, targets, 10.0, seed=0) == first
    assert regression.bootstrap(predicted, targets, 10.0, seed=1) != first
    for name, score in regression.scores(predicted, targets, 10.0).items():
        assert first[name][0] < score < first[name][1]


def test_draws_without_a_score_are_left_out():
    predicted, targets = np.array([1.0, 1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0, 4.0])
    bounds = regression.bootstrap(predicted, targets, None)["pearson"]
    assert all(type(bound) is float and 0 < bound <= 1 for bound in bounds)
    constant = regression.bootstrap(np.full(4, 0.1), targets, 10.0)
    assert constant["pearson"] == (None, None)
    assert constant["ccc"] == (0.0, 0.0) and constant["f1"] == (0.0, 0.0)


def test_one_group_has_no_interval():
    predicted, targets = draw()
    got = regression.bootstrap(predicted, targets, 10.0, groups=["a"] * 120)
    assert set(got.values()) == {(None, None)} and len(got) == 5
