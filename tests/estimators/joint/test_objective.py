"""The joint objective against its definition, written out as loops; derivatives; the risk of several arms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from causalrisk.estimators.joint.equations import expand_about
from causalrisk.estimators.joint.objective import (
    JointObjective,
    ate_risk,
    bias_contrasts,
    unit_slopes,
)
from causalrisk.estimators.joint.train import joint_criterion
from tests.problems import ERM, RISK, expand, problem, tilt_function

CASES = [
    (2, "gaussian", None, "all", "difference"),
    (2, "binomial", "logit", "treated", "odds_ratio"),
    (2, "binomial", "probit", "overlap", "difference"),
    (2, "poisson", "log", "function", "ratio"),
    (3, "gaussian", None, "all", "difference"),
    (3, "binomial", "logit", "control", "percent"),
    (3, "gamma", "log", "overlap", "ratio"),
    (2, "poisson", "log", "all", "ratio", "observed"),
    (2, "gaussian", None, "treated", "difference", "observed"),
]


class Setting:
    """A small problem with its objective at the full sample."""

    def __init__(self, case, criterion):
        n_arms, family, link, target, effect, *offset = case
        model = "logit" if n_arms == 2 else "multinomial"
        self.parts = problem(n_arms, family, link, model, target, effect, n=60, seed=2, offset=next(iter(offset), None))
        self.target = target
        self.trained, self.joint, self.refit = self.parts.joint(criterion, count=3)
        self.start = self.trained.start.theta
        sample = self.parts.sample
        self.states = self.trained.replicates.gamma
        self.criterion = joint_criterion(self.trained, criterion)
        self.objective = JointObjective(sample, self.criterion)
        self.rows = self.trained.block(slice(0, sample.n), sample, self.parts.fit)
        self.resampled = self.rows.resampled

    def equations(self, theta):
        """Equations of the objective about theta."""
        at = expand_about(theta, self.criterion, lambda function: iter([function(self.rows)]))
        return at.equations.stacked(self.criterion) * self.objective.row_units

    def expand(self, theta):
        return expand(self.objective, theta.reshape(*self.start.shape, 1), self.resampled)

    def squares(self, theta):
        """Value, gradient and Hessian in units of the outcome from the expansion, (all but the fit's constant)."""
        at, unit = self.expand(theta), self.objective.row_units
        strict, gram = at.strict[0], at.gram[0]
        total = (strict[:, :-1].T @ strict + gram) / np.outer(unit[:-1], unit)
        bend, value = at.curvature[0] / unit[0] ** 2, at.value[0] * self.criterion.rms_residual**2
        return value, -total[:, -1], total[:, :-1] + bend

    def weights(self, state):
        """Importance weights and tilt, from the probabilities."""
        sample, model = self.parts.sample, self.parts.fit.model
        p = model.propensity.probabilities(model.predictors(state[:, None]))[:, :, 0]
        h = {
            "all": np.ones(sample.n),
            "treated": p[1],
            "control": p[0],
            "overlap": 1 / (1 / p).sum(axis=0),
            "function": tilt_function(p[1]),
        }[self.target]
        counted = {"treated": sample.arm == 1, "control": sample.arm == 0}.get(self.target, h)
        return h / p[sample.arm, np.arange(sample.n)], counted, sum(counted)

    def definition(self, theta):
        """J(theta) from its definition, a loop a sum."""
        sample, criterion = self.parts.sample, self.criterion
        family, n = sample.family, sample.n
        mean = [[family.mean(np.array(self.predictor(i, row))).item() for row in theta] for i in range(n)]
        risk, fitted = criterion.full_risk, self.parts.fit.gamma
        value = 0.0
        for state in (fitted,) if risk else self.states.T:
            value += self.loss(theta, state) / (1 if risk else 3)
        for state in self.states.T:
            value += criterion.penalty / 2 * self.squared_net_bias(mean, state) / 3
        if risk:
            value += criterion.fitted_penalty / 2 * self.squared_net_bias(mean, fitted)
            start = [[family.mean(np.array(self.predictor(i, row))).item() for row in self.start] for i in range(n)]
            value += self.variance(mean, start) / 2
        return value

    def predictor(self, i, row):
        """Linear predictor of a row, with its offset."""
        sample = self.parts.sample
        return sample.X.columns[i] @ row + (0.0 if sample.offset is None else sample.offset[i])

    def loss(self, theta, state):
        """Importance-weighted loss of all arms, with the factor of the objective."""
        sample, (w, _, total) = self.parts.sample, self.weights(state)
        value = 0.0
        for i in range(sample.n):
            row = np.array(self.predictor(i, theta[sample.arm[i]]))
            value += w[i] * float(sample.family.loss(sample.y[i], row)) / total
        return self.criterion.alpha_sigma2 * value

    def squared_net_bias(self, mean, state):
        """Squared net biases of all pairs of arms."""
        sample, (w, _, total) = self.parts.sample, self.weights(state)
        bias, value = np.zeros(sample.n_arms), 0.0
        for i in range(sample.n):
            bias[sample.arm[i]] += w[i] * (mean[i][sample.arm[i]] - sample.y[i]) / total
        for k in range(sample.n_arms):
            for j in range(k):
                value += (2 / sample.n_arms) * (self.slopes[k] * bias[k] - self.slopes[j] * bias[j]) ** 2
        return value

    @property
    def slopes(self):
        """Derivatives of the scale of the effect at the start, their mean square one."""
        slopes = self.parts.scale.g_slope(self.trained.start.model_means)
        return slopes / np.sqrt((slopes**2).mean())

    def variance(self, mean, start):
        """Mean square over rows and replicates of the influence functions of all pairs of arms, centred over both.

        A share of the differences of the arms at the start is left out.
        """
        sample = self.parts.sample
        all_weights = [self.weights(state) for state in self.states.T]
        value = 0.0
        for k in range(sample.n_arms):
            for j in range(k):
                psi, tilt = np.zeros((3, sample.n)), np.zeros((3, sample.n))
                for b, (w, h, total) in enumerate(all_weights):
                    tilt[b] = h / total * sample.n
                    for i in range(sample.n):
                        a = sample.arm[i]
                        sign = self.slopes[k] * (a == k) - self.slopes[j] * (a == j)
                        of_arms = [m - self.criterion.real_share * s for m, s in zip(mean[i], start[i], strict=True)]
                        psi[b, i] = h[i] * (self.slopes[k] * of_arms[k] - self.slopes[j] * of_arms[j])
                        psi[b, i] += sign * w[i] * (sample.y[i] - mean[i][a])
                        psi[b, i] *= sample.n / total
                value += 2 / sample.n_arms * ((psi - tilt * psi.mean()) ** 2).mean()
        return value


@pytest.fixture(scope="module", params=[(c, o) for c in CASES for o in (ERM, RISK)],
                ids=lambda p: f"{'-'.join(map(str, p[0]))}-{'risk' if p[1].full_risk else 'erm'}")  # fmt: skip
def setting(request):
    return Setting(*request.param)


def points(setting):
    for seed in range(2):
        yield setting.start + 0.1 * np.random.default_rng(seed).normal(size=setting.start.shape)


def test_value_equals_the_definition(setting):
    for theta in points(setting):
        value, _, _ = setting.squares(theta)
        assert setting.definition(theta) == pytest.approx(value, rel=1e-11)
        if setting.parts.sample.family.linear:  # the rows give it too
            rows = setting.equations(theta)
            of_rows = (rows[:, -1] ** 2).sum() / 2 * setting.criterion.rms_residual**2
            assert of_rows == pytest.approx(value, rel=1e-11)


def test_gradient_and_hessian_are_the_derivatives(setting):
    theta = next(points(setting))
    shape = setting.start.shape
    _, gradient, hessian = setting.squares(theta)
    at = [approx_fprime(theta.ravel(), lambda v: setting.definition(v.reshape(shape)), step) for step in (1e-6, -1e-6)]
    numeric = sum(at) / 2  # central: the penalty of the net bias is large
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4 * np.abs(gradient).max())
    slopes = approx_fprime(theta.ravel(), lambda v: setting.squares(v.reshape(shape))[1], 1e-7)
    np.testing.assert_allclose(hessian, slopes, rtol=1e-5, atol=1e-5 * np.abs(hessian).max())


def test_rows_of_the_data_equal_the_gram_matrices(setting):
    rows = setting.equations(setting.start)
    at = setting.expand(setting.start)
    expected = at.strict[0][:, :-1].T @ at.strict[0] + at.gram[0]
    np.testing.assert_allclose((rows.T @ rows)[:-1], expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())


def test_risk_of_two_arms_is_the_squared_net_bias():
    bias = np.array([[1.0, -2.0, 0.5], [1.0, 1.0, 0.0]])
    np.testing.assert_allclose(ate_risk(bias), [0.0, 9.0, 0.25], atol=1e-15)


def test_risk_of_three_arms_depends_on_no_reference():
    bias = np.array([[1.0], [2.0], [4.0]])
    assert ate_risk(bias) == pytest.approx(2 / 3 * (1 + 9 + 4))
    assert ate_risk(bias[[2, 0, 1]]) == pytest.approx(ate_risk(bias))
    assert ate_risk(bias + 5) == pytest.approx(ate_risk(bias))
    assert bias_contrasts(3).shape == (2, 3)


def test_contrasts_on_another_scale_keep_the_units():
    """Biases that leave a ratio of 2 : 1 alone are no risk, and the contrasts have the length of the plain ones."""
    contrasts = bias_contrasts(2) * unit_slopes(1 / np.array([1.0, 2.0]))
    assert contrasts @ np.array([0.1, 0.2]) == pytest.approx(0)
    assert (contrasts**2).sum() == pytest.approx((bias_contrasts(2) ** 2).sum())


@pytest.mark.parametrize("target", ["all", "treated"])
def test_the_fit_has_the_units_of_the_squared_outcome(target):
    """sigma0^2: the mean of the variance function at the start, under the importance weights."""
    parts = problem(family="poisson", target=target)
    trained, _, refit = parts.joint(RISK, count=5)
    sample, start = parts.sample, trained.start
    own = start.predicted[sample.arm, np.arange(sample.n)]  # of Poisson outcomes the variance is the mean
    weights = parts.fit.undivided
    assert refit.criterion.alpha_sigma2 == pytest.approx(RISK.alpha * (weights * own).sum() / weights.sum(), rel=1e-10)


def test_strict_residuals_are_those_of_the_expansion(setting):
    for theta in points(setting):
        residuals = setting.objective.strict_residuals(theta.reshape(*setting.start.shape, 1), setting.resampled)
        np.testing.assert_allclose(residuals, -setting.expand(theta).strict[..., -1], rtol=1e-9, atol=1e-14)
