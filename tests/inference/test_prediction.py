"""Predictions of new rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

import causalrisk as cr
from tests.conftest import RHS, simulate


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
    res = cr.Hajek.from_formula("y ~ 1", frame, treat="d", propensity=RHS).fit(cov_type="bootstrap", n_boot=50)
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
