"""The objective from its rows against the objective from its definition; derivatives; the risk of several arms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime, check_grad

from causalrisk.criterion import Criterion
from causalrisk.estimators import IPWRA, estimate_separately
from causalrisk.joint import deviation_from, objective_rows
from causalrisk.propensity import fit_propensity
from causalrisk.replicates import bias_forms
from causalrisk.risk import (
    ate_risk,
    bias_contrasts,
    gradient,
    hessian,
    net_bias_rows,
    objective,
    variance_factors,
    variance_rows,
)
from causalrisk.sample import make_sample

CRITERIA = [Criterion(1.0, 50.0, False), Criterion(0.3, 1e4, True)]


@pytest.fixture(scope="module")
def problem():
    """A small weighted sample with three replicates: sample, fit, start, deviation, replicate coefficients."""
    rng = np.random.default_rng(5)
    n = 40
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    Z = np.column_stack([X, rng.normal(size=n)])
    arm = (rng.random(n) < 0.4).astype(np.intp)
    y = 3 + X[:, 1] * (1 + arm) + rng.normal(size=n)
    weights = rng.uniform(0.5, 2, size=n)
    sample = make_sample(y, X, Z, arm, weights)
    fit = fit_propensity(sample.propensity, sample.treated, sample.weights, "probit")
    start = estimate_separately(sample, IPWRA, fit)
    gamma = fit.gamma[:, None] + 0.2 * rng.normal(size=(3, 3))
    return sample, fit, start, deviation_from(sample, start), gamma


def by_definition(problem, criterion, theta):
    """J(theta) written out from its definition, a loop a sum."""
    sample, fit, _, _, gamma = problem
    n_rep, total, q = gamma.shape[1], sample.total, sample.outcome.columns
    value = 0.0
    for b in range(n_rep):
        score = fit.link.probability(sample.propensity.columns @ gamma[:, b])
        bias = np.zeros(2)
        for i in range(sample.n):
            a = sample.arm[i]
            w = 1 / score[i] if a else 1 / (1 - score[i])
            error = q[i] @ theta[a] - sample.y[i]
            bias[a] += sample.weights[i] * w * error / total
            value += criterion.fit * sample.weights[i] * w * error**2 / 2 / total / n_rep
        value += criterion.penalty / 2 * (bias[1] - bias[0]) ** 2 / n_rep
    if criterion.variance:
        psi = np.zeros(sample.n)
        for i in range(sample.n):
            a, e = sample.arm[i], fit.score[i]
            own = (sample.y[i] - q[i] @ theta[a]) * (1 / e if a else -1 / (1 - e))
            psi[i] = q[i] @ (theta[1] - theta[0]) + own
        centred = psi - np.average(psi, weights=sample.weights)
        value += np.average(centred**2, weights=sample.weights) / 2
    return value


def rows_of(problem, criterion):
    sample, fit, _, deviation, gamma = problem
    forms, mean_odds = bias_forms(sample, fit, gamma, deviation.residual)
    return objective_rows(sample, fit, deviation, criterion, forms, mean_odds)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_rows_equal_the_definition(problem, criterion):
    _, _, start, deviation, _ = problem
    rows = rows_of(problem, criterion)
    for seed in range(3):
        z = np.random.default_rng(seed).normal(size=4)
        theta = start.theta + deviation.scale * z.reshape(2, 2)
        expected = by_definition(problem, criterion, theta) / deviation.scale**2
        assert objective(rows, z) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_gradient_and_hessian(problem, criterion):
    rows = rows_of(problem, criterion)
    z = np.array([0.3, -0.2, 0.5, 0.1])
    scale = np.linalg.norm(gradient(rows, z))
    assert check_grad(lambda v: objective(rows, v), lambda v: gradient(rows, v), z) < 1e-6 * scale
    numeric = np.array([approx_fprime(z, lambda v, j=j: gradient(rows, v)[j], 1e-6) for j in range(4)])
    np.testing.assert_allclose(hessian(rows), numeric, rtol=1e-6, atol=1e-6 * np.abs(numeric).max())


def test_batched_variance_factors_equal_the_rows(problem):
    sample, _, _, deviation, _ = problem
    rng = np.random.default_rng(3)
    weights, odds = rng.uniform(0.1, 3, size=(sample.n, 4)), rng.uniform(0.2, 9, size=(sample.n, 4))
    q = sample.outcome.columns
    xi = np.column_stack([q, deviation.residual, deviation.tau])
    by_arm = [xi[a] for a in sample.slices], [weights[a] for a in sample.slices], [odds[a] for a in sample.slices]
    factors = variance_factors(*by_arm, weights.sum(axis=0))
    for j in range(4):
        rows = variance_rows(q, deviation.residual, deviation.tau, sample.arm, odds[:, j])
        centred = rows - np.average(rows, axis=0, weights=weights[:, j])
        expected = (centred * weights[:, [j]]).T @ centred / weights[:, j].sum()
        np.testing.assert_allclose(factors[j].T @ factors[j], expected, rtol=1e-10, atol=1e-11)


def test_risk_of_two_arms_is_the_squared_net_bias():
    bias = np.array([[1.0, -2.0, 0.5], [1.0, 1.0, 0.0]])
    np.testing.assert_allclose(ate_risk(bias), [0.0, 9.0, 0.25])


def test_risk_of_three_arms_depends_on_no_reference():
    bias = np.array([[1.0], [2.0], [4.0]])
    assert ate_risk(bias) == pytest.approx(2 / 3 * (1 + 9 + 4))
    assert ate_risk(bias[[2, 0, 1]]) == pytest.approx(ate_risk(bias))
    assert ate_risk(bias + 5) == pytest.approx(ate_risk(bias))
    assert bias_contrasts(3).shape == (3, 3)


def test_net_bias_rows_evaluate_to_the_risk():
    rng = np.random.default_rng(0)
    forms, z = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 3))
    bias = np.einsum("abp,ap->ab", forms[..., :-1], z) - forms[..., -1]
    rows = net_bias_rows(forms)
    np.testing.assert_allclose((rows[:, :-1] @ z.ravel() - rows[:, -1]) ** 2, ate_risk(bias), rtol=1e-12)
