"""Propensity models: agreement with statsmodels, links and their derivatives, batches and their reasons."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import approx_fprime

from causalrisk.errors import Failure
from causalrisk.numerics import newton
from causalrisk.numerics.families import BINARY_LINKS
from causalrisk.numerics.linalg import orthonormal_basis
from causalrisk.propensity.models import BinaryModel, CalibratedModel, ClippedModel, MultinomialModel
from causalrisk.propensity.targets import ArmTarget, OverlapTarget
from causalrisk.propensity.weights import WeightModel, fit_weights

EVERYBODY = ArmTarget(None)
SM_LINKS = {"logit": sm.families.links.Logit, "probit": sm.families.links.Probit, "cloglog": sm.families.links.CLogLog}


def data(n=300, seed=1):
    rng = np.random.default_rng(seed)
    Z = np.column_stack([np.ones(n), rng.normal(size=n), rng.exponential(size=n) * 50])
    d = (rng.random(n) < 1 / (1 + np.exp(-Z[:, 1] + 0.02 * Z[:, 2]))).astype(float)
    return Z, d


def fitted(Z, d, link="logit", model=None, target=EVERYBODY):
    """Basis and weight fit of a binary model, or of another."""
    basis = orthonormal_basis(Z, np.ones(len(d)))
    made = model or BinaryModel(basis.columns, d.astype(np.intp), link)
    return basis, fit_weights(WeightModel(made, target, np.ones(len(d))), np.ones(len(d)))


def glm(Z, d, link, weights=None):
    family = sm.families.Binomial(SM_LINKS[link]())
    return sm.GLM(d, Z, family=family, freq_weights=weights).fit(tol=1e-14, maxiter=200).params


@pytest.mark.parametrize("link", BINARY_LINKS)
def test_coefficients_equal_statsmodels(link):
    Z, d = data()
    basis, fit = fitted(Z, d, link)
    np.testing.assert_allclose(basis.coefficients(fit.gamma), glm(Z, d, link), rtol=1e-8)
    assert fit.converged


@pytest.mark.parametrize("link", BINARY_LINKS)
def test_every_column_of_a_batch_equals_its_own_fit(link):
    Z, d = data()
    weights = np.random.default_rng(2).multinomial(len(d), np.full(len(d), 1 / len(d)), size=7).T.astype(float)
    basis, full = fitted(Z, d, link)
    batch = full.refit(weights)
    assert (batch.failures == Failure.OK).all()
    for j in range(7):
        expected = glm(Z, d, link, weights[:, j])
        np.testing.assert_allclose(basis.coefficients(batch.coefficients[:, j]), expected, rtol=1e-7)


@pytest.mark.parametrize("link", BINARY_LINKS)
@pytest.mark.parametrize("d", [0.0, 1.0])
@pytest.mark.parametrize("eta", [-3.0, -0.2, 0.9, 2.0])
def test_derivatives_of_the_links(link, d, eta):
    f = BINARY_LINKS[link]
    arm = np.array([d])
    score, information = f.score(np.array([eta]), arm)
    by_likelihood = approx_fprime([eta], lambda e: f.log_likelihood(e, arm)[0], 1e-6)
    by_score = approx_fprime([eta], lambda e: f.score(e, arm)[0][0], 1e-6)
    by_odds = approx_fprime([eta], lambda e: f.own_odds(e, arm)[0], 1e-7)
    assert score[0] == pytest.approx(by_likelihood[0], rel=2e-5)
    assert information[0] == pytest.approx(-by_score[0], rel=2e-5)
    assert f.own_odds_slope(np.array([eta]), arm)[0] == pytest.approx(by_odds[0], rel=2e-5)
    probability = f.probability(np.array([eta]))[0]
    own = probability if d else 1 - probability
    assert f.own_odds(np.array([eta]), arm)[0] == pytest.approx((1 - own) / own, rel=1e-9)
    assert f.log_likelihood(np.array([eta]), arm)[0] == pytest.approx(np.log(own), rel=1e-9)


def test_odds_keep_their_digits_in_the_tail():
    """1 - e at a propensity score of 1 - 1e-20, by the complement and not by subtraction."""
    eta = np.array([46.0])
    assert BINARY_LINKS["logit"].own_odds(eta, np.array([1.0]))[0] == pytest.approx(np.exp(-46.0), rel=1e-14)
    # P(N > 9) to ten digits, from tables of the normal tail
    odds = BINARY_LINKS["probit"].own_odds(np.array([9.0]), np.array([1.0]))[0]
    assert odds == pytest.approx(1.128588406e-19, rel=1e-9)


@pytest.mark.parametrize("link", BINARY_LINKS)
@pytest.mark.parametrize("eta", [-2000.0, -45.0, 45.0, 2000.0])
def test_links_are_numbers_where_a_row_is_sure_of_its_arm(link, eta):
    """Nothing overflows to NaN, and the smaller chance keeps its digits: exp(-45), or less than 1e-300."""
    f, at, arm = BINARY_LINKS[link], np.array([eta]), np.array([float(eta > 0)])
    sure = [*f.score(at, arm), f.own_odds(at, arm), f.own_odds_slope(at, arm), f.log_likelihood(at, arm)]
    np.testing.assert_allclose(np.ravel(sure), 0, atol=1e-19)
    chances = f.probabilities(at)[:, 0]
    assert f.probability(at)[0] == chances[1]
    tail = {"logit": np.exp(-45.0), "cloglog": np.exp(-45.0) if eta < 0 else 0.0}.get(link, 0.0)
    assert max(chances) == 1
    assert min(chances) == pytest.approx(tail if abs(eta) == 45 else 0, rel=1e-14, abs=1e-299)


def test_influence_function_is_the_score_over_the_information():
    Z, d = data()
    basis, fit = fitted(Z, d)
    expected = sm.Logit(d, Z).fit(disp=0, tol=1e-12)
    influence = basis.coefficients(fit.influence.T)
    scores = Z * (d - expected.predict())[:, None]
    bread = np.linalg.inv(-expected.model.hessian(expected.params))
    np.testing.assert_allclose(influence @ influence.T / len(d) ** 2, bread @ scores.T @ scores @ bread, rtol=1e-8)


def batch_of(weights, Z, d):
    model = BinaryModel(orthonormal_basis(Z, np.ones(len(d))).columns, d.astype(np.intp), "logit")
    return model.refit(weights, np.zeros(Z.shape[1]))


def test_reasons_of_failed_refits():
    Z, d = data(60)
    Z[:, 2] = np.arange(60) % 2
    ones = np.ones(60)
    empty = np.where(d > 0, 0.0, 1.0)
    singular = np.where(Z[:, 2] > 0, 0.0, 1.0)
    separated = np.where((Z[:, 2] > 0) & (d > 0), 0.0, 1.0)
    batch = batch_of(np.column_stack([ones, empty, singular, separated]), Z, d)
    wanted = [Failure.OK, Failure.EMPTY_ARM, Failure.SINGULAR_PROPENSITY, Failure.SEPARATION]
    assert batch.failures.tolist() == wanted


def test_a_failed_refit_does_not_disturb_its_neighbours():
    Z, d = data(60)
    separated = np.where((Z[:, 1] > 0) == (d > 0), 1.0, 0.0)
    alone = batch_of(np.ones((60, 1)), Z, d)
    beside = batch_of(np.column_stack([np.ones(60), separated]), Z, d)
    assert beside.failures.tolist() == [Failure.OK, Failure.SEPARATION]
    np.testing.assert_allclose(beside.coefficients[:, 0], alone.coefficients[:, 0], rtol=1e-12)


def test_far_start_is_damped():
    Z, d = data()
    basis = orthonormal_basis(Z, np.ones(len(d)))
    start = np.array([0.0, 6.0, -6.0])
    model = BinaryModel(basis.columns, d.astype(np.intp), "logit")
    batch = newton.maximize(model.weighted(np.ones((len(d), 1))), start[:, None])
    assert batch.failures.tolist() == [Failure.OK]
    np.testing.assert_allclose(basis.coefficients(batch.coefficients[:, 0]), glm(Z, d, "logit"), rtol=1e-8)


def three_arms(n=400, seed=3):
    Z, _ = data(n)
    Z[:, 2] /= 50
    eta = np.column_stack([np.zeros(n), 0.4 * Z[:, 1], 0.3 - 0.5 * Z[:, 2]])
    p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    arm = (np.random.default_rng(seed).random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    return Z, arm.astype(np.intp)


def test_several_arms_equal_statsmodels_mnlogit():
    Z, arm = three_arms()
    basis = orthonormal_basis(Z, np.ones(len(arm)))
    _, fit = fitted(Z, arm, model=MultinomialModel(basis.columns, arm, 3))
    expected = sm.MNLogit(arm, Z).fit(disp=0, tol=1e-12, method="newton")
    own = np.column_stack([basis.coefficients(fit.gamma[:3]), basis.coefficients(fit.gamma[3:])])
    np.testing.assert_allclose(own, expected.params, rtol=1e-8)
    np.testing.assert_allclose(fit.probabilities.T, expected.predict(), rtol=1e-9)
    np.testing.assert_allclose(fit.undivided, 1 / expected.predict()[np.arange(len(arm)), arm], rtol=1e-9)


@pytest.mark.parametrize("target", [ArmTarget(None), ArmTarget(0), ArmTarget(1), OverlapTarget()])
def test_two_arms_through_the_multinomial_model_equal_the_binary_one(target):
    Z, d = data()
    basis = orthonormal_basis(Z, np.ones(len(d)))
    arm = d.astype(np.intp)
    binary, several = (fitted(Z, d, model=m, target=target)[1] for m in
                       (BinaryModel(basis.columns, arm, "logit"), MultinomialModel(basis.columns, arm, 2)))  # fmt: skip
    for field in ("gamma", "excess", "tilt", "w_by_gamma", "influence", "undivided"):
        np.testing.assert_allclose(getattr(binary, field), getattr(several, field), rtol=1e-8, atol=1e-10)


def test_overlap_weights_balance_the_covariates_exactly():
    """Li, Morgan and Zaslavsky (2018), theorem 3: for a logit by maximum likelihood."""
    Z, d = data()
    _, fit = fitted(Z, d, target=OverlapTarget())
    means = [np.average(Z, axis=0, weights=np.where(d == a, fit.w, 0)) for a in (0, 1)]
    np.testing.assert_allclose(*means, rtol=1e-9)
    score = fit.probabilities[1]
    np.testing.assert_allclose(fit.undivided, np.where(d == 1, 1 - score, score), rtol=1e-9)


@pytest.mark.parametrize("toward", [0, 1])
def test_calibrated_scores_far_out_are_numbers(toward):
    model = CalibratedModel(np.ones((3, 1)), np.array([0, 1, 1]), 2, toward)
    found = model.probabilities(np.array([[[-900.0], [0.0], [900.0]]]))[1 - toward, :, 0]
    np.testing.assert_allclose(found, [0, 0.5, 1], atol=1e-12)


@pytest.mark.parametrize("toward", [None, 0, 1, 2])
def test_calibrated_weights_balance_the_covariates_exactly(toward):
    Z, arm = three_arms()
    basis = orthonormal_basis(Z, np.ones(len(arm)))
    target = ArmTarget(toward)
    _, fit = fitted(Z, arm, model=CalibratedModel(basis.columns, arm, 3, toward), target=target)
    wanted = Z.sum(axis=0) if toward is None else Z[arm == toward].sum(axis=0)
    for a in range(3):
        np.testing.assert_allclose((fit.undivided * (arm == a)) @ Z, wanted, rtol=1e-8)


@pytest.mark.parametrize("clip", [None, (0.2, 0.45)])
@pytest.mark.parametrize(
    ("loss", "target"),
    [
        ("ml", ArmTarget(None)),
        ("ml", ArmTarget(1)),
        ("ml", OverlapTarget()),
        ("calibrated", ArmTarget(None)),
        ("calibrated", ArmTarget(2)),
    ],
)
def test_derivatives_of_the_weights(loss, target, clip):
    Z, arm = three_arms()
    basis = orthonormal_basis(Z, np.ones(len(arm)))
    model = MultinomialModel(basis.columns, arm, 3)
    if loss == "calibrated":
        model = CalibratedModel(basis.columns, arm, 3, target.toward)
    _, fit = fitted(Z, arm, model=ClippedModel(model, *clip) if clip else model, target=target)
    ones, step = np.ones((len(arm), 1)), 1e-5

    def at(state):
        weights = fit.model.weights_at(fit.model.predictors(state[:, None]), ones)
        return weights.w[:, 0], weights.tilt[:, 0]

    for k, bump in enumerate(step * np.eye(len(fit.gamma))):
        up, down = at(fit.gamma + bump), at(fit.gamma - bump)
        np.testing.assert_allclose((up[0] - down[0]) / (2 * step), fit.w_by_gamma[:, k], atol=1e-8)
        if fit.tilt_by_gamma is not None:
            np.testing.assert_allclose((up[1] - down[1]) / (2 * step), fit.tilt_by_gamma[:, k], atol=1e-8)
