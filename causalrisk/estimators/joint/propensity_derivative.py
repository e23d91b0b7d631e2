"""How the equations of the joint estimate move with the propensity coefficients: sums over rows and replicates.

Flows in: rows under a solution. Flows out: derivatives by gamma of the gradient of the objective, the net biases and
the averages, and each replicate's part of the gradient; those of blocks of rows add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from causalrisk.estimators.joint.equations import JointRows, Over
from causalrisk.estimators.joint.replicate_sums import objective_gradients
from causalrisk.estimators.joint.solution import JointSolution, SolutionRows
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import replicate_blocks
from causalrisk.propensity.weights import predictor_columns


@dataclass(frozen=True)
class PropensitySums:
    """What the influence function needs where the propensity model is estimated, and the Monte Carlo error.

    Parameters
    ----------
    replicates : ndarray, shape (B, K p)
        Part of each replicate in the gradient of the objective: of its loss or V / 2.
    u : ndarray, shape (C, 1 + B, Q)
        Derivative of the net biases under a common shift of gamma.
    gradient : ndarray, shape (K p, Q)
        That of the gradient, but for what moves in the net biases themselves.
    means : ndarray, shape (K, Q), or None
        That of the averages over the target, where the tilt moves.
    common_bias : ndarray, shape (Q,)
        That of the common bias on the scale of the effect.
    """

    replicates: Array
    u: Array
    gradient: Array
    means: Array | None
    common_bias: Array


def propensity_sums(solution: JointSolution, over: Over) -> PropensitySums:
    """Go through the rows and their replicates once, with the derivatives of the weights by gamma."""
    parts = add_up(over(partial(_parts, solution)))
    gradient = parts.gradient
    if parts.variance is not None:
        gradient = gradient + parts.variance.gradient(solution.criterion.D)
    return PropensitySums(
        replicates=parts.replicates, u=parts.u, gradient=gradient, means=parts.means, common_bias=parts.common_bias
    )


@dataclass(frozen=True)
class _Parts:
    """As `PropensitySums`, the gradient without that of V."""

    replicates: Array
    u: Array
    gradient: Array
    means: Array | None
    common_bias: Array
    variance: _VarianceByGamma | None


@dataclass(frozen=True)
class _RowsByGamma:
    """Sums over the replicates of weights times derivatives of weights by gamma, of each row; shape (n, Q) each.

    Parameters
    ----------
    w : ndarray
        Mean of the derivative of w.
    u_times_w : ndarray
        sum_b lambda_b u_b of the row's arm times the derivative of w.
    t_times_w, w_times_w : ndarray
        Means of tilt (or measure, for a target frame) and of w, times the derivative of w.
    t_times_t, w_times_t, t : ndarray
        The same for the derivative of the tilt (or measure), and its mean.
    """

    w: Array
    u_times_w: Array
    t_times_w: Array
    w_times_w: Array
    t_times_t: Array
    w_times_t: Array
    t: Array


def _parts(solution: JointSolution, block: JointRows) -> _Parts:
    rows = SolutionRows(solution, block)
    sample, fit = rows.sample, rows.weight_fit
    n_rep, width = solution.count, fit.model.n_coefficients
    by_gamma = np.zeros((7, sample.n, width))
    pull_u = (rows.criterion.contrasts.T @ (solution.penalties * solution.u))[sample.arm]
    u = np.zeros((len(rows.criterion.contrasts), 1 + n_rep, width))
    weighted = rows.share * rows.error
    of_fit = np.stack([weighted[members] @ fit.w_by_gamma[members] for members in sample.slices])
    u[:, 0] = rows.criterion.contrasts @ of_fit
    by_gamma[1] = pull_u[:, [0]] * fit.w_by_gamma
    gradients, gradients_of = np.zeros((n_rep, solution.theta.size)), objective_gradients(rows)
    totals, model, s = rows.rows.replicated.whole(0), fit.model, sample.s
    for some, eta, at in replicate_blocks(model, rows.rows.replicated.gammas[0], s, totals):
        own = None if totals is None else totals.some(some)
        slopes = model.slopes(eta, s[:, None], *((None, None) if own is None else (own.target, own.log_mean)))
        w, later = at.w, slice(some.start + 1, some.stop + 1)
        gradients[some] = gradients_of(at)
        pairs = list(zip(slopes.w, predictor_columns(model.columns, model.beside, len(slopes.w)), strict=True))
        for a, members in enumerate(sample.slices):
            of_arm = [slope[members].T @ (weighted[members, None] * columns[members]) for slope, columns in pairs]
            moved = np.concatenate([np.empty((w.shape[1], 0)), *of_arm], axis=1)  # scores that are known have none
            u[:, later] += rows.criterion.contrasts[:, a, None, None] * moved
        if slopes.log_mean is not None:  # of all rows; these have their share of it
            own_share = float(rows.share @ sample.observed)
            u[:, later] -= own_share * solution.u[:, later, None] * slopes.log_mean.T
        t = np.broadcast_to(at.tilt if at.measure is at.tilt else at.tilt + at.measure, w.shape)
        share = np.full(w.shape, 1 / n_rep)
        for k, factor in enumerate((share, pull_u[:, later], share * t, share * w)):
            by_gamma[k] += slopes.of_w(model, w, factor)
        if slopes.measure is not None:
            for k, factor in enumerate((share * t, share * w, share), start=4):
                by_gamma[k] += slopes.of_measure(model, at.measure, factor)
    return _collected(rows, gradients, u, _RowsByGamma(*by_gamma))


def _collected(rows: SolutionRows, replicates: Array, u: Array, sums: _RowsByGamma) -> _Parts:
    """Sum over the rows."""
    solution, sample, fit, criterion = rows.solution, rows.sample, rows.weight_fit, rows.criterion
    loss_by_gamma = fit.w_by_gamma if criterion.full_risk else sums.w
    by_gamma = -(criterion.alpha_sigma2 * rows.score)[:, None] * loss_by_gamma
    by_gamma = by_gamma + rows.own_deriv[:, None] * sums.u_times_w
    means = None
    if fit.tilt_by_gamma is not None:
        means = (rows.share * (rows.predicted - solution.raw_means[:, None])) @ fit.tilt_by_gamma
    slopes = criterion.scale_slopes / sample.n_arms
    return _Parts(
        replicates=replicates,
        u=u,
        gradient=sample.arm_products(rows.q, by_gamma).reshape(solution.theta.size, by_gamma.shape[1]),
        means=means,
        common_bias=(rows.share * rows.error * slopes[sample.arm]) @ sums.w,
        variance=_variance_by_gamma(rows, sums) if criterion.full_risk else None,
    )


@dataclass(frozen=True)
class _VarianceByGamma:
    """Sums for the derivative by gamma of mean_ib (D psi_ib)_a psi'_ib,a.

    With t the tilt (where there is a target frame, the measure in the rows of the sample) and r = y - m,

        psi_a = t g_a + 1{arm = a} w r,    psi'_a = (t - 1{arm = a} w) m_a' q - t c_a

    where g_a is d_a - M_a, or -R_a, or d_a - M_a - R_a, and c_a likewise of the derivatives.

    Parameters
    ----------
    direct : ndarray, shape (K, p, Q)
        What moves in the weights themselves.
    M, R : ndarray, shape (K, Q)
        Derivatives of M_a and R_a.
    M_slope, R_slope : ndarray, shape (K, p, Q)
        Those of M'_a and R'_a.
    tilt_slope, measure_slope : ndarray, shape (K, p)
        What M_a and R_a multiply in the gradient.
    tilt_pulled, measure_pulled : ndarray, shape (K,)
        What M'_a and R'_a multiply in it.
    """

    direct: Array
    M: Array
    R: Array
    M_slope: Array
    R_slope: Array
    tilt_slope: Array
    measure_slope: Array
    tilt_pulled: Array
    measure_pulled: Array

    def gradient(self, D: Array) -> Array:
        """Return the derivative of the gradient of V / 2 by gamma, shape (K p, Q)."""
        total = self.direct.copy()
        moved = (
            (self.tilt_slope, self.tilt_pulled, D @ self.M, self.M_slope),
            (self.measure_slope, self.measure_pulled, D @ self.R, self.R_slope),
        )
        for slope, pulled, centre, centre_slope in moved:
            total -= slope[:, :, None] * centre[:, None] + pulled[:, None, None] * centre_slope
        n_arms, p, width = total.shape
        return total.reshape(n_arms * p, width)


def _variance_by_gamma(rows: SolutionRows, sums: _RowsByGamma) -> _VarianceByGamma:
    """Sum over the rows."""
    sample, share, q = rows.sample, rows.share, rows.q
    frame = rows.weight_fit.model.membership is not None
    of_tilt = 1 - sample.observed if frame else np.ones(sample.n)
    of_measure = sample.observed if frame else np.ones(sample.n)
    t_by_gamma = of_tilt[:, None] * sums.t * (not frame)
    weighted = share * -rows.error
    slopes = [(share * deriv)[:, None] * q for deriv in rows.deriv]
    by_arm = [_ArmByGamma.of(rows, sums, a, (of_tilt, of_measure)) for a in range(sample.n_arms)]
    return _VarianceByGamma(
        direct=np.stack([arm.direct for arm in by_arm]),
        M=(share * rows.counted) @ t_by_gamma,
        R=np.stack([weighted[members] @ sums.w[members] for members in sample.slices]),
        M_slope=np.stack([slope.T @ t_by_gamma for slope in slopes]),
        R_slope=np.stack([-s[own].T @ sums.w[own] for s, own in zip(slopes, sample.slices, strict=True)]),
        tilt_slope=np.stack([(share * of_tilt) @ arm.t_slope for arm in by_arm]),
        measure_slope=np.stack([(share * of_measure) @ arm.t_slope for arm in by_arm]),
        tilt_pulled=np.array([arm.D_psi_t @ of_tilt for arm in by_arm]),
        measure_pulled=np.array([arm.D_psi_t @ of_measure for arm in by_arm]),
    )


@dataclass(frozen=True)
class _ArmByGamma:
    """One arm's part: as in `_VarianceByGamma`, and of each row t psi'_a, (n, p), and share (D psi)_a t, (n,)."""

    direct: Array
    t_slope: Array
    D_psi_t: Array

    @classmethod
    def of(cls, rows: SolutionRows, sums: _RowsByGamma, a: int, of_rows: tuple[Array, Array]) -> _ArmByGamma:
        """For arm a; `of_rows` tell which rows have a tilt and which a measure."""
        variance, sample, share, q = rows.variance, rows.sample, rows.share, rows.q
        of_tilt, of_measure = of_rows
        inside, slope = sample.indicators[:, a], rows.deriv[a]
        g = of_tilt * (rows.counted - variance.M) - of_measure * variance.R
        Dg, Dr = variance.D[a] @ g, variance.D[a, sample.arm] * -rows.error
        # factors of m_a' q and of c_a in sums over b of psi' times the derivative of t and of w, and of t itself
        dt_q = of_tilt[:, None] * sums.t_times_t - inside[:, None] * sums.w_times_t
        dw_q = of_tilt[:, None] * sums.t_times_w - inside[:, None] * sums.w_times_w
        first_q = Dg[:, None] * dt_q + Dr[:, None] * dw_q
        first_c = Dg[:, None] * sums.t_times_t + Dr[:, None] * sums.t_times_w
        # (D psi)_a times the derivative of t and of w
        by_t = Dg[:, None] * sums.t_times_t + Dr[:, None] * sums.w_times_t
        by_w = Dg[:, None] * sums.t_times_w + Dr[:, None] * sums.w_times_w
        second_q = of_tilt[:, None] * by_t - inside[:, None] * by_w
        tt, tw = _squared_tilt(rows)
        direct = ((share * slope)[:, None] * q).T @ (first_q + second_q)
        t_slope = ((of_tilt * tt - inside * tw) * slope)[:, None] * q
        for rows_of, centre in _centres(rows, a, of_rows):
            direct -= np.outer(centre, (share * rows_of) @ (first_c + by_t))
            t_slope -= (rows_of * tt)[:, None] * centre
        return cls(direct, t_slope, share * (Dg * tt + Dr * tw))


def _squared_tilt(rows: SolutionRows) -> tuple[Array, Array]:
    """Means over the replicates of the squared tilt and of tilt times w, shape (n,) each."""
    moments, frame = rows.resampled.moments, rows.weight_fit.model.membership is not None
    parts = [(p.tilt if not frame else p.tilt + p.measure, p.w) for p in moments.parts]
    none = np.zeros(rows.sample.n)
    return sum((t[:, 0] ** 2 for t, _ in parts), none), sum((t[:, 0] * w[:, 0] for t, w in parts), none)


def _centres(rows: SolutionRows, a: int, of_rows: tuple[Array, Array]) -> list[tuple[Array, Array]]:
    """Rows that are centred by a vector (p,), and it."""
    centres, (of_tilt, of_measure) = rows.variance.centres, of_rows
    if centres.of_measure is None:
        return [(of_tilt, centres.of_tilt[a][:, 0])]
    return [(of_tilt, centres.of_tilt[a][:, 0]), (of_measure, centres.of_measure[a][:, 0])]
