"""Calibration: bins by hand, the published formula written out, and the bootstrap against a second one."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.diagnostics.scores import calibration_bins, rms_calibration_error, rms_calibration_error_se
from causalrisk.errors import DesignError
from tests.conftest import RHS, simulate


def published(confidence, correct, beta=100):
    """The formula as stated with the benchmark: k = m // beta bins, the last stretched, and the loop one bin short."""
    order = np.argsort(confidence)
    confidence, correct, m = confidence[order], correct[order], len(confidence)
    edges = [[i * beta, (i + 1) * beta] for i in range(m // beta)]
    edges[-1][1] = m
    total = 0.0
    for low, high in edges[:-1]:
        total += (high - low) / m * (confidence[low:high].mean() - correct[low:high].mean()) ** 2
    return total**0.5


@pytest.fixture(scope="module")
def answers():
    draw = np.random.default_rng(3)
    confidence = draw.random(1234)
    return confidence, (draw.random(1234) < confidence**2).astype(float)


def test_bins_by_hand():
    bins = calibration_bins(np.array([0.9, 0.1, 0.5, 0.3, 0.7]), np.array([1.0, 0.0, 1.0, 0.0, 0.0]), size=2)
    assert bins.n.tolist() == [2, 3]
    assert bins.predicted.tolist() == pytest.approx([0.2, 0.7])
    assert bins.observed.tolist() == pytest.approx([0.0, 2 / 3])


def test_error_by_hand():
    predicted, observed = np.array([0.9, 0.1, 0.5, 0.3, 0.7]), np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    expected = (2 / 5 * 0.2**2 + 3 / 5 * (0.7 - 2 / 3) ** 2) ** 0.5
    assert rms_calibration_error(predicted, observed, size=2) == pytest.approx(expected)
    assert rms_calibration_error(predicted, observed, "published", size=2) == pytest.approx((2 / 5 * 0.2**2) ** 0.5)


@pytest.mark.parametrize("m", [100, 199, 200, 250, 1234])
def test_published_binning_is_the_published_formula(answers, m):
    confidence, correct = answers[0][:m], answers[1][:m]
    assert rms_calibration_error(confidence, correct, "published") == pytest.approx(published(confidence, correct))


def test_published_is_zero_below_two_bins_and_refused_below_one(answers):
    assert rms_calibration_error(answers[0][:199], answers[1][:199], "published") == 0
    with pytest.raises(DesignError, match='binning="all"'):
        rms_calibration_error(answers[0][:99], answers[1][:99], "published")


def test_few_rows_are_one_bin_and_none_are_unknown(answers):
    few = rms_calibration_error(answers[0][:7], answers[1][:7])
    assert few == pytest.approx(abs(answers[0][:7].mean() - answers[1][:7].mean()))
    assert np.isnan(rms_calibration_error(np.empty(0), np.empty(0)))
    assert np.isnan(rms_calibration_error_se(np.empty(0), np.empty(0)))


@pytest.mark.parametrize("binning", ["all", "published"])
def test_bootstrap_against_one_that_sorts_afresh(answers, binning):
    confidence, correct = answers
    draw, errors = np.random.default_rng(8), []
    for _ in range(1000):
        rows = draw.integers(len(confidence), size=len(confidence))
        errors.append(rms_calibration_error(confidence[rows], correct[rows], binning))
    se = rms_calibration_error_se(confidence, correct, binning, n_boot=2000, rng=9)
    assert se == pytest.approx(np.std(errors, ddof=1), rel=0.08)  # Monte Carlo errors of 2.2% and 1.6%
    assert se == rms_calibration_error_se(confidence, correct, binning, n_boot=2000, rng=9)


pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.errors.MonteCarloWarning")


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


def test_calibration_by_hand(frame):
    res = model(frame).fit()
    table = res.calibration(bins=6)
    order = res.propensity_scores.sort_values(kind="stable")
    groups = np.arange(300) // 50
    np.testing.assert_allclose(table["predicted"], order.groupby(groups).mean())
    observed = frame.d[order.index].groupby(groups).mean()
    np.testing.assert_allclose(table["observed"], observed)
    np.testing.assert_allclose(table["std err"], np.sqrt(observed * (1 - observed) / 50))
    gap = table["predicted"] - table["observed"]
    np.testing.assert_allclose(res.calibration_error(bins=6)["1"], np.sqrt((gap**2).mean()))


def test_rows_with_equal_scores_are_in_one_bin_whatever_their_order(frame):
    """A saturated score is the share treated of its rows."""
    data = frame.assign(x1=frame.x1 > 0, x2=frame.x2 > 0)
    for rows in (data, data.sort_values("d", kind="stable")):
        res = cr.IPWRA.from_formula("y ~ x1 * x2", rows, treat="d").fit()
        table = res.calibration()
        assert table["n"].sum() == 300 and len(table) <= 4
        np.testing.assert_allclose(table["observed"], table["predicted"], atol=1e-10)
        assert res.calibration_error()["1"] < 1e-10


def test_there_are_as_many_bins_as_asked_for(frame):
    table = model(frame[:59]).fit().calibration(bins=10)
    assert table["n"].tolist() == [6, 6, 6, 6, 6, 6, 6, 6, 6, 5]


def test_probability_weights_weight_shares_and_scores(frame):
    """As frequency weights do in bins of the same rows, which scores of two values have."""
    data = frame.assign(x1=frame.x1 > 0, w=1 + np.arange(300) % 3)
    fits = [model(data, weights="w", weight_type=kind, propensity="x1").fit() for kind in ("probability", "frequency")]
    weighted, counted = (res.calibration() for res in fits)
    np.testing.assert_allclose(weighted[["predicted", "observed"]], counted[["predicted", "observed"]], rtol=1e-10)
    assert weighted["n"].sum() == 300 and counted["n"].sum() == data.w.sum()
    squares = data.w.pow(2).groupby(data.x1).sum().to_numpy() / data.w.groupby(data.x1).sum().to_numpy() ** 2
    share = weighted["observed"].to_numpy()
    found = np.sort(weighted["std err"].to_numpy() ** 2 / (share * (1 - share)))
    np.testing.assert_allclose(found, np.sort(squares), rtol=1e-10)
    np.testing.assert_allclose(fits[0].calibration_error(), fits[1].calibration_error(), atol=1e-10)
