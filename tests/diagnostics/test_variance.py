"""Where the variance comes from."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

import causalrisk as cr
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.errors.MonteCarloWarning")


SEPARATE = [cr.OutcomeRegression, cr.Hajek, cr.IPWRA, cr.AIPW]


def model(frame, kind=cr.IPWRA, **options):
    return kind.from_formula(f"y ~ {RHS}", frame, treat="d", **options)


@pytest.fixture(scope="module")
def frame():
    return simulate(300, seed=3)


@pytest.mark.parametrize("kind", [*SEPARATE, cr.JRE])
@pytest.mark.parametrize("target", ["all", "treated", "overlap"])
def test_parts_of_the_variance_add_up(frame, kind, target):
    options = {"n_replicates": 40} if kind is cr.JRE else {}
    res = model(frame, kind, target=target, effect="difference").fit(cov_type="robust", **options)
    table = res.se_decomposition()
    np.testing.assert_allclose(table.loc["total", "variance"], res.effect_se**2, rtol=1e-9)
    np.testing.assert_allclose(table["variance"].iloc[:-1].sum(), table.loc["total", "variance"])
    np.testing.assert_allclose(table["share"].iloc[:-1].sum(), 1)
    uses_scores = kind is not cr.OutcomeRegression or target == "overlap"
    assert (table.loc["propensity score", "variance"] > 0) == uses_scores


def test_parts_of_the_variance_by_hand(frame):
    X = sm.add_constant(frame[["x1", "x2", "x3"]]).to_numpy()
    score = 1 / (1 + np.exp(-0.5 * frame.x1))
    res = model(frame, cr.AIPW, propensity_score=score).fit()
    table = res.se_decomposition()
    outcomes = res.potential_outcomes
    gap = outcomes["1"] - outcomes["0"]
    np.testing.assert_allclose(table.loc["sampling of X", "variance"], gap.var(ddof=0) / 300)
    assert table.loc["propensity score", "variance"] == 0
    known = model(frame, cr.OutcomeRegression).fit().se_decomposition().loc["outcome model", "variance"]
    parts = []
    for arm in (0, 1):
        rows = (frame.d == arm).to_numpy()
        ols = sm.OLS(frame.y[rows], X[rows]).fit(cov_type="HC0")
        parts.append(X.mean(axis=0) @ ols.cov_params() @ X.mean(axis=0))
    np.testing.assert_allclose(known, sum(parts))


@pytest.mark.parametrize("kind", [*SEPARATE, cr.JRE])
def test_the_observation_model_is_a_part_of_its_own(frame, kind):
    missing = frame.assign(y=frame.y.where(frame.x1 + frame.x2 * frame.d > -1))
    options = {"n_replicates": 40} if kind is cr.JRE else {}
    res = model(missing, kind, observed="x2 + x3 + d").fit(cov_type="robust", **options)
    table = res.se_decomposition()
    np.testing.assert_allclose(table.loc["total", "variance"], res.effect_se**2, rtol=1e-9)
    np.testing.assert_allclose(table["variance"].iloc[:-1].sum(), table.loc["total", "variance"])
    assert ("observation model" in table.index) == (kind is not cr.OutcomeRegression)


def test_the_part_of_the_observation_model_by_hand(frame):
    """The slope of the effect by the coefficients of the logit, and their robust covariance by statsmodels."""
    seen = (frame.x1 + frame.x2 * frame.d > -1).to_numpy()
    score = 1 / (1 + np.exp(-0.5 * frame.x1))
    options = {"propensity_score": score, "observed": "x2 + d"}
    table = model(frame.assign(y=frame.y.where(seen)), cr.Hajek, **options).fit().se_decomposition()
    columns = sm.add_constant(frame[["x2", "d"]]).to_numpy()
    logit = sm.GLM(seen.astype(float), columns, family=sm.families.Binomial()).fit(cov_type="HC0")

    def effect(gamma):
        weight = seen * (1 + np.exp(-columns @ gamma)) / np.where(frame.d == 1, score, 1 - score)
        means = [np.average(frame.y[frame.d == arm], weights=weight[frame.d == arm]) for arm in (0, 1)]
        return means[1] - means[0]

    steps = 1e-5 * np.eye(3)
    slope = np.array([effect(logit.params + step) - effect(logit.params - step) for step in steps]) / 2e-5
    np.testing.assert_allclose(
        table.loc["observation model", "variance"], slope @ logit.cov_params() @ slope, rtol=1e-6
    )
    assert table.loc["propensity score", "variance"] == 0
