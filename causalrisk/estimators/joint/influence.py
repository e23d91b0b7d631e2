"""The influence function of the joint estimate, and its Monte Carlo error.

Flows in: the solution and sums over its replicates. Flows out: influence functions of (effects, arm means, theta). The
gradient of the objective at the solution is a sum over rows; the part of row i, xi_i, has four terms, a function each:

    xi_i = loss_term + risk_term + variance_term + propensity_term,      IF_theta,i = -H^-1 xi_i

Held fixed are the distances of the replicates from the fitted propensity model, the penalties and what `JointCriterion`
takes from the start; the fitted propensity model is not. Every influence function is relative to the sample's weight.
"""

from __future__ import annotations

import numpy as np

from causalrisk.estimators.joint.replicate_sums import KnownScoreSums, ReplicateSums
from causalrisk.estimators.joint.solution import JointSolution
from causalrisk.numerics.linalg import Array


def influence_function(solution: JointSolution, sums: ReplicateSums) -> Array:
    """Influence function of (effects, arm means, theta), shape (n, 2 K - 1 + K p)."""
    sample, n_arms, p = solution.sample, solution.sample.n_arms, solution.q.shape[1]
    fit, scale, raw = solution.weight_fit, solution.effect_scale, solution.raw_means
    score, whitened = known_terms(solution, sums.known)
    of_score, of_whitened = propensity_term(solution, sums)
    theta = -solution.hessian.solve((score + of_score).T, (whitened + of_whitened).T).T
    by_arm = theta.reshape(sample.n, n_arms, p)
    by_theta = (solution.share * fit.tilt * solution.deriv) @ solution.q
    means = fit.tilt[:, None] * (solution.predicted.T - raw) + np.einsum("ap,nap->na", by_theta, by_arm)
    if fit.tilt_by_gamma is not None:
        moved = (solution.predicted.T - raw)[:, :, None] * fit.tilt_by_gamma[:, None]
        means += fit.influence @ sample.mean(moved).T
    common, net = _common_influence(solution, sums, by_arm), solution.net_means()
    influence = (means * scale.g_slope(raw) - common[:, None]) / scale.g_slope(net)
    return np.column_stack([influence @ scale.jacobian(net).T, theta])


def known_terms(solution: JointSolution, sums: KnownScoreSums) -> tuple[Array, Array]:
    """Terms of xi at known propensity scores, and the part of them that is given as R^-T xi; shapes (n, K p)."""
    score, whitened = risk_term(solution, sums)
    score += loss_term(solution, sums)
    return (score + variance_term(solution, sums) if solution.criterion.full_risk else score), whitened


def loss_term(solution: JointSolution, sums: KnownScoreSums) -> Array:
    """Parts of the rows in the gradient of the losses, shape (n, K p)."""
    sample = solution.sample
    rows = sample.blocks(-(solution.loss_w * solution.score)[:, None] * solution.q)
    return rows.reshape(sample.n, -1) - sums.centre_loss


def risk_term(solution: JointSolution, sums: KnownScoreSums) -> tuple[Array, Array]:
    """Parts of the rows in sum_b lambda_b u_b u_b': in u_b' as they are, in u_b as R^-T times it; shapes (n, K p)."""
    sample = solution.sample
    rows = sample.blocks((sums.w_times_u * solution.own_deriv)[:, None] * solution.q)
    return rows.reshape(sample.n, -1), solution.error[:, None] * sums.w_times_slope - 2 * sums.centre_risk


def variance_term(solution: JointSolution, sums: KnownScoreSums) -> Array:
    """Parts of the rows in the gradient of V / 2, shape (n, K p): directly, and in what centres psi."""
    sample, variance, q = solution.sample, solution.variance, solution.q
    mean, share, observed = solution.resampled.moments.mean, solution.share, solution.sample.observed
    tilt, w = mean.tilt[:, 0], mean.w[:, 0]
    moved_M = (tilt[:, None] * solution.predicted.T - sums.moved_M) @ variance.D
    moved_R = (sample.indicators * (-w * solution.error)[:, None] - sums.moved_R) @ variance.D
    _, scores = variance.own_terms(solution.own_deriv[:, None])
    slopes = {(k, a): variance.slopes(part, a) for k, part in enumerate(variance.parts) for a in range(sample.n_arms)}
    direct = -sample.blocks(scores * q)
    for (k, a), slope in slopes.items():
        direct[:, a] += variance.parts[k].D_psi[a] * slope
    term = direct + np.multiply.outer(observed, np.tensordot(share, direct, axes=1))
    for (k, a), slope in slopes.items():
        part = variance.parts[k]
        by_tilt, by_measure = share * part.weights.tilt[:, 0], share * part.weights.measure[:, 0]
        term[:, a] -= np.outer(moved_M[:, a], by_tilt @ slope) + np.outer(moved_R[:, a], by_measure @ slope)
        of_M = (tilt * solution.deriv[a])[:, None] * q - sums.moved_M_slope[:, a]
        of_R = -(sample.indicators[:, a] * w * solution.deriv[a])[:, None] * q - sums.moved_R_slope[:, a]
        pulled = part.D_psi[a, :, 0]
        term[:, a] -= (by_tilt @ pulled) * of_M + (by_measure @ pulled) * of_R
    return term.reshape(sample.n, -1) - sums.centre_variance


def propensity_term(solution: JointSolution, sums: ReplicateSums) -> tuple[Array, Array]:
    """Return the derivative of the gradient by gamma times IF_gamma, in two parts as `known_terms` has them."""
    sample, criterion, fit = solution.sample, solution.criterion, solution.weight_fit
    loss_by_gamma = fit.w_by_gamma if criterion.full_risk else sums.mean_w_by_gamma
    by_gamma = -(criterion.alpha_sigma2 * solution.score)[:, None] * loss_by_gamma
    by_gamma = by_gamma + solution.own_deriv[:, None] * sums.u_times_w_by_gamma
    derivative = sample.arm_products(solution.q, by_gamma).reshape(solution.theta.size, -1)
    of_u = np.einsum("cbk,cbq->kq", solution.root[:, None] * solution.u_whitened, sums.u_by_gamma)
    if criterion.full_risk:
        derivative = derivative + _variance_by_gamma(solution, sums)
    return fit.influence @ derivative.T, fit.influence @ of_u.T


def _variance_by_gamma(solution: JointSolution, sums: ReplicateSums) -> Array:
    """Return the derivative of the gradient of V / 2 by gamma, shape (K p, Q)."""
    return np.concatenate([_ArmByGamma(solution, sums).of_arm(a) for a in range(solution.sample.n_arms)])


class _ArmByGamma:
    """Derivative by gamma of mean_ib (D psi_ib)_a psi'_ib,a, term by term.

    With t the tilt (where there is a target frame, the measure in the rows of the sample) and r = y - m,

        psi_a = t g_a + 1{arm = a} w r,    psi'_a = (t - 1{arm = a} w) m_a' q - t c_a

    where g_a is m_a - M_a, or -R_a, or m_a - M_a - R_a, and c_a likewise of the derivatives.
    """

    def __init__(self, solution: JointSolution, sums: ReplicateSums) -> None:
        self.solution, self.sums, variance = solution, sums, solution.variance
        sample = solution.sample
        frame = sample.n_frame > 0
        self.of_tilt = 1 - sample.observed if frame else np.ones(sample.n)
        self.of_measure = sample.observed if frame else np.ones(sample.n)
        self.residual = -solution.error
        g = self.of_tilt * (solution.predicted - variance.M) - self.of_measure * variance.R
        self.Dg = variance.D @ g
        self.own_D = variance.D[:, sample.arm]
        t_by_gamma = self.of_tilt[:, None] * sums.mean_t_by_gamma * (not frame)
        share = solution.share
        self.dM = (share * solution.predicted) @ t_by_gamma
        self.dR = np.stack([(share * self.residual)[rows] @ sums.mean_w_by_gamma[rows] for rows in sample.slices])
        self.t_by_gamma = t_by_gamma
        moments = solution.resampled.moments
        parts = [(p.tilt if not frame else p.tilt + p.measure, p.w) for p in moments.parts]
        self.tt = sum((t[:, 0] ** 2 for t, _ in parts), np.zeros(sample.n))
        self.tw = sum((t[:, 0] * w[:, 0] for t, w in parts), np.zeros(sample.n))

    def of_arm(self, a: int) -> Array:
        """For arm a, shape (p, Q)."""
        solution, sums, variance = self.solution, self.sums, self.solution.variance
        q, inside, share = solution.q, solution.sample.indicators[:, a], solution.share
        slope, Dg, Dr = solution.deriv[a], self.Dg[a], self.own_D[a] * self.residual
        # factors of m_a' q and of c_a in sums over b of psi' times the derivative of t and of w, and of t itself
        dt_q = self.of_tilt[:, None] * sums.t_times_t_by_gamma - inside[:, None] * sums.w_times_t_by_gamma
        dw_q = self.of_tilt[:, None] * sums.t_times_w_by_gamma - inside[:, None] * sums.w_times_w_by_gamma
        first_q = Dg[:, None] * dt_q + Dr[:, None] * dw_q
        first_c = Dg[:, None] * sums.t_times_t_by_gamma + Dr[:, None] * sums.t_times_w_by_gamma
        # (D psi)_a times the derivative of t and of w
        by_t = Dg[:, None] * sums.t_times_t_by_gamma + Dr[:, None] * sums.w_times_t_by_gamma
        by_w = Dg[:, None] * sums.t_times_w_by_gamma + Dr[:, None] * sums.w_times_w_by_gamma
        second_q = self.of_tilt[:, None] * by_t - inside[:, None] * by_w
        block = ((share * slope)[:, None] * q).T @ (first_q + second_q)
        centres = self._centres(a)
        for of_rows, centre in centres:
            block -= np.outer(centre, (share * of_rows) @ (first_c + by_t))
        # what centres psi and psi' moves
        t_slope = ((self.of_tilt * self.tt - inside * self.tw) * slope)[:, None] * q
        D_psi_t = share * (Dg * self.tt + Dr * self.tw)
        for of_rows, centre in centres:
            t_slope -= (of_rows * self.tt)[:, None] * centre
        moved = ((self.of_tilt, self.dM), (self.of_measure, self.dR))
        for (of_rows, means), d_slope in zip(moved, self._moved_slopes(a), strict=True):
            block -= np.outer((share * of_rows) @ t_slope, (variance.D @ means)[a])
            block -= (D_psi_t @ of_rows) * d_slope
        return block

    def _centres(self, a: int) -> list[tuple[Array, Array]]:
        """Rows that are centred by a vector (p,), and it."""
        of_M, of_R = self.solution.variance.centres
        if of_R is None:
            return [(self.of_tilt, of_M[a][:, 0])]
        return [(self.of_tilt, of_M[a][:, 0]), (self.of_measure, of_R[a][:, 0])]

    def _moved_slopes(self, a: int) -> tuple[Array, Array]:
        """Return the derivatives by gamma of M_a' and R_a', shape (p, Q)."""
        solution = self.solution
        weighted = (solution.share * solution.deriv[a])[:, None] * solution.q
        rows = solution.sample.slices[a]
        return weighted.T @ self.t_by_gamma, -weighted[rows].T @ self.sums.mean_w_by_gamma[rows]


def _common_influence(solution: JointSolution, sums: ReplicateSums, by_arm: Array) -> Array:
    """Influence function of the common bias on the scale of the effect, shape (n,)."""
    sample, slopes = solution.sample, solution.criterion.scale_slopes / solution.sample.n_arms
    mean_w = solution.resampled.moments.mean.w[:, 0]
    rows = sample.indicators * (mean_w * solution.error)[:, None] - sums.centre_bias
    trained = (mean_w * solution.own_deriv)[:, None] * solution.q
    by_theta = sample.arm_products(trained, np.ones((sample.n, 1)))[:, :, 0]
    influence = rows @ slopes + np.einsum("a,ap,nap->n", slopes, by_theta, by_arm)
    by_gamma = (solution.share * solution.error * slopes[sample.arm]) @ sums.mean_w_by_gamma
    return influence + solution.weight_fit.influence @ by_gamma


def monte_carlo_se(solution: JointSolution, sums: ReplicateSums) -> Array:
    """Return standard errors of the effects over redraws of the replicates, shape (K - 1,); NaN for one.

    By the jackknife: leaving replicate b out moves the effect by c' H^-1 (g_b - mean g) / (B (1 - h_b)), g_b its part
    of the gradient and h_b its leverage. Without the leverage (the infinitesimal jackknife) it is too small where a few
    replicates dominate.
    """
    n_arms, n_rep = solution.sample.n_arms, solution.replicates.count
    if n_rep == 1:
        return np.full(n_arms - 1, np.nan)
    by_theta = (solution.share * solution.weight_fit.tilt * solution.deriv) @ solution.q
    jacobian = solution.effect_scale.jacobian(solution.raw_means)[: n_arms - 1]
    contrast = (jacobian[:, :, None] * by_theta).reshape(n_arms - 1, -1)
    penalised = solution.criterion.penalty * np.einsum("cb,cbk->bk", solution.u[:, 1:], solution.u_slope[:, 1:])
    gradient = sums.gradients + penalised
    change = (gradient - gradient.mean(axis=0)) @ solution.hessian.solve(contrast.T)
    half, inner = solution.u_whitened[:, 1:], solution.hessian.inner
    leverage = (half * np.linalg.solve(inner, half[..., None])[..., 0]).sum(axis=(0, 2))
    return np.linalg.norm(change / (1 - np.minimum(leverage, 1 - 1e-9))[:, None], axis=0) / n_rep
