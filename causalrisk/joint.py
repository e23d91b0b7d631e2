"""The Joint Robust Estimator: both arms trained together over the distribution of the propensity score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from causalrisk.criterion import Criterion
from causalrisk.estimators import Estimate, effect_map
from causalrisk.linalg import Array, solve_gram, triangular_factor
from causalrisk.optimize import OptimizeResult, minimize_rows
from causalrisk.propensity import PropensityFit
from causalrisk.replicates import Replicates, bias_forms, replicate_blocks
from causalrisk.risk import arm_bias_values, ate_risk, net_bias_rows, stack_rows, variance_rows
from causalrisk.sample import Sample


@dataclass(frozen=True)
class JointEstimate:
    """The Joint Robust Estimator with what its diagnostics need; rows in the order of the sample.

    Parameters
    ----------
    estimate : Estimate
        Point estimate and influence function; arm means are net of the common bias.
    start : Estimate
        The IPWRA estimate it started from.
    bias, start_bias : ndarray, shape (K, B)
        Bias of each arm under each replicate, here and at the start.
    influence_variance : float
        V, the variance of the influence function of the effect at the fitted propensity score.
    mc_se : float
        Monte Carlo standard error of the effect due to the finite number of replicates; NaN for one.
    result : OptimizeResult
        What scipy reported.
    """

    estimate: Estimate
    start: Estimate
    bias: Array
    start_bias: Array
    influence_variance: float
    mc_se: float
    result: OptimizeResult

    @property
    def expected_risk(self) -> float:
        """Mean ATE risk over the replicates."""
        return float(ate_risk(self.bias).mean())


@dataclass(frozen=True)
class Deviation:
    """The regression of deviations from the start: what the joint rows are made of.

    Parameters
    ----------
    residual : ndarray, shape (n,)
        y - start in the row's own arm, in units of `scale`.
    tau : ndarray, shape (n,)
        start_1 - start_0 less its mean, in units of `scale`.
    scale : float
        Root mean square of the residuals, so that the rows of the objective are free of units.
    """

    residual: Array
    tau: Array
    scale: float


def deviation_from(sample: Sample, start: Estimate) -> Deviation:
    """Residuals and centred contrasts of the start."""
    residual = sample.y - start.fitted[sample.arm, np.arange(sample.n)]
    contrast = start.fitted[1] - start.fitted[0]
    scale = float(np.sqrt(sample.mean(residual**2))) or 1.0
    return Deviation(residual / scale, (contrast - sample.mean(contrast)) / scale, scale)


def objective_rows(
    sample: Sample, fit: PropensityFit, deviation: Deviation, criterion: Criterion, forms: Array, mean_odds: Array
) -> Array:
    """Rows of the joint objective on the full sample, each factor by QR of the rows of the data."""
    q, share = sample.outcome.columns, sample.weights / sample.total
    fitted = np.column_stack([q, deviation.residual]) * np.sqrt(share * (1 + mean_odds))[:, None]
    factors = np.stack([_square_factor(fitted[members]) for members in sample.slices])
    variance: Array | None = None
    if criterion.variance:
        psi = variance_rows(q, deviation.residual, deviation.tau, sample.arm, fit.odds)
        variance = triangular_factor((psi - sample.mean(psi)) * np.sqrt(share)[:, None])
    return stack_rows(criterion, net_bias_rows(forms), variance, factors)


def _square_factor(rows: Array) -> Array:
    """Triangular factor of the rows, padded with zeros to a square."""
    factor = triangular_factor(rows)
    return np.vstack([factor, np.zeros((rows.shape[1] - len(factor), rows.shape[1]))])


def estimate_jointly(
    sample: Sample, fit: PropensityFit, start: Estimate, replicates: Replicates, criterion: Criterion, method: str
) -> JointEstimate:
    """Train the arms jointly and return the estimate with its influence function and diagnostics.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : PropensityFit
        The full-sample propensity fit.
    start : Estimate
        The IPWRA estimate.
    replicates : Replicates
        The distribution of the propensity score.
    criterion : Criterion
        Weights of the terms of the objective.
    method : str
        "least_squares", or a method of `scipy.optimize.minimize`.

    Returns
    -------
    JointEstimate
        The estimate.
    """
    deviation = deviation_from(sample, start)
    forms, mean_odds = bias_forms(sample, fit, replicates.gamma, deviation.residual)
    rows = objective_rows(sample, fit, deviation, criterion, forms, mean_odds)
    z, result = minimize_rows(rows, method)
    theta = start.theta + deviation.scale * z.reshape(start.theta.shape)
    forms[..., -1] *= deviation.scale
    whitened, factor = np.linalg.qr(rows[:, :-1])
    whitened = whitened[: replicates.count]
    at = _Solution(sample, fit, criterion, replicates.gamma, forms, mean_odds, theta, start, factor, whitened)
    moments = at.replicate_moments()
    influence = at.influence(moments)
    psi = at.psi()
    estimate = Estimate(
        at.params(), theta, fit.gamma, at.fitted, sample.mean(at.fitted.T), np.column_stack([influence, fit.influence])
    )
    return JointEstimate(
        estimate,
        start,
        at.bias,
        arm_bias_values(forms, np.zeros_like(theta)),
        float(sample.mean(psi**2)),
        at.monte_carlo_se(moments),
        result,
    )


@dataclass(frozen=True)
class _Moments:
    """Sums over the replicates at the solution (see `_Solution.replicate_moments`)."""

    gradient: Array
    weight_by_slope: Array
    weight_by_net: Array
    slope_by_net: Array
    mean_slope: Array
    net_by_gamma: Array


class _Solution:
    """The joint objective at its minimum: fitted values, biases and the estimating equations.

    Parameters
    ----------
    sample, fit, criterion, gamma, forms, mean_odds
        As in `estimate_jointly` and `bias_forms`.
    theta : ndarray, shape (K, p)
        The solution.
    start : Estimate
        Where it started.
    factor : ndarray, shape (K p, K p)
        Triangular factor R of the Hessian R'R of the objective.
    whitened : ndarray, shape (B, K p)
        Slopes of the net biases times sqrt(lambda / B) R^-1. What the penalty multiplies is kept in these coordinates,
        so that a large one drowns nothing.
    """

    def __init__(
        self,
        sample: Sample,
        fit: PropensityFit,
        criterion: Criterion,
        gamma: Array,
        forms: Array,
        mean_odds: Array,
        theta: Array,
        start: Estimate,
        factor: Array,
        whitened: Array,
    ) -> None:
        self.sample, self.fit, self.criterion, self.gamma = sample, fit, criterion, gamma
        self.mean_odds = mean_odds
        self.q = sample.outcome.columns
        self.column_means = sample.mean(self.q)
        self.fitted = theta @ self.q.T
        self.error = self.fitted[sample.arm, np.arange(sample.n)] - sample.y
        self.bias = arm_bias_values(forms, theta - start.theta)
        self.net = self.bias[1] - self.bias[0]
        self.net_slope = net_bias_rows(forms)[:, :-1]
        self.mean_form = forms[..., :-1].mean(axis=1)
        self.factor, self.whitened = factor, whitened
        self.root = np.sqrt(criterion.penalty / gamma.shape[1])
        if self.root > 0:
            self.net = self.net - whitened @ self._whitened_gradient() / self.root

    def _whitened_gradient(self) -> Array:
        """Gradient of the objective at theta, R^-T grad, shape (K p,): rounding error, which a large penalty magnifies.

        The net biases are corrected by the Newton step it implies, which is below the last digit of theta.
        """
        sample, criterion = self.sample, self.criterion
        score = sample.blocks((criterion.fit * (1 + self.mean_odds) * self.error)[:, None] * self.q)
        rest = sample.mean(score).ravel()
        if criterion.variance:
            rest += sample.mean(self.psi()[:, None] * self._psi_slope())
        return solve_triangular(self.factor, rest, trans="T") + self.root * self.net @ self.whitened

    def params(self) -> Array:
        """Effect, and arm means net of the common bias, shape (2 K - 1,)."""
        means = self.sample.mean(self.fitted.T) - self.bias.mean()
        return effect_map(len(means)) @ means

    def psi(self) -> Array:
        """Centred influence function of the effect at the fitted propensity score, shape (n,)."""
        psi = self.fitted[1] - self.fitted[0] - self.sample.sign * self.fit.weights * self.error
        return psi - self.sample.mean(psi)

    def replicate_moments(self) -> _Moments:
        """Go through the replicates once more and collect what the estimating equations need.

        Returns
        -------
        _Moments
            `gradient` (B, K p): gradient contribution of each replicate; `weight_by_slope` (n, K p): sum of w times the
            whitened slope;
            `weight_by_net`, `slope_by_net`, `mean_slope` (n,): means of w u, w' u and w'; `net_by_gamma` (B, q): the
            derivative of each net bias under a common shift of the replicates.
        """
        sample, n_rep = self.sample, self.gamma.shape[1]
        share, z = sample.weights / sample.total, self.fit.basis.columns
        by_gamma = (share * sample.sign * self.error)[:, None] * z
        scores = (share * self.error)[:, None] * self.q
        gradient = self.criterion.penalty * self.net[:, None] * self.net_slope
        net_by_gamma = np.empty((n_rep, z.shape[1]))
        weight_by_slope = np.zeros((sample.n, self.net_slope.shape[1]))
        weight_by_net, slope_by_net, mean_slope = np.zeros((3, sample.n))
        p, link, treated = self.q.shape[1], self.fit.link, sample.treated[:, None]
        for columns, eta in replicate_blocks(sample, self.fit, self.gamma):
            weight, slope = 1 + link.own_odds(eta, treated), link.own_odds_slope(eta, treated)
            weight_by_slope += weight @ self.whitened[columns]
            weight_by_net += weight @ self.net[columns] / n_rep
            slope_by_net += slope @ self.net[columns] / n_rep
            mean_slope += slope.sum(axis=1) / n_rep
            net_by_gamma[columns] = slope.T @ by_gamma
            for arm, rows in enumerate(sample.slices):
                gradient[columns, arm * p : (arm + 1) * p] += self.criterion.fit * weight[rows].T @ scores[rows]
        return _Moments(gradient, weight_by_slope, weight_by_net, slope_by_net, mean_slope, net_by_gamma)

    def monte_carlo_se(self, moments: _Moments) -> float:
        """Return the standard error of the effect over redraws of the replicates, by the jackknife; NaN for one.

        Leaving replicate b out moves the effect by c' H^-1 (g_b - mean g) / (B (1 - h_b)), g_b its part of the gradient
        and h_b its leverage. Without the leverage (the infinitesimal jackknife) it is too small where a few replicates
        dominate.
        """
        n_rep = len(self.net)
        if n_rep == 1:
            return float("nan")
        contrast = np.concatenate([-self.column_means, self.column_means])
        change = (moments.gradient - moments.gradient.mean(axis=0)) @ solve_gram(self.factor, contrast)
        leverage = (self.whitened**2).sum(axis=1)
        return float(np.linalg.norm(change / (1 - np.minimum(leverage, 1 - 1e-9))) / n_rep)

    def influence(self, moments: _Moments) -> Array:
        """Influence function of (effect, arm means, theta), shape (n, 2 K - 1 + K p).

        The replicates' distances from the fitted propensity model, the penalty and the observation weights are held
        fixed; the fitted propensity model is not.
        """
        sample, fit = self.sample, self.fit
        n, n_arms, p = sample.n, sample.n_arms, self.q.shape[1]
        score = self._scores(moments) + fit.influence @ self._by_gamma(moments).T
        whitened = (sample.sign * self.error)[:, None] * moments.weight_by_slope
        whitened = whitened - sample.mean(whitened) + fit.influence @ (moments.net_by_gamma.T @ self.whitened)
        plain = solve_triangular(self.factor, score.T, trans="T")
        theta = -solve_triangular(self.factor, plain + self.root * whitened.T).T
        by_arm = theta.reshape(n, n_arms, p)
        means = self.fitted.T - sample.mean(self.fitted.T) + by_arm @ self.column_means
        weight = 1 + self.mean_odds
        common_by_gamma = sample.mean((moments.mean_slope * self.error)[:, None] * fit.basis.columns)
        common = weight * self.error - self.bias.mean() * n_arms
        common = common + np.einsum("ap,nap->n", self.mean_form, by_arm) + fit.influence @ common_by_gamma
        return np.column_stack([(means - common[:, None] / n_arms) @ effect_map(n_arms).T, theta])

    def _scores(self, moments: _Moments) -> Array:
        """Centred contributions of the rows to the gradient, but for those along the net slopes, shape (n, K p)."""
        sample, criterion = self.sample, self.criterion
        n = sample.n
        fit = criterion.fit * (1 + self.mean_odds) * self.error
        risk = criterion.penalty * sample.sign * moments.weight_by_net
        score = sample.blocks((fit + risk)[:, None] * self.q).reshape(n, -1)
        if criterion.variance:
            score += self.psi()[:, None] * self._psi_slope()
        return score - sample.mean(score)

    def _psi_slope(self) -> Array:
        """Centred derivative of psi by theta, shape (n, K p)."""
        zero = np.zeros(self.sample.n)
        slope = variance_rows(self.q, zero, zero, self.sample.arm, self.fit.odds)[:, :-1]
        return slope - self.sample.mean(slope)

    def _by_gamma(self, moments: _Moments) -> Array:
        """Return the derivative of the same part of the gradient under a common shift of the replicates, (K p, q)."""
        sample, criterion, z = self.sample, self.criterion, self.fit.basis.columns
        fit = criterion.fit * moments.mean_slope * self.error
        risk = criterion.penalty * sample.sign * moments.slope_by_net
        weight = fit + risk
        if criterion.variance:
            weight = weight - sample.sign * self.fit.slope * self.psi()
        by_gamma = sample.arm_products(weight[:, None] * self.q, z).reshape(-1, z.shape[1])
        if criterion.variance:
            share = sample.weights / sample.total
            psi_by_gamma = (-sample.sign * self.fit.slope * self.error * share)[:, None] * z
            by_gamma += self._psi_slope().T @ psi_by_gamma
        return by_gamma
