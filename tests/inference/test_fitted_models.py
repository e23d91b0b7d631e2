"""Coefficients, by the names of their arms; predictions of new rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

import causalrisk as cr
from tests.conftest import RHS, simulate

FORMULA = "y ~ x1 + x2"


def three_arms(n=400):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 2))
    d = (np.column_stack([0 * x[:, 0], 0.5 * x[:, 0], -0.5 * x[:, 1]]) + rng.gumbel(size=(n, 3))).argmax(axis=1)
    return pd.DataFrame({"y": x.sum(axis=1) + d + rng.normal(size=n), "x1": x[:, 0], "x2": x[:, 1], "d": d})


def first_equation(data, arm, target):
    """What calibration asks of an arm: its weighted covariates are those of the target, by statsmodels' own columns."""
    x = np.column_stack([np.ones(len(data)), data.x1, data.x2])
    own, wanted = (data.d == arm).to_numpy(), x.sum(axis=0) if target == "all" else x[data.d == target].sum(axis=0)
    return x, own, wanted


@pytest.mark.parametrize(("estimator", "target", "clip"), [
    *((cr.IPWRA, target, None) for target in ("all", 0, 1, 2)), (cr.IPWRA, "all", (1e-6, 1 - 1e-6)),
    (cr.IPWRA, 1, (1e-6, 1 - 1e-6)),
    *((kind, target, None) for kind in (cr.AIPW, cr.IPW, cr.JRE) for target in ("all", 1)),
])  # fmt: skip
def test_calibrated_coefficients_balance_the_arm_they_are_named_for(estimator, target, clip):
    data = three_arms()
    options = {"treat": "d", "reference": 0, "target": target, "propensity_loss": "calibrated"}
    model = estimator.from_formula(FORMULA, data, clip=clip, **options)
    res = model.fit(cov_type="robust")
    gamma = res.propensity_params
    arms = [arm for arm in range(3) if arm != target]
    assert list(gamma.index) == [f"{arm}: {term}" for arm in arms for term in ("Intercept", "x1", "x2")]
    assert list(res.propensity_bse.index) == list(gamma.index) and res.propensity_bse.gt(0).all()
    for arm in arms:
        x, own, wanted = first_equation(data, arm, target)
        odds = np.exp(-x[own] @ gamma[[f"{arm}: {term}" for term in ("Intercept", "x1", "x2")]].to_numpy())
        weights = 1 + odds if target == "all" else odds
        np.testing.assert_allclose(weights @ x[own], wanted, rtol=1e-6, atol=1e-6)
    named = [name for name in res.estimating_equations() if name.startswith("propensity: ")]
    assert named == [f"propensity: {name}" for name in gamma.index]


@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_residuals_equal_statsmodels(family):
    frame = simulate(300).assign(y=lambda f: np.clip(np.round(f.y), 0, 1 if family == "binomial" else None))
    res = cr.OutcomeRegression.from_formula(FORMULA, frame, treat="d", family=family).fit()
    made = getattr(sm.families, family.capitalize())()
    arms = [smf.glm(FORMULA, own, family=made).fit(tol=1e-12).resid_response for _, own in frame.groupby("d")]
    pd.testing.assert_series_equal(res.resid, pd.concat(arms).sort_index().rename("resid"), rtol=1e-7)


@pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")
def test_residuals_of_rows_dropped_of_scores_and_of_what_has_none():
    frame = simulate(300)
    frame.loc[5, "x1"] = np.nan
    res = cr.IPWRA.from_formula(FORMULA, frame, treat="d").fit()
    assert 5 not in res.resid.index and len(res.resid) == 299
    weighted = res.resid * res.importance_weights
    np.testing.assert_allclose(weighted.groupby(frame.d).sum() / 300, 0, atol=1e-10)
    with pytest.raises(cr.UnavailableError, match="JRE does not predict"):
        _ = cr.JRE.from_formula(FORMULA, frame, treat="d").fit(cov_type="robust").resid
    matched = cr.Matching.from_formula(FORMULA, frame, treat="d").fit()
    with pytest.raises(cr.UnavailableError, match=r"not available for Matching.\nUse `OutcomeRegression`"):
        _ = matched.resid
    assert "resid" not in dir(matched) and "matches" in dir(matched)


def test_residuals_of_counts_with_an_offset_or_exposure_are_those_of_statsmodels():
    counts = simulate(300, seed=6).assign(t=1.0 + np.arange(300) % 3)
    counts["y"] = np.floor(counts.t * np.exp(counts.x2 / 2 + 1))
    poisson = sm.families.Poisson()
    arms = [
        smf.glm("y ~ x2", own, family=poisson, offset=np.log(own.t)).fit(tol=1e-12).resid_response
        for _, own in counts.groupby("d")
    ]
    wanted = pd.concat(arms).sort_index().rename("resid")
    for given in ({"offset": np.log(counts.t)}, {"exposure": "t", "at_exposure": "observed"}):
        res = cr.OutcomeRegression.from_formula("y ~ x2", counts, treat="d", family="poisson", **given).fit()
        pd.testing.assert_series_equal(res.resid, wanted, rtol=1e-6)
    with pytest.raises(cr.UnavailableError, match='at_exposure="observed"'):
        _ = cr.IPWRA.from_formula("y ~ x2", counts, treat="d", family="poisson", exposure="t").fit().resid


@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_predictions_equal_statsmodels(family):
    frame = simulate(400).assign(y=lambda f: np.clip(np.round(f.y), 0, 1 if family == "binomial" else None))
    res = cr.OutcomeRegression.from_formula("y ~ x1 + x2", frame, treat="d", family=family).fit()
    new = frame.head(7)
    made = getattr(sm.families, family.capitalize())()
    for arm in (0, 1):
        arm_fit = smf.glm("y ~ x1 + x2", frame[frame.d == arm], family=made).fit(cov_type="HC0", tol=1e-12)
        expected = arm_fit.get_prediction(new).summary_frame()
        found = res.get_prediction(new, arm=arm).summary_frame()
        np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-7)
        np.testing.assert_allclose(found["mean_se"], expected["mean_se"], rtol=1e-6)
        np.testing.assert_allclose(found["mean_ci_lower"], expected["mean_ci_lower"], rtol=1e-6)
    both = res.get_prediction(new)
    assert both.predicted_mean.index.nlevels == 2 and len(both.se_mean) == 14
    pd.testing.assert_series_equal(both.predicted_mean.unstack()["1"], res.predict(new)["1"], check_names=False)
    assert both.conf_int(0.1).shape == (14, 2)


def test_predictions_of_constants_and_of_a_bootstrap():
    frame = simulate(300)
    res = cr.IPW.from_formula("y ~ 1", frame, treat="d", propensity=RHS).fit(cov_type="bootstrap", n_boot=50)
    found = res.get_prediction(frame.head(3), arm=1)
    np.testing.assert_allclose(found.se_mean, np.repeat(res.bse.iloc[2], 3), rtol=1e-9)
    assert "mean_se" in repr(found)


def test_a_square_far_from_zero_had_predictions_with_standard_errors_of_zero():
    """Coefficients of x and x^2 at x = 10,000 nearly cancel; their covariance lost every digit of what is left."""
    frame = simulate(400)
    near = cr.OutcomeRegression.from_formula("y ~ x1 + I(x1**2)", frame, treat="d").fit()
    far = cr.OutcomeRegression.from_formula("y ~ x1 + I(x1**2)", frame.assign(x1=frame.x1 + 1e4), treat="d").fit()
    expected, found = near.get_prediction(frame.head(9)), far.get_prediction(frame.head(9).assign(x1=frame.x1 + 1e4))
    np.testing.assert_allclose(found.predicted_mean, expected.predicted_mean, rtol=1e-5)
    np.testing.assert_allclose(found.se_mean, expected.se_mean, rtol=1e-5)
    assert found.se_mean.min() > 0.05
