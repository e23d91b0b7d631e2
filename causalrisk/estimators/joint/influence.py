"""The influence function of the joint estimate, and its Monte Carlo error.

Flows in: the solution, rows. Flows out: influence functions of (effects, arm means, theta). The gradient of the
objective at the solution is a sum over rows; the part of row i, xi_i, has five terms:

    xi_i = loss_term + risk_term + variance_term + propensity_term + by_start IF_start,      IF_theta,i = -H^-1 xi_i

First come sums over the replicates of the importance weights of each row times what the equations multiply them by,
then the derivatives of the equations by the propensity coefficients, sums over rows and replicates; last the terms.
Weights are divided by the mean measure of their replicate, which moves with the rows and with gamma: "centre" names
what that takes away.

Held fixed are the distances of the replicates from the fitted propensity model, the penalties and what `JointCriterion`
takes from the start; the fitted propensity model and the coefficients of the start are not. Every influence function is
relative to the sample's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from causalrisk.estimators.joint.equations import JointRows, JointSolution, Over, RowsAtSolution
from causalrisk.estimators.joint.variance import RowVectors, in_place, own_terms
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import BatchedWeights, replicate_blocks
from causalrisk.propensity.weights import ImportanceWeights, predictor_columns

# --- sums over the replicates --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReplicateCentres:
    """What centres the equations of theta under each replicate: sums over all rows, over B; or one for all of them.

    Parameters
    ----------
    loss : ndarray, shape (B, K p) or (1, K p)
        Gradient of the losses.
    of_tilt, of_measure : ndarray, shape (B, K p) or (1, K p)
        Twice the gradient of V / 2, of the rows of a target frame and of the others.
    M, R : ndarray, shape (B, K) or (1, K)
        Centres of psi.
    M_slope, R_slope : ndarray, shape (B, K, p) or (1, K, p)
        Their derivatives.
    """

    loss: Array
    of_tilt: Array
    of_measure: Array
    M: Array
    R: Array
    M_slope: Array
    R_slope: Array


def replicate_centres(found: Sequence[JointSolution], fixed_tilt: bool, over: Over) -> tuple[ReplicateCentres, ...]:
    """Return what centres the equations of each solution: known where nothing but w varies, else a pass over rows."""
    if fixed_tilt and all(solution.criterion.full_risk for solution in found):
        return tuple(_fixed_centres(solution) for solution in found)
    return add_up(over(partial(_centres_of_block, found)))


def _centres_of_block(found: Sequence[JointSolution], block: JointRows) -> tuple[ReplicateCentres, ...]:
    every = [RowsAtSolution(solution, block) for solution in found]
    return tuple(_varying_centres(rows) if rows.criterion.full_risk else _loss_centres(rows) for rows in every)


def _fixed_centres(solution: JointSolution) -> ReplicateCentres:
    """Those where nothing but w varies over the replicates."""
    averages = solution.averages
    gradient = 2 * solution.equations.variance_gradient[None]
    return ReplicateCentres(
        loss=solution.loss_gradient[None],
        of_tilt=gradient,
        of_measure=np.zeros_like(gradient),
        M=averages.centres.M.T,
        R=averages.centres.R.T,
        M_slope=averages.tilted_slope[None],
        R_slope=-averages.bias_slope[None],
    )


def _loss_centres(rows: RowsAtSolution) -> ReplicateCentres:
    """Those of the objective without V, from the rows of a block."""
    gradients = [loss_gradients(rows, at) for _, _, at in rows.data.replicated.blocks()]
    loss = np.concatenate(gradients) / rows.solution.count
    none = np.zeros((1, 0))
    return ReplicateCentres(loss=loss, of_tilt=none, of_measure=none, M=none, R=none, M_slope=none, R_slope=none)


def _varying_centres(rows: RowsAtSolution) -> ReplicateCentres:
    """Those where the tilt varies, from the rows of a block."""
    n_rep, found = rows.solution.count, []
    for _, _, at in rows.data.replicated.blocks():
        of_tilt, of_measure = variance_gradients(rows, at)
        found.append((2 * of_tilt, 2 * of_measure, *_moved_centres(rows, at)))
    none = np.zeros((1, 0))
    return ReplicateCentres(none, *(np.concatenate(parts) / n_rep for parts in zip(*found, strict=True)))


def _moved_centres(rows: RowsAtSolution, at: ImportanceWeights) -> tuple[Array, Array, Array, Array]:
    """M, R and their derivatives under each replicate, shape (b, K) and (b, K, p)."""
    q, slices, w = rows.q, rows.sample.slices, at.w
    share = rows.share[:, None]
    tilted, weighted = share * np.broadcast_to(at.tilt, w.shape), share * w
    own = weighted * rows.own_deriv[:, None]
    return (
        np.stack([tilted.T @ counted for counted in rows.counted], axis=1),
        np.stack([-weighted[members].T @ rows.error[members] for members in slices], axis=1),
        np.stack([(tilted * deriv[:, None]).T @ q for deriv in rows.deriv], axis=1),
        np.stack([-own[members].T @ q[members] for members in slices], axis=1),
    )


class KnownScoreSums:
    """What the equations of theta need at known propensity scores; rows in the order of the sample.

    Parameters
    ----------
    products : ndarray, shape (K p + 1, n)
        `weight_products` of the solution.
    n_arms : int
        K.

    Attributes
    ----------
    w_times_slope : ndarray, shape (K p, n)
        sum_b sqrt(lambda_b) w_ib times the whitened slope of the contrast of the row's arm.
    w_times_u : ndarray, shape (n,)
        sum_b lambda_b w_ib u_b of the row's arm.
    centre_risk : RowVectors
        sum_b sqrt(lambda_b) measure_ib u_b times the whitened slope.
    centre_loss : RowVectors
        Mean of the measure times the gradient of the losses.
    centre_variance : RowVectors
        2 mean_b of tilt or measure times the gradient of V / 2 from replicate b.
    moved_M, moved_R : ndarray, shape (K, n)
        mean_b t_ib M_ab and mean_b measure_ib R_ab, the centres of psi under each replicate.
    moved_M_slope, moved_R_slope : RowVectors
        The same for their derivatives.
    """

    def __init__(self, products: Array, n_arms: int) -> None:
        self.w_times_slope, self.w_times_u = products[:-1], products[-1]
        width, n = self.w_times_slope.shape
        self.centre_risk = self.centre_loss = self.centre_variance = RowVectors.none(n, width)
        self.moved_M_slope = self.moved_R_slope = RowVectors.none(n, width)
        self.moved_M, self.moved_R = np.zeros((2, n_arms, n))

    def add(self, at: ImportanceWeights, replicates: slice, risk: Array, centres: ReplicateCentres) -> None:
        """Add some replicates, whose part of the risk is given: tilt or measure of each row times what is centred."""
        over, tilt, measure = RowVectors.over_replicates, at.tilt, at.measure
        self.centre_risk += over(measure, risk)
        if not centres.M.size:
            self.centre_loss += over(measure, centres.loss[replicates])
            return
        self.centre_variance += over(tilt, centres.of_tilt[replicates]) + over(measure, centres.of_measure[replicates])
        self.moved_M += over_replicates(tilt, centres.M[replicates]).T
        self.moved_R += over_replicates(measure, centres.R[replicates]).T
        for_M, for_R = (slope[replicates] for slope in (centres.M_slope, centres.R_slope))
        self.moved_M_slope += over(tilt, for_M.reshape(len(for_M), -1))
        self.moved_R_slope += over(measure, for_R.reshape(len(for_R), -1))


def weight_products(found: Sequence[JointSolution], rows: JointRows) -> list[Array]:
    """Go through the replicates of rows once for several solutions.

    Parameters
    ----------
    found : sequence of JointSolution
        The solutions.
    rows : JointRows
        The rows.

    Returns
    -------
    list of ndarray, shape (K p + 1, n)
        `w_times_slope` and `w_times_u` of `KnownScoreSums`, one above the other, of each solution.
    """
    pulls = []
    for solution in found:
        slopes = solution.root[:, None] * solution.u_whitened
        columns = np.concatenate([slopes, (solution.penalties * solution.u)[..., None]], axis=2)
        pulls.append(np.tensordot(solution.criterion.contrasts.T, columns, axes=1))
    pull = np.concatenate(pulls, axis=2).transpose(0, 2, 1)
    total = np.zeros((pull.shape[1], rows.sample.n))
    for replicates, at in with_fitted(rows.resampled.at, rows.replicated):
        w = at.w
        for a, members in enumerate(rows.sample.slices):
            total[:, members] += pull[a, :, replicates] @ w[members].T
    return np.split(total, len(found))


def known_score_sums(rows: RowsAtSolution, centres: ReplicateCentres, products: Array | None = None) -> KnownScoreSums:
    """Collect what is needed where the propensity scores are known; the `weight_products` may be given."""
    solution, fitted = rows.solution, rows.resampled.at
    products = weight_products([solution], rows.data)[0] if products is None else products
    risk = (solution.u[..., None] * solution.root[:, None] * solution.u_whitened).sum(axis=0)
    full_risk, fixed_tilt = solution.criterion.full_risk, rows.data.replicated.model.target.fixed_tilt
    sums = KnownScoreSums(products, solution.n_arms)
    sums.centre_risk += RowVectors.over_replicates(fitted.measure, risk[:1])
    if full_risk:
        sums.centre_loss += RowVectors.over_replicates(fitted.measure, solution.loss_gradient[None])
    if full_risk and fixed_tilt:  # nothing but w varies over the replicates
        sums.add(rows.resampled.moments.mean, slice(0, 1), risk[1:].sum(axis=0, keepdims=True), centres)
    else:
        for _, replicates, at in rows.data.replicated.blocks():
            sums.add(at, replicates, risk[1:][replicates], centres)
    return sums


def with_fitted(fitted: ImportanceWeights, replicated: BatchedWeights) -> Iterator[tuple[slice, ImportanceWeights]]:
    """Yield the fitted score as number 0, then blocks of the replicates."""
    yield slice(0, 1), fitted
    for _, columns, at in replicated.blocks():
        yield slice(columns.start + 1, columns.stop + 1), at


def over_replicates(measure: Array, values: Array) -> Array:
    """Sum over replicates of a measure, (n, b) or the same (n, 1) for all, times values (b, k); shape (n, k)."""
    return measure * values.sum(axis=0) if measure.shape[1] == 1 else measure @ values


def loss_gradients(rows: RowsAtSolution, at: ImportanceWeights) -> Array:
    """Gradient of the losses under each replicate, shape (b, K p); a sum over rows."""
    own = -(rows.criterion.alpha_sigma2 * rows.share * rows.score)[:, None] * rows.q
    w = at.w
    return np.concatenate([w[members].T @ own[members] for members in rows.sample.slices], axis=1)


def variance_gradients(rows: RowsAtSolution, at: ImportanceWeights) -> tuple[Array, Array]:
    """Gradient of V / 2 from each replicate, shape (b, K p): sums over rows of a target frame, and over the others."""
    variance, sample, q = rows.variance, rows.sample, rows.q
    under = variance.psi_under(at, rows.counted[..., None])
    D_psi = variance.share * under.D_psi
    gradients = []
    for part in (slice(0, sample.n_frame), slice(sample.n_frame, sample.n)):
        blocks = []
        for a, factor in enumerate(under.factor):
            gradient = (D_psi[a][part] * factor[part]).T @ q[part]
            for f, centre in variance.centring(at):
                gradient -= (D_psi[a][part] * f[part]).sum(axis=0)[:, None] * centre[a].T
            blocks.append(gradient)
        gradients.append(np.concatenate(blocks, axis=1))
    return gradients[0], gradients[1]


def objective_gradients(rows: RowsAtSolution) -> Callable[[ImportanceWeights], Array]:
    """How the gradient of the losses or of V / 2 under each replicate, shape (b, K p), follows from its weights."""
    if not rows.criterion.full_risk:
        return lambda at: loss_gradients(rows, at)
    if not rows.data.replicated.model.target.fixed_tilt:
        return lambda at: np.add(*variance_gradients(rows, at))
    return _fixed_tilt_gradients(rows)


def _fixed_tilt_gradients(rows: RowsAtSolution) -> Callable[[ImportanceWeights], Array]:
    """`variance_gradients` where only w varies over the replicates: a quadratic in w, so that its terms are products.

    With k the arm of a row, psi_a = base_a + 1{a = k} w e and psi'_a = (t - 1{a = k} w) m_a' q - t (M'_a + R'_a).
    """
    variance, sample, q = rows.variance, rows.sample, rows.q
    tilt, share, error = variance.moments.mean.tilt[:, 0], rows.share, -rows.error
    base = tilt * (rows.counted - variance.M - variance.R)
    D_psi, (_, centres) = variance.D @ base, variance.centring(variance.moments.mean)[0]
    constant, linear, square = [], [], np.empty(q.shape)
    for a, members in enumerate(sample.slices):
        centre, factor = centres[a, :, 0], tilt * rows.deriv[a]
        own = variance.D[a, sample.arm] * error  # what w adds to D psi
        constant.append((share * D_psi[a] * factor) @ q - (share * D_psi[a] * tilt).sum() * centre)
        by_column, by_centre = share * own * factor, share * own * tilt
        by_column[members] -= (share * rows.deriv[a] * D_psi[a])[members]
        linear.append(by_column[:, None] * q - by_centre[:, None] * centre)
        square[members] = -(share * own * rows.deriv[a])[members, None] * q[members]
    of_w = np.concatenate(linear, axis=1)

    def gradients(at: ImportanceWeights) -> Array:
        w = at.w
        squares = [(w[members] ** 2).T @ square[members] for members in sample.slices]
        return np.asarray(np.concatenate(constant) + w.T @ of_w + np.concatenate(squares, axis=1))

    return gradients


# --- derivatives by the propensity coefficients --------------------------------------------------------------------


@dataclass(frozen=True)
class PropensitySums:
    """What the influence function needs where the propensity model is estimated; sums over rows.

    Parameters
    ----------
    replicates : ndarray, shape (B, K p)
        Part of each replicate in the gradient of the objective: of its loss or V / 2.
    u : ndarray, shape (C, 1 + B, Q)
        Derivative of the net biases under a common shift of gamma.
    gradient : ndarray, shape (K p, Q)
        That of the gradient, but for what moves in the net biases themselves, and until all rows are summed for V.
    means : ndarray, shape (K, Q), or None
        That of the averages over the target, where the tilt moves.
    common_bias : ndarray, shape (Q,)
        That of the common bias on the scale of the effect.
    variance : _VarianceByGamma or None
        What that of the gradient of V is made of, where the objective has V.
    """

    replicates: Array
    u: Array
    gradient: Array
    means: Array | None
    common_bias: Array
    variance: _VarianceByGamma | None


def propensity_sums(solution: JointSolution, over: Over) -> PropensitySums:
    """Go through the rows and their replicates once, with the derivatives of the weights by gamma."""
    sums = add_up(over(partial(_sums_by_gamma, solution)))
    if sums.variance is None:
        return sums
    return replace(sums, gradient=sums.gradient + sums.variance.gradient(solution.criterion.D))


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


def _sums_by_gamma(solution: JointSolution, block: JointRows) -> PropensitySums:
    rows = RowsAtSolution(solution, block)
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
    totals, model, s = rows.data.replicated.whole(0), fit.model, sample.s
    for some, eta, at in replicate_blocks(model, rows.data.replicated.gammas[0], s, totals):
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
            own_share = float(rows.share @ sample.in_sample)
            u[:, later] -= own_share * solution.u[:, later, None] * slopes.log_mean.T
        t = np.broadcast_to(at.tilt if at.measure is at.tilt else at.tilt + at.measure, w.shape)
        share = np.full(w.shape, 1 / n_rep)
        for k, factor in enumerate((share, pull_u[:, later], share * t, share * w)):
            by_gamma[k] += slopes.of_w(model, w, factor)
        if slopes.measure is not None:
            for k, factor in enumerate((share * t, share * w, share), start=4):
                by_gamma[k] += slopes.of_measure(model, at.measure, factor)
    return _collected(rows, gradients, u, _RowsByGamma(*by_gamma))


def _collected(rows: RowsAtSolution, replicates: Array, u: Array, sums: _RowsByGamma) -> PropensitySums:
    """Sum over the rows."""
    solution, sample, fit, criterion = rows.solution, rows.sample, rows.weight_fit, rows.criterion
    loss_by_gamma = fit.w_by_gamma if criterion.full_risk else sums.w
    by_gamma = -(criterion.alpha_sigma2 * rows.score)[:, None] * loss_by_gamma
    by_gamma = by_gamma + rows.own_deriv[:, None] * sums.u_times_w
    means = None
    if fit.tilt_by_gamma is not None:
        means = (rows.share * (rows.predicted - solution.raw_means[:, None])) @ fit.tilt_by_gamma
    slopes = criterion.scale_slopes / sample.n_arms
    return PropensitySums(
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

        psi_a = t g_a + 1{arm = a} w r,    psi'_a = (t - 1{arm = a} w) m_a' q - t g'_a

    where g_a is d_a - M_a, or -R_a, or d_a - M_a - R_a, and g'_a likewise M'_a, R'_a or their sum.

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
    tilt_D_psi, measure_D_psi : ndarray, shape (K,)
        What M'_a and R'_a multiply in it.
    """

    direct: Array
    M: Array
    R: Array
    M_slope: Array
    R_slope: Array
    tilt_slope: Array
    measure_slope: Array
    tilt_D_psi: Array
    measure_D_psi: Array

    def gradient(self, D: Array) -> Array:
        """Return the derivative of the gradient of V / 2 by gamma, shape (K p, Q)."""
        total = self.direct.copy()
        moved = (
            (self.tilt_slope, self.tilt_D_psi, D @ self.M, self.M_slope),
            (self.measure_slope, self.measure_D_psi, D @ self.R, self.R_slope),
        )
        for slope, D_psi, centre, centre_slope in moved:
            total -= slope[:, :, None] * centre[:, None] + D_psi[:, None, None] * centre_slope
        n_arms, p, width = total.shape
        return total.reshape(n_arms * p, width)


def _variance_by_gamma(rows: RowsAtSolution, sums: _RowsByGamma) -> _VarianceByGamma:
    """Sum over the rows."""
    sample, share, q = rows.sample, rows.share, rows.q
    frame = rows.weight_fit.model.membership is not None
    of_tilt = 1 - sample.in_sample if frame else np.ones(sample.n)
    of_measure = sample.in_sample if frame else np.ones(sample.n)
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
        tilt_D_psi=np.array([arm.D_psi_t @ of_tilt for arm in by_arm]),
        measure_D_psi=np.array([arm.D_psi_t @ of_measure for arm in by_arm]),
    )


@dataclass(frozen=True)
class _ArmByGamma:
    """One arm's part: as in `_VarianceByGamma`, and of each row t psi'_a, (n, p), and share (D psi)_a t, (n,)."""

    direct: Array
    t_slope: Array
    D_psi_t: Array

    @classmethod
    def of(cls, rows: RowsAtSolution, sums: _RowsByGamma, a: int, of_rows: tuple[Array, Array]) -> _ArmByGamma:
        """For arm a; `of_rows` tell which rows have a tilt and which a measure."""
        variance, sample, share, q = rows.variance, rows.sample, rows.share, rows.q
        of_tilt, of_measure = of_rows
        inside, slope = sample.indicators[:, a], rows.deriv[a]
        g = of_tilt * (rows.counted - variance.M) - of_measure * variance.R
        Dg, Dr = variance.D[a] @ g, variance.D[a, sample.arm] * -rows.error
        # factors of m_a' q and of g'_a in sums over b of psi' times the derivative of t and of w, and of t itself
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


def _squared_tilt(rows: RowsAtSolution) -> tuple[Array, Array]:
    """Means over the replicates of the squared tilt and of tilt times w, shape (n,) each."""
    moments, frame = rows.resampled.moments, rows.weight_fit.model.membership is not None
    parts = [(p.tilt if not frame else p.tilt + p.measure, p.w) for p in moments.parts]
    none = np.zeros(rows.sample.n)
    return sum((t[:, 0] ** 2 for t, _ in parts), none), sum((t[:, 0] * w[:, 0] for t, w in parts), none)


def _centres(rows: RowsAtSolution, a: int, of_rows: tuple[Array, Array]) -> list[tuple[Array, Array]]:
    """Rows that are centred by a vector (p,), and it."""
    centres, (of_tilt, of_measure) = rows.variance.centres, of_rows
    if centres.of_measure is None:
        return [(of_tilt, centres.of_tilt[a][:, 0])]
    return [(of_tilt, centres.of_tilt[a][:, 0]), (of_measure, centres.of_measure[a][:, 0])]


# --- the influence function ----------------------------------------------------------------------------------------


def influence_function(rows: RowsAtSolution, centres: ReplicateCentres, by_gamma: PropensitySums) -> Array:
    """Influence function of (effects, arm means, theta) of rows, shape (n, 2 K - 1 + K p)."""
    solution, sample, fit = rows.solution, rows.sample, rows.weight_fit
    scale, raw = solution.effect_scale, solution.raw_means
    score, whitened = (of.written(rows.columns) for of in known_terms(rows, known_score_sums(rows, centres)))
    of_score, of_whitened = propensity_term(rows, by_gamma)
    if rows.criterion.real_share:
        of_score = of_score + solution.by_start @ rows.data.start.influence(sample, fit).T
    theta = -solution.hessian.solve(score + of_score, whitened + of_whitened).T
    by_arm = theta.reshape(sample.n, *solution.theta.shape)
    means = fit.tilt[:, None] * (rows.predicted.T - raw)
    means += np.einsum("ap,nap->na", solution.averages.means_slope, by_arm)
    if by_gamma.means is not None:
        means += fit.influence @ by_gamma.means.T
    common, net = _common_influence(rows, by_gamma, by_arm), solution.net_means()
    influence = (means * scale.g_slope(raw) - common[:, None]) / scale.g_slope(net)
    return np.column_stack([influence @ scale.jacobian(net).T, theta])


def known_terms(rows: RowsAtSolution, sums: KnownScoreSums) -> tuple[RowVectors, RowVectors]:
    """Terms of xi at known propensity scores, and the part of them that is given as R^-T xi."""
    score, whitened = risk_term(rows, sums)
    score += loss_term(rows, sums)
    return (score + variance_term(rows, sums) if rows.criterion.full_risk else score), whitened


def loss_term(rows: RowsAtSolution, sums: KnownScoreSums) -> RowVectors:
    """Parts of the rows in the gradient of the losses."""
    return _in_own_arm(rows, -(rows.loss_w * rows.score)) - sums.centre_loss


def risk_term(rows: RowsAtSolution, sums: KnownScoreSums) -> tuple[RowVectors, RowVectors]:
    """Parts of the rows in sum_b lambda_b u_b u_b': in u_b' as they are, in u_b as R^-T times it."""
    whitened = RowVectors.of_own(rows.error * sums.w_times_slope) - sums.centre_risk - sums.centre_risk
    return _in_own_arm(rows, sums.w_times_u * rows.own_deriv), whitened


def variance_term(rows: RowsAtSolution, sums: KnownScoreSums) -> RowVectors:
    """Parts of the rows in the gradient of V / 2: directly, and in what centres psi."""
    solution, sample, variance, psi = rows.solution, rows.sample, rows.variance, rows.solution.psi
    mean, p = rows.resampled.moments.mean, rows.q.shape[1]
    tilt, own_w = mean.tilt[:, 0], sample.indicators.T * mean.w[:, 0]
    of_tilt, of_measure = psi.tilt_D_psi.sum(axis=0), psi.measure_D_psi.sum(axis=0)
    _, scores = own_terms(sample, variance.D, variance.moments, rows.own_deriv[:, None], variance.residual)
    term = -_in_own_arm(rows, scores[:, 0]) - sums.centre_variance
    term -= RowVectors.of_columns((of_tilt[:, None] * tilt - of_measure[:, None] * own_w) * rows.deriv, p)
    term += RowVectors.of_shared(sample.in_sample[None], solution.equations.variance_gradient)
    moved_M = variance.D @ (tilt * rows.counted - sums.moved_M)
    moved_R = variance.D @ (-own_w * rows.error - sums.moved_R)
    for moved, slopes in ((moved_M, psi.tilt_slope), (moved_R, psi.measure_slope)):
        term -= RowVectors.of_shared(moved, in_place(slopes.sum(axis=0)))
    term += sums.moved_M_slope.by_place(np.repeat(of_tilt, p))
    term += sums.moved_R_slope.by_place(np.repeat(of_measure, p))
    for part in variance.parts:
        term += variance.weighted_slopes(part, part.D_psi[..., 0])
    return term


def _in_own_arm(rows: RowsAtSolution, scale: Array) -> RowVectors:
    """Multiples, shape (n,), of the outcome columns in the place of a row's own arm."""
    return RowVectors.of_columns(rows.sample.indicators.T * scale, rows.q.shape[1])


def propensity_term(rows: RowsAtSolution, by_gamma: PropensitySums) -> tuple[Array, Array]:
    """Return the derivative of the gradient by gamma times IF_gamma, (K p, n), in parts as `known_terms` has them."""
    solution, influence = rows.solution, rows.weight_fit.influence.T
    of_u = np.einsum("cbk,cbq->kq", solution.root[:, None] * solution.u_whitened, by_gamma.u)
    return by_gamma.gradient @ influence, of_u @ influence


def _common_influence(rows: RowsAtSolution, by_gamma: PropensitySums, by_arm: Array) -> Array:
    """Influence function of the common bias on the scale of the effect, shape (n,)."""
    solution, sample = rows.solution, rows.sample
    slopes = rows.criterion.scale_slopes / sample.n_arms
    own = sample.indicators * (rows.resampled.moments.mean.w[:, 0] * rows.error)[:, None] - _centre_of_bias(rows)
    influence = own @ slopes + np.einsum("a,ap,nap->n", slopes, solution.averages.bias_slope, by_arm)
    return influence + rows.weight_fit.influence @ by_gamma.common_bias


def _centre_of_bias(rows: RowsAtSolution) -> Array:
    """Mean over the replicates of the measure times the biases, shape (n, K)."""
    biases, replicated = rows.solution.equations.forms[:, 1:, -1].T, rows.data.replicated
    if replicated.model.target.fixed_tilt:
        return over_replicates(rows.resampled.at.measure, biases) / len(biases)
    total = sum(over_replicates(at.measure, biases[replicates]) for _, replicates, at in replicated.blocks())
    return np.asarray(total / len(biases))


def monte_carlo_se(solution: JointSolution, gradients: Array) -> Array:
    """Return standard errors of the effects over redraws of the replicates, shape (K - 1,); NaN for one.

    By the jackknife: leaving replicate b out moves the effect by c' H^-1 (g_b - mean g) / (B (1 - h_b)), g_b its part
    of the gradient, of which `gradients` are the part in its loss or V / 2, shape (B, K p), and h_b its leverage.
    Without the leverage (the infinitesimal jackknife) it is too small where a few replicates dominate.
    """
    n_arms, n_rep = solution.n_arms, solution.count
    if n_rep == 1:
        return np.full(n_arms - 1, np.nan)
    jacobian = solution.effect_scale.jacobian(solution.raw_means)[: n_arms - 1]
    contrast = (jacobian[:, :, None] * solution.averages.means_slope).reshape(n_arms - 1, -1)
    penalised = solution.criterion.penalty * np.einsum("cb,cbk->bk", solution.u[:, 1:], solution.u_slope[:, 1:])
    gradient = gradients + penalised
    change = (gradient - gradient.mean(axis=0)) @ solution.hessian.solve(contrast.T)
    half, inner = solution.u_whitened[:, 1:], solution.hessian.inner
    leverage = (half * np.linalg.solve(inner, half[..., None])[..., 0]).sum(axis=(0, 2))
    return np.linalg.norm(change / (1 - np.minimum(leverage, 1 - 1e-9))[:, None], axis=0) / n_rep
