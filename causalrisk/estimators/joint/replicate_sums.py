"""Sums over the propensity replicates at the solution, for its influence function and Monte Carlo error.

Flows in: the joint objective at its minimum, rows. Flows out: for each row, sums over b of its importance weights times
what the estimating equations multiply them by; for each replicate, sums over the rows. Weights are divided by the mean
measure of their replicate, which moves with the rows and with gamma: "centre" names what that takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from causalrisk.estimators.joint.equations import JointRows, Over
from causalrisk.estimators.joint.row_vectors import RowVectors
from causalrisk.estimators.joint.solution import JointSolution, SolutionRows
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import BlockwiseWeights
from causalrisk.propensity.weights import ImportanceWeights


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


def replicate_centres(found: Sequence[JointSolution], separable: bool, over: Over) -> tuple[ReplicateCentres, ...]:
    """Return what centres the equations of each solution: known where nothing but w varies, else a pass over rows."""
    if separable and all(solution.criterion.full_risk for solution in found):
        return tuple(_fixed_centres(solution) for solution in found)
    return add_up(over(partial(_centres_of_block, found)))


def _centres_of_block(found: Sequence[JointSolution], block: JointRows) -> tuple[ReplicateCentres, ...]:
    every = [SolutionRows(solution, block) for solution in found]
    return tuple(_varying_centres(rows) if rows.criterion.full_risk else _loss_centres(rows) for rows in every)


def _fixed_centres(solution: JointSolution) -> ReplicateCentres:
    """Those where nothing but w varies over the replicates."""
    levels = solution.levels
    gradient = 2 * solution.equations.variance_gradient[None]
    return ReplicateCentres(
        loss=solution.loss_gradient[None],
        of_tilt=gradient,
        of_measure=np.zeros_like(gradient),
        M=levels.centres.M.T,
        R=levels.centres.R.T,
        M_slope=levels.tilted_slope[None],
        R_slope=-levels.bias_slope[None],
    )


def _loss_centres(rows: SolutionRows) -> ReplicateCentres:
    """Those of the objective without V, from the rows of a block."""
    gradients = [loss_gradients(rows, at) for _, _, at in rows.rows.replicated.blocks()]
    loss = np.concatenate(gradients) / rows.solution.count
    none = np.zeros((1, 0))
    return ReplicateCentres(loss=loss, of_tilt=none, of_measure=none, M=none, R=none, M_slope=none, R_slope=none)


def _varying_centres(rows: SolutionRows) -> ReplicateCentres:
    """Those where the tilt varies, from the rows of a block."""
    n_rep, found = rows.solution.count, []
    for _, _, at in rows.rows.replicated.blocks():
        of_tilt, of_measure = variance_gradients(rows, at)
        found.append((2 * of_tilt, 2 * of_measure, *_moved_centres(rows, at)))
    none = np.zeros((1, 0))
    return ReplicateCentres(none, *(np.concatenate(parts) / n_rep for parts in zip(*found, strict=True)))


def _moved_centres(rows: SolutionRows, at: ImportanceWeights) -> tuple[Array, Array, Array, Array]:
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


@dataclass(frozen=True)
class KnownScoreSums:
    """What the equations of theta need at known propensity scores; rows in the order of the sample.

    Parameters
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

    w_times_slope: Array
    w_times_u: Array
    centre_risk: RowVectors
    centre_loss: RowVectors
    centre_variance: RowVectors
    moved_M: Array
    moved_R: Array
    moved_M_slope: RowVectors
    moved_R_slope: RowVectors


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


def known_score_sums(rows: SolutionRows, centres: ReplicateCentres, products: Array | None = None) -> KnownScoreSums:
    """Collect what is needed where the propensity scores are known; the `weight_products` may be given."""
    solution, fitted = rows.solution, rows.resampled.at
    products = weight_products([solution], rows.rows)[0] if products is None else products
    risk = (solution.u[..., None] * solution.root[:, None] * solution.u_whitened).sum(axis=0)
    full_risk, separable = solution.criterion.full_risk, rows.rows.replicated.model.target.separable
    sums = _OverReplicates(rows.sample.n, *solution.theta.shape)
    sums.risk += RowVectors.over_replicates(fitted.measure, risk[:1])
    if full_risk:
        sums.loss += RowVectors.over_replicates(fitted.measure, solution.loss_gradient[None])
    if full_risk and separable:  # nothing but w varies over the replicates
        sums.add(rows.resampled.moments.mean, slice(0, 1), risk[1:].sum(axis=0, keepdims=True), centres)
    else:
        for _, replicates, at in rows.rows.replicated.blocks():
            sums.add(at, replicates, risk[1:][replicates], centres)
    return KnownScoreSums(
        w_times_slope=products[:-1],
        w_times_u=products[-1],
        centre_risk=sums.risk,
        centre_loss=sums.loss,
        centre_variance=sums.variance,
        moved_M=sums.M,
        moved_R=sums.R,
        moved_M_slope=sums.M_slope,
        moved_R_slope=sums.R_slope,
    )


class _OverReplicates:
    """Sums over the replicates of tilt or measure of each row times what is centred; as in `KnownScoreSums`."""

    def __init__(self, n: int, n_arms: int, p: int) -> None:
        none = RowVectors.none(n, n_arms * p)
        self.risk = self.loss = self.variance = self.M_slope = self.R_slope = none
        self.M, self.R = np.zeros((2, n_arms, n))

    def add(self, at: ImportanceWeights, replicates: slice, risk: Array, centres: ReplicateCentres) -> None:
        """Add some replicates, whose part of the risk is given."""
        over, tilt, measure = RowVectors.over_replicates, at.tilt, at.measure
        self.risk += over(measure, risk)
        if not centres.M.size:
            self.loss += over(measure, centres.loss[replicates])
            return
        self.variance += over(tilt, centres.of_tilt[replicates]) + over(measure, centres.of_measure[replicates])
        self.M += over_replicates(tilt, centres.M[replicates]).T
        self.R += over_replicates(measure, centres.R[replicates]).T
        for_M, for_R = (slope[replicates] for slope in (centres.M_slope, centres.R_slope))
        self.M_slope += over(tilt, for_M.reshape(len(for_M), -1))
        self.R_slope += over(measure, for_R.reshape(len(for_R), -1))


def with_fitted(fitted: ImportanceWeights, replicated: BlockwiseWeights) -> Iterator[tuple[slice, ImportanceWeights]]:
    """Yield the fitted score as number 0, then blocks of the replicates."""
    yield slice(0, 1), fitted
    for _, columns, at in replicated.blocks():
        yield slice(columns.start + 1, columns.stop + 1), at


def over_replicates(measure: Array, values: Array) -> Array:
    """Sum over replicates of a measure, (n, b) or the same (n, 1) for all, times values (b, k); shape (n, k)."""
    return measure * values.sum(axis=0) if measure.shape[1] == 1 else measure @ values


def loss_gradients(rows: SolutionRows, at: ImportanceWeights) -> Array:
    """Gradient of the losses under each replicate, shape (b, K p); a sum over rows."""
    own = -(rows.criterion.alpha_sigma2 * rows.share * rows.score)[:, None] * rows.q
    w = at.w
    return np.concatenate([w[members].T @ own[members] for members in rows.sample.slices], axis=1)


def variance_gradients(rows: SolutionRows, at: ImportanceWeights) -> tuple[Array, Array]:
    """Gradient of V / 2 from each replicate, shape (b, K p): sums over rows of a target frame, and over the others."""
    variance, sample, q = rows.variance, rows.sample, rows.q
    share, w = variance.share, at.w
    psi, factors = [], []
    for a, members in enumerate(sample.slices):
        value = at.tilt * (rows.counted[a][:, None] - variance.M[a]) - at.measure * variance.R[a]
        value = value * np.ones_like(w)
        value[members] -= w[members] * rows.error[members, None]
        factor = at.tilt * rows.deriv[a][:, None] * np.ones_like(w)
        factor[members] = -at.excess[members] * rows.deriv[a][members, None]
        psi.append(value)
        factors.append(factor)
    pulled = share * np.tensordot(variance.D, np.stack(psi), axes=1)
    gradients = []
    for part in (slice(0, sample.n_frame), slice(sample.n_frame, sample.n)):
        blocks = []
        for a, factor in enumerate(factors):
            gradient = (pulled[a][part] * factor[part]).T @ q[part]
            for f, centre in variance.centring(at):
                gradient -= (pulled[a][part] * f[part]).sum(axis=0)[:, None] * centre[a].T
            blocks.append(gradient)
        gradients.append(np.concatenate(blocks, axis=1))
    return gradients[0], gradients[1]


def objective_gradients(rows: SolutionRows) -> Callable[[ImportanceWeights], Array]:
    """How the gradient of the losses or of V / 2 under each replicate, shape (b, K p), follows from its weights."""
    if not rows.criterion.full_risk:
        return lambda at: loss_gradients(rows, at)
    if not rows.rows.replicated.model.target.separable:
        return lambda at: np.add(*variance_gradients(rows, at))
    return _fixed_tilt_gradients(rows)


def _fixed_tilt_gradients(rows: SolutionRows) -> Callable[[ImportanceWeights], Array]:
    """`variance_gradients` where only w varies over the replicates: a quadratic in w, so that its terms are products.

    With k the arm of a row, psi_a = base_a + 1{a = k} w e and psi'_a = (t - 1{a = k} w) m_a' q - t C_a.
    """
    variance, sample, q = rows.variance, rows.sample, rows.q
    tilt, share, error = variance.moments.mean.tilt[:, 0], rows.share, -rows.error
    base = tilt * (rows.counted - variance.M - variance.R)
    pulled, (_, centres) = variance.D @ base, variance.centring(variance.moments.mean)[0]
    constant, linear, square = [], [], np.empty(q.shape)
    for a, members in enumerate(sample.slices):
        centre, factor = centres[a, :, 0], tilt * rows.deriv[a]
        own = variance.D[a, sample.arm] * error  # what w adds to D psi
        constant.append((share * pulled[a] * factor) @ q - (share * pulled[a] * tilt).sum() * centre)
        by_column, by_centre = share * own * factor, share * own * tilt
        by_column[members] -= (share * rows.deriv[a] * pulled[a])[members]
        linear.append(by_column[:, None] * q - by_centre[:, None] * centre)
        square[members] = -(share * own * rows.deriv[a])[members, None] * q[members]
    of_w = np.concatenate(linear, axis=1)

    def gradients(at: ImportanceWeights) -> Array:
        w = at.w
        squares = [(w[members] ** 2).T @ square[members] for members in sample.slices]
        return np.asarray(np.concatenate(constant) + w.T @ of_w + np.concatenate(squares, axis=1))

    return gradients
