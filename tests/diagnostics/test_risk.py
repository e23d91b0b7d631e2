"""Biases over the propensity replicates, and the path of the shrinkage."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

import causalrisk as cr
from tests.conftest import RHS, simulate


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


@pytest.fixture(scope="module")
def joint(frame):
    return model(frame, cr.JRE).fit(objective="erm", cov_type="robust", n_replicates=60)


def test_risk_table_by_hand(frame):
    drawn = np.random.default_rng(1).standard_gamma(4, size=(300, 8))
    res = model(frame, cr.JRE).fit(cov_type="robust", replicates=drawn)
    X = sm.add_constant(frame[["x1", "x2", "x3"]]).to_numpy()
    d, y = frame.d.to_numpy(), frame.y.to_numpy()
    logits = [sm.GLM(d, X, sm.families.Binomial(), freq_weights=c).fit().fittedvalues for c in [np.ones(300), *drawn.T]]
    weights = [np.where(d == 1, 1 / e, 1 / (1 - e)) for e in logits]
    both, sign = np.stack([d == 0, d == 1]), np.where(d == 1, 1, -1)

    def fitted(w):
        fits = [sm.WLS(y[m], X[m], w[m]).fit() for m in both]
        return np.stack([fit.predict(X) for fit in fits])

    table = res.risk_table()
    for name, means in {"OutcomeRegression": fitted(np.ones(300)), "IPWRA": fitted(weights[0])}.items():
        m = np.where(d == 1, means[1], means[0])
        bias = np.stack([both @ (w * (m - y)) / 300 for w in weights[1:]], axis=1)
        net = bias[1] - bias[0]
        psi = np.stack([means[1] - means[0] + sign * w * (y - m) for w in weights[1:]])
        squares = (net**2).mean(), ((psi - psi.mean()) ** 2).mean() / 300
        row = [*bias.mean(axis=1), net.mean(), *np.sqrt([*squares, sum(squares)]), sum(squares)]
        np.testing.assert_allclose(table.loc[name].iloc[:7], row, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(table.loc[name, "correlation"], np.corrcoef(bias)[0, 1])
        if name == "OutcomeRegression":
            left = bias - (both @ (weights[0] * (m - y)) / 300)[:, None]
            np.testing.assert_allclose(table.loc["AIPW"].iloc[:2], left.mean(axis=1), rtol=1e-6, atol=1e-9)
    own = res.replicate_bias
    np.testing.assert_allclose(table.loc["JRE", "risk"], res.expected_ate_risk)
    np.testing.assert_allclose(table.loc["JRE"].iloc[:3], own.mean(), atol=1e-10)
    assert table.loc["JRE", "risk"] < table.loc["IPWRA", "risk"]


def test_other_estimators_have_no_replicates(frame):
    with pytest.raises(cr.UnavailableError, match=r"AIPW has no propensity replicates.\nUse `JRE"):
        model(frame, cr.AIPW).fit().risk_table()


def test_a_bias_that_no_replicate_changes_has_no_correlation(frame):
    res = model(frame, cr.JRE, target="ATT").fit(cov_type="robust", shrinkage=1.0, n_replicates=7)
    assert res.risk_table()["correlation"].isna().all()


def test_a_known_score_cannot_join(frame):
    known = model(frame, cr.JRE, propensity_score=1 / (1 + np.exp(-0.5 * frame.x1)))
    assert "at the given propensity score" in known.fit(cov_type="robust", join_score=False).methods()
    with pytest.raises(cr.OptionError, match="needs a propensity model with coefficients"):
        known.fit(cov_type="robust", join_score=True)


def test_risk_table_with_known_scores_has_one_replicate(frame):
    score = np.clip(1 / (1 + np.exp(-frame.x1)), 0.1, 0.9)
    table = model(frame, cr.JRE, propensity_score=score).fit(cov_type="robust").risk_table()
    mean = np.abs(table["net"])  # one replicate: the root mean square is the mean itself
    np.testing.assert_allclose(table["RMS net"], mean, atol=1e-12)
    assert table["correlation"].isna().all()
