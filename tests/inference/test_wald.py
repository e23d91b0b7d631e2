"""Tests and intervals of ratios are those of their logarithm, transformed; everything that prints them agrees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import norm

import causalrisk as cr
from causalrisk.inference.intervals import wald_interval, wald_statistic
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
Z = norm.ppf(0.975)
FORMS = {
    "ratio": (lambda m: np.log(m[1] / m[0]), np.exp),
    "odds_ratio": (lambda m: np.log(m[1] / (1 - m[1]) / (m[0] / (1 - m[0]))), np.exp),
    "percent": (lambda m: np.log(m[1] / m[0]), lambda d: 100 * (np.exp(d) - 1)),
    "difference": (lambda m: m[1] - m[0], lambda d: d),
}


@pytest.fixture(scope="module")
def frame():
    return simulate(400).assign(y=lambda f: (f.y > f.y.quantile(0.6)).astype(float))


def fit(frame, effect, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", family="binomial", effect=effect).fit(**options)


def slope_of(form, means):
    step = 1e-30j
    return np.array([form(means + step * e).imag / 1e-30 for e in np.eye(2)])


@pytest.mark.parametrize("effect", FORMS)
def test_intervals_and_tests_are_the_transformed_contrast(frame, effect):
    """By hand from the means and their covariance, the derivative of the contrast by complex steps."""
    contrast, report = FORMS[effect]
    res = fit(frame, effect)
    means, covariance = res.params.to_numpy()[1:], res.cov_params().to_numpy()[1:, 1:]
    slope = slope_of(contrast, means.astype(complex))
    value, se = contrast(means), np.sqrt(slope @ covariance @ slope)
    limits = report(np.array([value - Z * se, value + Z * se]))
    np.testing.assert_allclose(res.conf_int().iloc[0], limits, rtol=1e-10)
    np.testing.assert_allclose(res.tvalues.iloc[0], value / se, rtol=1e-10)
    np.testing.assert_allclose(res.pvalues.iloc[0], 2 * norm.sf(abs(value / se)), rtol=1e-9)
    # of the means nothing changed
    plain = wald_interval(means, res.bse.to_numpy()[1:], 0.05)
    np.testing.assert_allclose(res.conf_int().iloc[1:], plain, rtol=1e-12)


def test_a_ratio_of_rates_is_that_of_a_log_link_model():
    """Without covariates the ratio is the exponentiated Poisson coefficient with its robust interval."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"d": rng.integers(2, size=300)}).assign(y=lambda f: rng.poisson(1 + f.d))
    res = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d", family="poisson", effect="ratio").fit()
    theirs = sm.GLM.from_formula("y ~ d", frame, family=sm.families.Poisson()).fit(cov_type="HC0", tol=1e-14)
    assert res.effect == pytest.approx(np.exp(theirs.params["d"]), rel=1e-10)
    np.testing.assert_allclose(res.conf_int().iloc[0], np.exp(theirs.conf_int().loc["d"]), rtol=1e-8)
    assert res.tvalues.iloc[0] == pytest.approx(theirs.tvalues["d"], rel=1e-8)


@pytest.mark.parametrize("effect", ["ratio", "odds_ratio"])
@pytest.mark.parametrize("options", [{}, {"cov_type": "bootstrap", "n_boot": 60}], ids=["robust", "bootstrap"])
def test_swapping_the_arms_turns_everything_over(frame, effect, options):
    if options:  # the same resamples for both
        options = {"resamples": np.random.default_rng(1).multinomial(400, np.full(400, 1 / 400), size=60).T}
    one, other = fit(frame, effect, **options), fit(frame.assign(d=1 - frame.d), effect, **options)
    assert other.effect == pytest.approx(1 / one.effect, rel=1e-9)
    np.testing.assert_allclose(other.conf_int().iloc[0], 1 / one.conf_int().iloc[0].to_numpy()[::-1], rtol=1e-8)
    assert other.tvalues.iloc[0] == pytest.approx(-one.tvalues.iloc[0], rel=1e-7)


def test_after_a_bootstrap_it_is_the_logarithm_of_the_resamples(frame):
    res = fit(frame, "ratio", cov_type="bootstrap", n_boot=80)
    se = np.log(res.boot_params.iloc[:, 0]).std(ddof=1)
    value = np.log(res.effect)
    np.testing.assert_allclose(res.conf_int().iloc[0], np.exp([value - Z * se, value + Z * se]), rtol=1e-10)
    assert res.tvalues.iloc[0] == pytest.approx(value / se, rel=1e-12)
    assert res.effect_se == pytest.approx(res.boot_params.iloc[:, 0].std(ddof=1))


@pytest.mark.parametrize("effect", ["ratio", "percent"])
def test_the_symmetric_interval_is_there_on_request(frame, effect):
    res = fit(frame, effect)
    null = 1 if effect == "ratio" else 0
    expected = [res.effect - Z * res.effect_se, res.effect + Z * res.effect_se]
    np.testing.assert_allclose(res.conf_int(method="delta").iloc[0], expected, rtol=1e-12)
    row = res.tidy(method="delta").iloc[0]
    np.testing.assert_allclose([row.conf_low, row.conf_high], expected, rtol=1e-12)
    assert row.statistic == pytest.approx((res.effect - null) / res.effect_se, rel=1e-12)
    test = res.t_test(f"{res.params.index[0]} = {null}")
    assert row.p_value == pytest.approx(float(test.pvalue), rel=1e-9)
    plain = fit(frame, "difference")
    pd.testing.assert_frame_equal(plain.conf_int(), plain.conf_int(method="delta"))


@pytest.mark.parametrize(("spread", "df"), [(1e-3, 2), (1e-5, 2), (1e-7, 1), (0.0, 1)])
def test_what_is_nearly_another_is_tested_if_it_has_sampling_error(spread, df):
    """The second estimate is the first and a little noise, two standard errors of which it differs by."""
    params = np.array([1.0, 1 + 2 * spread])
    covariance = np.ones((2, 2)) + np.diag([0.0, spread**2])
    statistic, found, impossible = wald_statistic(np.eye(2), np.zeros(2), params, covariance)
    assert not impossible and found == df
    assert statistic == pytest.approx(1 + 4 * (df - 1), rel=1e-4)  # (1 / 1)^2 + (2 / 1)^2


def test_what_has_no_sampling_error_and_is_not_so_is_impossible():
    left, covariance = np.array([[1.0, 0.0], [-1.0, 1.0]]), np.ones((2, 2))
    assert not wald_statistic(left, np.array([0.0, 2.0]), np.array([1.0, 3.0]), covariance)[2]
    assert wald_statistic(left, np.array([0.0, 2.1]), np.array([1.0, 3.0]), covariance)[2]
