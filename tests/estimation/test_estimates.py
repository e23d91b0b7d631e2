"""The sandwich: by hand, by identities, under weights and clusters."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

import causalrisk as cr
from tests.conftest import RHS, simulate


def test_outcome_regression_in_a_trial_is_lins_estimator():
    """Robust standard error by hand: the influence function of OLS with interactions plus the sampling of X."""
    frame = simulate(400, strength=0.0)
    frame[["x1", "x2", "x3"]] -= frame[["x1", "x2", "x3"]].mean()
    res = cr.OutcomeRegression.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    x = frame[["x1", "x2", "x3"]].to_numpy()
    d = frame[["d"]].to_numpy()
    columns = np.column_stack([d, np.ones(400), x, d * x])
    lin = sm.OLS(frame.y, columns).fit(cov_type="HC0")
    assert res.effect == pytest.approx(lin.params.iloc[0], rel=1e-10)
    regression = (columns * lin.resid.to_numpy()[:, None]) @ np.linalg.inv(columns.T @ columns)[:, 0]
    assert np.sqrt((regression**2).sum()) == pytest.approx(lin.bse.iloc[0], rel=1e-10)
    contrast = x @ lin.params.to_numpy()[5:]
    assert res.effect_se == pytest.approx(np.linalg.norm(regression + contrast / 400), rel=1e-10)


def test_small_sample_factor():
    model = cr.IPWRA.from_formula(f"y ~ {RHS}", simulate(120), treat="d")
    plain, scaled = model.fit(), model.fit(cov_type="HC1")
    np.testing.assert_allclose(scaled.bse / plain.bse, np.sqrt(120 / (120 - 8)), rtol=1e-12)
    np.testing.assert_allclose(model.fit(small_sample=True).bse, scaled.bse, rtol=1e-12)
    np.testing.assert_array_equal(model.fit(cov_type="HC0").bse, plain.bse)


def test_clusters_of_one_row_equal_no_clusters():
    frame = simulate(200).assign(id=np.arange(200)[::-1])
    plain = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d").fit()
    single = cr.AIPW.from_formula(f"y ~ {RHS}", frame, treat="d", cluster="id").fit()
    assert single.summary().as_text().count("cluster") >= 1
    np.testing.assert_allclose(single.bse, plain.bse, rtol=1e-12)


@pytest.mark.parametrize("model", [cr.OutcomeRegression, cr.IPW, cr.IPWRA, cr.AIPW])
def test_fault_49_frequency_weights_are_repeated_rows(model):
    frame = simulate(150).assign(count=np.random.default_rng(2).integers(1, 5, size=150))
    repeated = frame.loc[frame.index.repeat(frame["count"])].reset_index(drop=True)
    weighted = model.from_formula(f"y ~ {RHS}", frame, treat="d", weights="count", weight_type="frequency")
    by_row = model.from_formula(f"y ~ {RHS}", repeated, treat="d")
    for cov_type in ("robust", "HC1"):
        one, two = weighted.fit(cov_type=cov_type), by_row.fit(cov_type=cov_type)
        np.testing.assert_allclose(one.params, two.params, rtol=1e-10)
        np.testing.assert_allclose(one.bse, two.bse, rtol=1e-10)
    drawn = np.random.default_rng(3).multinomial(len(repeated), np.full(len(repeated), 1 / len(repeated)), size=50).T
    grouped = np.add.reduceat(drawn, np.r_[0, np.cumsum(frame["count"])[:-1]])
    one, two = weighted.fit(resamples=grouped), by_row.fit(resamples=drawn)
    np.testing.assert_allclose(one.bse, two.bse, rtol=1e-10)


def test_probability_weights_by_hand():
    """Weighted least squares per arm and its weighted score, for outcome regression with constants."""
    rng = np.random.default_rng(8)
    frame = simulate(120).assign(w=rng.uniform(0.5, 3, size=120))
    res = cr.OutcomeRegression.from_formula("y ~ 1", frame, treat="d", weights="w", weight_type="probability").fit()
    means, variances = [], []
    for arm in (0, 1):
        y, w = frame.y[frame.d == arm], frame.w[frame.d == arm]
        means.append(np.average(y, weights=w))
        variances.append((w**2 * (y - means[-1]) ** 2).sum() / w.sum() ** 2)
    assert res.effect == pytest.approx(means[1] - means[0], rel=1e-12)
    assert res.effect_se == pytest.approx(np.sqrt(sum(variances)), rel=1e-10)
