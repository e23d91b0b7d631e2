"""TMLE beside fluctuations that statsmodels fits."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from causalrisk import AIPW, TMLE, OptionError
from tests.conftest import RHS, simulate

FAMILIES = {"gaussian": sm.families.Gaussian, "binomial": sm.families.Binomial, "poisson": sm.families.Poisson}


def drawn(family, n=500):
    data = simulate(n, seed=4)
    mean = 1 / (1 + np.exp(-data["y"] / 3))
    rng = np.random.default_rng(1)
    outcomes = {"gaussian": data["y"], "binomial": rng.binomial(1, mean), "poisson": rng.poisson(3 * mean)}
    return data.assign(y=outcomes[family])


def means_by_hand(data, family, target):
    """Outcome models, a constant fitted to each arm under the weights with their predictors as offset, averages."""
    X, d, y = sm.add_constant(data[["x1", "x2", "x3"]]).to_numpy(), data["d"].to_numpy(), data["y"].to_numpy()
    e = sm.Logit(d, X).fit(disp=0, tol=1e-13).predict(X)
    tilt, found = {"all": np.ones(len(d)), "treated": d}[target], []
    for a, score in enumerate((1 - e, e)):
        own, of = d == a, FAMILIES[family]()
        eta = X @ sm.GLM(y[own], X[own], family=of).fit(tol=1e-14).params
        w = (e if target == "treated" else np.ones(len(d)))[own] / score[own]
        fluctuation = sm.GLM(y[own], np.ones(own.sum()), family=of, offset=eta[own], var_weights=w)
        shifted = of.link.inverse(eta + fluctuation.fit(tol=1e-14).params[0])
        found.append(tilt @ shifted / tilt.sum())
    return np.array(found)


@pytest.mark.parametrize("target", ["all", "treated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_means_are_those_of_a_fluctuation_by_statsmodels(family, target):
    data = drawn(family)
    res = TMLE.from_formula(f"y ~ {RHS}", data, treat="d", family=family, target=target).fit()
    np.testing.assert_allclose(res.params.iloc[1:], means_by_hand(data, family, target), rtol=1e-9)


def test_of_a_linear_model_it_is_aipw_with_normalised_weights():
    data = drawn("gaussian")
    targeted, normalised = (
        model.from_formula(f"y ~ {RHS}", data, treat="d", **options).fit()
        for model, options in ((TMLE, {}), (AIPW, {"normalize": True}))
    )
    np.testing.assert_allclose(targeted.params, normalised.params, rtol=1e-10)
    np.testing.assert_allclose(targeted.bse, normalised.bse, rtol=1e-8)


def test_normalised_weights_of_residuals_by_hand():
    data = drawn("binomial")
    X, d, y = sm.add_constant(data[["x1", "x2", "x3"]]).to_numpy(), data["d"].to_numpy(), data["y"].to_numpy()
    e, means = sm.Logit(d, X).fit(disp=0, tol=1e-13).predict(X), []
    for a, score in enumerate((1 - e, e)):
        predicted = sm.GLM(y[d == a], X[d == a], family=sm.families.Binomial()).fit(tol=1e-14).predict(X)
        w = (d == a) / score
        means.append(predicted.mean() + w @ (y - predicted) / w.sum())
    res = AIPW.from_formula(f"y ~ {RHS}", data, treat="d", family="binomial", normalize=True).fit()
    np.testing.assert_allclose(res.params.iloc[1:], means, rtol=1e-10)
    assert "add up to one in each group" in " ".join(str(res.summary()).split())


def test_robust_errors_are_those_of_leaving_each_row_out():
    data = drawn("binomial", 3000)
    model = TMLE.from_formula(f"y ~ {RHS}", data, treat="d", family="binomial")
    np.testing.assert_allclose(model.fit().bse, model.fit(cov_type="jackknife").bse, rtol=0.005)


def test_frequency_weights_are_repeated_rows():
    data, times = drawn("binomial"), np.random.default_rng(3).integers(1, 4, 500)
    options = {"treat": "d", "family": "binomial"}
    weighed = TMLE.from_formula(
        f"y ~ {RHS}", data.assign(w=times), weights="w", weight_type="frequency", **options
    ).fit()
    repeated = TMLE.from_formula(f"y ~ {RHS}", data.loc[data.index.repeat(times)], **options).fit()
    np.testing.assert_allclose(weighed.params, repeated.params, rtol=1e-10)
    np.testing.assert_allclose(weighed.bse, repeated.bse, rtol=1e-8)


def test_predictions_of_a_learner_are_shifted():
    """The weighted residuals of shifted predictions add up to zero, so that AIPW with them corrects nothing."""
    data = drawn("binomial")
    options = {"treat": "d", "family": "binomial", "learner": "smooth", "learner_use": "replace"}
    targeted, corrected = (model.from_formula(f"y ~ {RHS}", data, **options).fit() for model in (TMLE, AIPW))
    assert 0 < abs(targeted.effect - corrected.effect) < 0.1 * targeted.bse.iloc[0]


@pytest.mark.parametrize("option", [{"effect": "quantile"}, {"propensity_link": "cauchit"}])
def test_what_it_cannot_do_is_refused(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        TMLE.from_formula(f"y ~ {RHS}", drawn("gaussian"), treat="d", **option)
