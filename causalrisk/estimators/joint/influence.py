"""The joint estimate at its minimum: parameters, influence function and Monte Carlo error.

Held fixed are the distances of the replicates from the fitted propensity model, the penalty and what `JointCriterion`
takes from the start; the fitted propensity model is not. Every influence function is relative to the sample's weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.objective import ArmInfluence, JointObjective, ResampledWeights
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import Replicates, replicate_blocks
from causalrisk.propensity.weights import WeightFit


@dataclass(frozen=True)
class ReplicateSums:
    """Sums over the replicates at the solution; C contrasts, B replicates, rows in the order of the sample.

    Parameters
    ----------
    fit_gradient : ndarray, shape (B, K p)
        Gradient of the fit under each replicate.
    weight_by_slope : ndarray, shape (n, K p)
        Sum of a row's contrast weights times the whitened slopes of the net biases.
    weight_by_net : ndarray, shape (n,)
        Mean of its contrast weights times the net biases.
    slope_by_net, mean_slope : ndarray, shape (n, Q / q, ...)
        The same and the mean for the derivatives of the weights by the predictors, shape (L, n).
    net_by_state : ndarray, shape (C, B, Q)
        Derivative of each net bias under a common shift of the replicates.
    log_measure : ndarray, shape (Q, B), or None
        Derivative of the logarithm of the mean measure under each replicate.
    centre_whitened, centre_fit : ndarray, shape (n, K p)
        Means of the measure times what the sampling of the measure moves: the whitened risk, and the fit.
    centre_bias : ndarray, shape (n, K)
        Mean of the measure times the biases.
    biases : ndarray, shape (K, B)
        Bias of each arm under each replicate.
    """

    fit_gradient: Array
    weight_by_slope: Array
    weight_by_net: Array
    slope_by_net: Array
    mean_slope: Array
    net_by_state: Array
    log_measure: Array | None
    centre_whitened: Array
    centre_fit: Array
    centre_bias: Array
    biases: Array


class JointSolution:
    """The joint objective at its minimum.

    Parameters
    ----------
    objective : JointObjective
        The objective.
    weight_fit : WeightFit
        The fitted importance weights.
    replicates : Replicates
        The distribution of the propensity score.
    resampled : ResampledWeights
        The full sample as a resample.
    theta : ndarray, shape (K, p)
        The solution.
    rows : ndarray, shape (r, K p + 1)
        Rows of the objective there, those of the net biases first.
    scale : EffectScale
        How the effect is reported.
    """

    def __init__(
        self,
        objective: JointObjective,
        fit: WeightFit,
        replicates: Replicates,
        resampled: ResampledWeights,
        theta: Array,
        rows: Array,
        scale: EffectScale,
    ) -> None:
        self.objective, self.weight_fit, self.replicates, self.resampled = objective, fit, replicates, resampled
        self.theta, self.scale = theta, scale
        sample, criterion = objective.sample, objective.criterion
        self.sample, self.criterion, self.q = sample, criterion, objective.q
        self.share = sample.s / sample.total
        eta = theta @ self.q.T
        self.predicted, self.slope = sample.family.mean(eta), sample.family.mean_deriv(eta)
        self.own_slope = sample.own(self.slope)
        self.error = sample.own(self.predicted) - sample.y
        self.score = sample.family.score(sample.y, sample.own(eta))[0]
        self.mean_weight = resampled.mean_weight[:, 0]
        self.arms = ArmInfluence(
            objective, resampled, self.predicted[..., None], self.slope[..., None], -self.error[:, None]
        )
        n_rep, n_contrasts = replicates.count, len(criterion.contrasts)
        self.root = np.sqrt(criterion.penalty / n_rep)
        raw = rows / objective.row_units
        whitened, self.factor = np.linalg.qr(raw[:, :-1])
        self.whitened = whitened[: n_contrasts * n_rep].reshape(n_contrasts, n_rep, -1)
        expansion = objective.expand(theta[..., None], resampled)
        forms = expansion.net_bias[0] / objective.row_units
        self.net = -forms[:, -1].reshape(n_contrasts, n_rep)
        self.net_slope = forms[:, :-1].reshape(n_contrasts, n_rep, -1)
        self.mean_bias = expansion.bias[:, 0]
        self.inner = np.eye(len(self.factor))
        if expansion.curvature is not None:
            bend = expansion.curvature[0] / objective.row_units[0] ** 2
            half = solve_triangular(self.factor, bend, trans="T")
            self.inner += solve_triangular(self.factor, half.T, trans="T")
        if self.root > 0:
            self.net = self.net - self.whitened @ np.linalg.solve(self.inner, self._whitened_gradient()) / self.root

    @property
    def influence_variance(self) -> float:
        """V, the mean square of the influence function of the effect at the fitted propensity score."""
        return float(self.arms.variance()[0])

    def solve(self, gradient: Array, whitened: Array | float = 0.0) -> Array:
        """Inverse Hessian times the columns of a gradient, shape (K p, j), part of it given as R^-T times it."""
        half = solve_triangular(self.factor, gradient, trans="T") + whitened
        return solve_triangular(self.factor, np.linalg.solve(self.inner, half))

    def whiten(self, rows: Array) -> Array:
        """Return what the inverse Hessian makes of each row, r' H^-1 r, shape (n,)."""
        half = solve_triangular(self.factor, rows.T, trans="T")
        return (half * np.linalg.solve(self.inner, half)).sum(axis=0)

    def _whitened_gradient(self) -> Array:
        """Gradient of the objective at theta, R^-T grad, shape (K p,): rounding error, which a large penalty magnifies.

        The net biases are corrected by the Newton step it implies, which is below the last digit of theta.
        """
        sample = self.sample
        trained = self.criterion.alpha_sigma2 * self.mean_weight
        rest = -sample.mean(sample.blocks((trained * self.score)[:, None] * self.q))
        if self.criterion.with_variance:
            rest += np.stack([self.share * pulled @ slopes for pulled, slopes in self.arms.centred_slopes()])
        half = solve_triangular(self.factor, rest.ravel(), trans="T")
        return half + self.root * np.tensordot(self.net, self.whitened, axes=2)

    def moments(self) -> ReplicateSums:
        """Go through the replicates once more and collect what the estimating equations need."""
        sample, model, contrasts = self.sample, self.weight_fit.model, self.criterion.contrasts
        n, n_rep, size = sample.n, self.replicates.count, self.theta.size
        by_state = (self.share * self.error)[:, None] * model.columns
        scores = -(self.share * self.score)[:, None] * self.q
        pull_slope = np.tensordot(contrasts.T, self.whitened, axes=1)
        pull_net = contrasts.T @ self.net / n_rep
        fit_gradient, weight_by_slope, weight_by_net = np.zeros((n_rep, size)), np.zeros((n, size)), np.zeros(n)
        risk = (self.net[..., None] * self.whitened).sum(axis=0)
        biases = np.zeros((sample.n_arms, n_rep))
        width, p = model.n_coefficients, self.q.shape[1]
        n_slopes = width // model.columns.shape[1]
        slope_by_net, mean_slope = np.zeros((2, n_slopes, n))
        net_by_state = np.zeros((len(contrasts), n_rep, width))
        logs, measures = [], []
        for columns, eta, at in replicate_blocks(model, self.replicates.gamma, sample.s):
            slope, log_measure = model.slopes(eta, sample.s[:, None])
            w = at.w
            mean_slope += slope.sum(axis=2) / n_rep
            for a, rows in enumerate(sample.slices):
                fit_gradient[columns, a * p : (a + 1) * p] = w[rows].T @ scores[rows]
                biases[a, columns] = w[rows].T @ (self.share * self.error)[rows]
                weight_by_slope[rows] += w[rows] @ pull_slope[a, columns]
                weight_by_net[rows] += w[rows] @ pull_net[a, columns]
                slope_by_net[:, rows] += slope[:, rows] @ pull_net[a, columns]
                moved = (slope[:, rows].transpose(0, 2, 1) @ by_state[rows]).transpose(1, 0, 2)
                moved = moved.reshape(w.shape[1], width)
                net_by_state[:, columns] += contrasts[:, a, None, None] * moved
            if log_measure is not None:
                logs.append(log_measure)
                net_by_state[:, columns] -= self.net[:, columns, None] * log_measure.T
            measures.append(at.measure)
        log = np.concatenate(logs, axis=1) if logs else None
        whitened, fit, bias = (_centre(measures, v) for v in (risk, fit_gradient / n_rep, biases.T / n_rep))
        sums = fit_gradient, weight_by_slope, weight_by_net, slope_by_net, mean_slope, net_by_state
        return ReplicateSums(*sums, log, whitened, fit, bias, biases)

    def influence(self, moments: ReplicateSums) -> Array:
        """Influence function of (effects, arm means, theta), shape (n, 2 K - 1 + K p)."""
        sample, n_arms, p = self.sample, self.sample.n_arms, self.q.shape[1]
        tilt, at = self.weight_fit.tilt[:, None], self.weight_fit
        score, whitened = self._contributions(moments)
        score += at.influence @ self._by_state(moments).T
        whitened += at.influence @ np.tensordot(moments.net_by_state, self.whitened, axes=((0, 1), (0, 1)))
        theta = -self.solve(score.T, self.root * whitened.T).T
        by_arm = theta.reshape(sample.n, n_arms, p)
        raw_means = sample.mean(tilt * self.predicted.T)
        by_theta = (self.share * self.weight_fit.tilt * self.slope) @ self.q
        means = tilt * (self.predicted.T - raw_means) + np.einsum("ap,nap->na", by_theta, by_arm)
        if at.tilt_by_gamma is not None:
            moved = (self.predicted.T - raw_means)[:, :, None] * at.tilt_by_gamma[:, None]
            means += at.influence @ sample.mean(moved).T
        common = self._common_influence(moments, by_arm)
        net = self._net_means(raw_means)
        influence = (means * self.scale.g_slope(raw_means) - common[:, None]) / self.scale.g_slope(net)
        return np.column_stack([influence @ self.scale.jacobian(net).T, theta])

    def influence_at_known_scores(self, moments: ReplicateSums) -> Array:
        """Influence function of theta where the propensity model is not estimated, shape (n, K p)."""
        score, whitened = self._contributions(moments)
        return -self.solve(score.T, self.root * whitened.T).T

    def _contributions(self, moments: ReplicateSums) -> tuple[Array, Array]:
        """Contributions of the rows to the gradient, the part along the net slopes whitened, shapes (n, K p)."""
        whitened = self.error[:, None] * moments.weight_by_slope - 2 * moments.centre_whitened
        return self._scores(moments), whitened

    def params(self) -> Array:
        """Effects, and arm means net of the common bias, shape (2 K - 1,)."""
        raw = self.sample.mean(self.weight_fit.tilt[:, None] * self.predicted.T)
        net = self._net_means(raw)
        return np.concatenate([self.scale.effects(raw), net])

    def _net_means(self, raw: Array) -> Array:
        """Arm means net of the common bias, shape (K,): all moved alike on the scale of the effect."""
        return net_means(raw, self.mean_bias, self.criterion.scale_slopes, self.scale)

    def _common_influence(self, moments: ReplicateSums, by_arm: Array) -> Array:
        """Influence function of the common bias on the scale of the effect, shape (n,)."""
        sample, slopes = self.sample, self.criterion.scale_slopes / self.sample.n_arms
        rows = sample.indicators * (self.mean_weight * self.error)[:, None] - moments.centre_bias
        by_theta = sample.arm_products((self.mean_weight * self.own_slope)[:, None] * self.q, np.ones((sample.n, 1)))
        influence = rows @ slopes + np.einsum("a,ap,nap->n", slopes, by_theta[:, :, 0], by_arm)
        pulled = self.share * self.error * slopes[sample.arm]
        by_state = ((moments.mean_slope * pulled) @ self.weight_fit.model.columns).ravel()
        if moments.log_measure is not None:
            by_state = by_state - moments.log_measure @ (slopes @ moments.biases) / self.replicates.count
        return influence + self.weight_fit.influence @ by_state

    def _scores(self, moments: ReplicateSums) -> Array:
        """Contributions of the rows to the gradient, but for those along the net slopes, shape (n, K p)."""
        sample, criterion = self.sample, self.criterion
        fit = -criterion.alpha_sigma2 * self.mean_weight * self.score
        risk = criterion.penalty * moments.weight_by_net * self.own_slope
        score = sample.blocks((fit + risk)[:, None] * self.q).reshape(sample.n, -1)
        score -= criterion.alpha_sigma2 * moments.centre_fit
        return score + self._variance_scores() if criterion.with_variance else score

    def _parts(self) -> list[tuple[Array, Array, list[Array]]]:
        """Return what centres psi: multiples f, (n,), and the parts of D psi and of its derivative f belongs to."""
        at, arms = self.weight_fit, self.arms
        slopes = [slopes for _, slopes in self.arms.centred_slopes()]
        if at.measure is at.tilt:
            return [(at.tilt, arms.D_psi[..., 0], slopes)]
        raw = self.sample.mean(at.tilt[:, None] * self.predicted.T)
        value = arms.D @ (at.tilt * (self.predicted - raw[:, None]))
        (tilt, centre), _ = arms.centring()
        tilted = [tilt * (s[:, None] * self.q - c.T) for s, c in zip(self.slope, centre, strict=True)]
        rest = [whole - part for whole, part in zip(slopes, tilted, strict=True)]
        return [(at.tilt, value, tilted), (at.measure, arms.D_psi[..., 0] - value, rest)]

    def _variance_scores(self) -> Array:
        """Influence function of the gradient of the variance at known propensity scores, shape (n, K p)."""
        scores, observed = [], self.sample.observed
        for a, (pulled, slopes) in enumerate(self.arms.centred_slopes()):
            score = pulled[:, None] * slopes
            score = score - np.outer(observed, self.share @ score)
            for f, value, part in self._parts():
                weighted = self.share * f
                scale = self.share * value[a] @ slopes + self.share * pulled @ part[a]
                score = score - np.outer(value[a], weighted @ slopes) - (weighted @ pulled) * part[a]
                score = score - np.outer(f - observed, scale)
            scores.append(score)
        return np.concatenate(scores, axis=1)

    def _by_state(self, moments: ReplicateSums) -> Array:
        """Return the derivative of the gradient by gamma, but for that along the net slopes, shape (K p, Q)."""
        sample, criterion, columns = self.sample, self.criterion, self.weight_fit.model.columns
        fit = -criterion.alpha_sigma2 * moments.mean_slope * self.score
        risk = criterion.penalty * moments.slope_by_net * self.own_slope
        parts = [sample.arm_products(part[:, None] * self.q, columns) for part in fit + risk]
        size, width = self.theta.size, self.weight_fit.influence.shape[1]
        by_state = np.concatenate(parts, axis=2).reshape(size, width) if parts else np.zeros((size, width))
        if moments.log_measure is not None:
            n_rep = self.replicates.count
            risk_slopes = criterion.penalty * np.einsum("cb,cbk->bk", self.net, self.net_slope)
            pull = criterion.alpha_sigma2 * moments.fit_gradient + risk_slopes
            by_state -= pull.T @ moments.log_measure.T / n_rep
        return by_state + self._variance_by_state() if criterion.with_variance else by_state

    def _variance_by_state(self) -> Array:
        """Return the derivative of the gradient of the variance by gamma, shape (K p, Q)."""
        sample, at, n_arms = self.sample, self.weight_fit, self.sample.n_arms
        if not at.influence.shape[1]:
            return np.zeros((self.theta.size, 0))
        zero = np.zeros((sample.n, 1))
        by_tilt = zero if at.tilt_by_gamma is None else at.tilt_by_gamma
        by_measure = zero if at.measure_by_gamma is None else at.measure_by_gamma
        raw = sample.mean(at.tilt[:, None] * self.predicted.T)
        corrections = -sample.mean(sample.indicators * (at.w * self.error)[:, None])
        moved, blocks = [], []
        for a in range(n_arms):
            inside = sample.indicators[:, a]
            by_mean = by_tilt * (self.predicted[a] - raw[a])[:, None]
            by_weight = -at.w_by_gamma * (inside * self.error)[:, None]
            centre = at.tilt[:, None] * (self.share @ by_mean) + at.measure[:, None] * (self.share @ by_weight)
            moved.append(by_mean + by_weight - by_measure * corrections[a] - centre)
        pulled_moved = np.tensordot(self.arms.D, np.stack(moved), axes=1)
        for a, (pulled, slopes) in enumerate(self.arms.centred_slopes()):
            block = slopes.T @ (self.share[:, None] * pulled_moved[a])
            blocks.append(block + self._moved_slopes(a, pulled, by_tilt, by_measure))
        return np.concatenate(blocks)

    def _moved_slopes(self, a: int, pulled: Array, by_tilt: Array, by_measure: Array) -> Array:
        """Sum over rows of D psi_a times the derivative by gamma of the derivative of psi_a, shape (p, Q)."""
        at, share = self.weight_fit, self.share
        columns = self.slope[a][:, None] * self.q
        inside = self.sample.indicators[:, a]
        tilted, weighted = share * at.tilt @ columns, share * inside * at.w @ columns
        tilt_pull = share * pulled - (share * pulled @ at.tilt) * share
        weight_pull = share * pulled - (share * pulled @ at.measure) * share
        block = ((columns - tilted) * tilt_pull[:, None]).T @ by_tilt
        block = block - (columns * (weight_pull * inside)[:, None]).T @ at.w_by_gamma
        return block + np.outer(weighted, share * pulled @ by_measure)

    def monte_carlo_se(self, moments: ReplicateSums) -> Array:
        """Return the standard errors of the effects over redraws of the replicates, by the jackknife; NaN for one.

        Leaving replicate b out moves the effect by c' H^-1 (g_b - mean g) / (B (1 - h_b)), g_b its part of the gradient
        and h_b its leverage. Without the leverage (the infinitesimal jackknife) it is too small where a few replicates
        dominate.
        """
        n_arms, n_rep = self.sample.n_arms, self.replicates.count
        if n_rep == 1:
            return np.full(n_arms - 1, np.nan)
        raw = self.sample.mean(self.weight_fit.tilt[:, None] * self.predicted.T)
        by_theta = (self.share * self.weight_fit.tilt * self.slope) @ self.q
        jacobian = self.scale.jacobian(raw)[: n_arms - 1]
        contrast = (jacobian[:, :, None] * by_theta).reshape(n_arms - 1, -1)
        gradient = self.criterion.alpha_sigma2 * moments.fit_gradient
        gradient = gradient + self.criterion.penalty * np.einsum("cb,cbk->bk", self.net, self.net_slope)
        change = (gradient - gradient.mean(axis=0)) @ self.solve(contrast.T)
        leverage = np.einsum("cbk,cbk->b", self.whitened, np.linalg.solve(self.inner, self.whitened[..., None])[..., 0])
        return np.linalg.norm(change / (1 - np.minimum(leverage, 1 - 1e-9))[:, None], axis=0) / n_rep


def net_means(raw: Array, mean_bias: Array, slopes: Array, scale: EffectScale) -> Array:
    """Arm means net of the common bias, shape (K, ...): all moved alike on the scale of the effect.

    Parameters
    ----------
    raw, mean_bias : ndarray, shape (K, ...)
        Arm means, and their biases averaged over the replicates.
    slopes : ndarray, shape (K,)
        Derivative of the scale at each arm mean of the start.
    scale : EffectScale
        The scale.

    Returns
    -------
    ndarray, shape (K, ...)
        Means whose effects are those of the raw ones.
    """
    return scale.g_inverse(scale.g(raw) - np.tensordot(slopes, mean_bias, axes=1) / len(raw))


def _centre(measures: list[Array], values: Array) -> Array:
    """Sum over the replicates of the measure, blocks of (n, b) or (n, 1), times values, shape (B, k); shape (n, k)."""
    first, total = 0, np.zeros((len(measures[0]), values.shape[1]))
    if all(m.shape[1] == 1 for m in measures):
        return measures[0] * values.sum(axis=0)
    for measure in measures:
        last = first + measure.shape[1]
        total += measure @ values[first:last]
        first = last
    return total
