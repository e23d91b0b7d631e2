"""The parts of the rows in the estimating equation of JRE by the formulas of the derivations, written as loops."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.estimators.joint.equations import RowsAtSolution
from causalrisk.estimators.joint.influence import (
    _fixed_tilt_gradients,
    known_score_sums,
    loss_term,
    propensity_sums,
    propensity_term,
    risk_term,
    variance_gradients,
    variance_term,
)
from causalrisk.estimators.joint.train import Trainer, joint_criterion
from tests.problems import RISK, problem

N_REPLICATES = 12


class ByHand:
    """Gradient of sigma_0^2 J and the four terms of xi_i, two arms and a linear outcome."""

    def __init__(self, rows, gamma):
        self.rows, solution, sample = rows, rows.solution, rows.sample
        self.solution = solution
        self.sign = np.where(sample.arm == 1, 1.0, -1.0)
        m0, m1 = rows.predicted
        self.error = np.where(sample.arm == 1, m1, m0) - sample.y
        self.own = np.hstack([sample.X.columns * inside[:, None] for inside in sample.indicators.T])
        self.effect_slope = np.hstack([-sample.X.columns, sample.X.columns])
        start = rows.resampled.start_theta[..., 0]
        self.effect = m1 - m0 - solution.criterion.real_share * (sample.X.columns @ (start[1] - start[0]))
        weights = [self.weights_at(column) for column in gamma.T]
        self.w, self.t = (np.array(part) for part in zip(*weights, strict=True))
        self.penalties = np.r_[solution.criterion.fitted_penalty, np.full(len(gamma.T) - 1, solution.criterion.penalty)]
        self.penalties[1:] /= len(gamma.T) - 1

    def weights_at(self, gamma):
        fit, sample = self.rows.weight_fit, self.rows.sample
        at = fit.model.weights_at(fit.model.predictors(gamma[:, None]), sample.s[:, None])
        return at.w[:, 0], np.broadcast_to(at.tilt, at.w.shape)[:, 0]

    def loss(self):
        w = self.w[0] if self.solution.criterion.full_risk else self.w[1:].mean(axis=0)
        return self.solution.criterion.alpha_sigma2 * (w * self.error)[:, None] * self.own

    def loss_term(self):
        if self.solution.criterion.full_risk:
            return self.loss() - self.t[0][:, None] * self.loss().mean(axis=0)
        rows = self.solution.criterion.alpha_sigma2 * (self.w[1:] * self.error)[..., None] * self.own
        return (rows - self.t[1:, :, None] * rows.mean(axis=1, keepdims=True)).mean(axis=0)

    def net_biases(self):
        g = self.w * self.sign * self.error
        slope = (self.w * self.sign)[..., None] * self.own
        return g, slope, g.mean(axis=1), slope.mean(axis=1)

    def risk_term(self):
        g, slope, u, du = self.net_biases()
        total = 0.0
        for b, penalty in enumerate(self.penalties):
            moved = (g[b] - self.t[b] * u[b])[:, None] * du[b] + u[b] * (slope[b] - np.outer(self.t[b], du[b]))
            total = total + penalty * moved
        return total

    def psi(self):
        w, t = self.w[1:], self.t[1:]
        phi = t * self.effect - w * self.sign * self.error
        slope = t[..., None] * self.effect_slope - (w * self.sign)[..., None] * self.own
        return phi, slope, phi - t * phi.mean(), slope - t[..., None] * slope.mean(axis=(0, 1))

    def variance_term(self):
        t = self.t[1:]
        phi, phi_slope, psi, psi_slope = self.psi()
        nu = psi[..., None] * psi_slope
        mu_moved = (phi - t * phi.mean(axis=1, keepdims=True)).mean(axis=0)
        slope_moved = (phi_slope - t[..., None] * phi_slope.mean(axis=1, keepdims=True)).mean(axis=0)
        term = nu.mean(axis=0) + nu.mean(axis=(0, 1))
        term -= 2 * (t[..., None] * nu.mean(axis=1, keepdims=True)).mean(axis=0)
        return term - np.outer(mu_moved, (t[..., None] * psi_slope).mean(axis=(0, 1))) - (t * psi).mean() * slope_moved

    def gradient(self):
        _, _, u, du = self.net_biases()
        total = self.loss().mean(axis=0) + (self.penalties * u) @ du
        if self.solution.criterion.full_risk:
            _, _, psi, psi_slope = self.psi()
            total = total + (psi[..., None] * psi_slope).mean(axis=(0, 1))
        return total


@pytest.fixture(scope="module")
def pupils():
    return cr.datasets.load_tutoring().iloc[:300]


@pytest.mark.parametrize("objective", ["risk", "erm"])
@pytest.mark.parametrize("target", ["all", "treated", "overlap", "matching"])
def test_four_terms_are_those_of_the_derivations(pupils, target, objective):
    model = cr.JRE.from_formula("score ~ prior + girl", pupils, treat="tutored", target=target)
    options = {"anchor": 1.0} if objective == "risk" else {"penalty": 300}
    res = model.fit(cov_type="robust", objective=objective, n_replicates=N_REPLICATES, **options)
    joint = res._record.joint
    trainer = Trainer(joint.problem)
    solution = trainer.train(joint.criterion)
    rows, fit = RowsAtSolution(solution, trainer.whole), joint.problem.weight_fit
    (centres,) = trainer.centres(solution)
    sums = known_score_sums(rows, centres)
    gamma = np.column_stack([fit.gamma, joint.replicates.gamma])
    hand = ByHand(rows, gamma)
    scale = np.abs(hand.risk_term()).max()
    np.testing.assert_allclose(hand.gradient(), 0, atol=1e-9 * scale)

    factor = solution.hessian.factor
    of_u_slope, whitened = (of.written(rows.columns).T for of in risk_term(rows, sums))
    np.testing.assert_allclose(loss_term(rows, sums).written(rows.columns).T, hand.loss_term(), atol=1e-10 * scale)
    np.testing.assert_allclose(of_u_slope + whitened @ factor, hand.risk_term(), atol=1e-10 * scale)
    if objective == "risk":
        by_variance = variance_term(rows, sums).written(rows.columns).T
        np.testing.assert_allclose(by_variance, hand.variance_term(), atol=1e-10 * scale)

    by_gamma = []
    for step in 1e-5 * np.eye(len(gamma)):
        ahead, behind = (ByHand(rows, gamma + sign * step[:, None]).gradient() for sign in (1, -1))
        by_gamma.append((ahead - behind) / 2e-5)
    term, whitened = (of.T for of in propensity_term(rows, propensity_sums(solution, trainer.over)))
    expected = fit.influence @ np.array(by_gamma)
    np.testing.assert_allclose(term + whitened @ factor, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "case",
    [
        (2, "gaussian", None, "logit", "all"),
        (2, "binomial", "logit", "logit", "treated"),
        (3, "poisson", "log", "multinomial", "control"),
    ],
    ids=lambda case: f"{case[1]}-{case[4]}",
)
def test_gradients_under_a_fixed_tilt_equal_those_of_any(case):
    parts, _, _ = problem(*case).joint(RISK)
    trainer = Trainer(parts)
    rows = RowsAtSolution(trainer.train(joint_criterion(parts, RISK)), trainer.whole)
    for _, _, at in rows.data.replicated.blocks():
        general = np.add(*variance_gradients(rows, at))
        np.testing.assert_allclose(
            _fixed_tilt_gradients(rows)(at), general, rtol=1e-9, atol=1e-12 * np.abs(general).max()
        )


def test_the_equations_are_solved_where_events_are_foretold_to_the_last_digit():
    """An outcome against its arm's mean of almost one has a score of one, and a weight near zero."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=80)
    d = (rng.random(80) < 1 / (1 + np.exp(-0.5 * x))).astype(int)
    data = {"y": (rng.random(80) < np.where(d == 1, 0.95, 0.6)).astype(float), "x": x, "d": d}
    model = cr.JRE.from_formula("y ~ x", data, treat="d", family="binomial", target="control", clip=(0.05, 0.7))
    res = model.fit(cov_type="robust", anchor=0.03, n_replicates=5, rng=1)
    psi = res.estimating_equations()
    assert res.converged and res.outcome_params["1"].abs().max() > 40
    np.testing.assert_allclose(psi.sum() / psi.std(), 0, atol=1e-9)
