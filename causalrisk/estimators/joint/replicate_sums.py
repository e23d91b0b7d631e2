"""Sums over the propensity replicates at the solution, for its influence function and Monte Carlo error.

Flows in: the joint objective at its minimum. Flows out: for each row, sums over b of its importance weights times what
the estimating equations multiply them by; for each replicate, its part of the gradient. Weights are divided by the mean
measure of their replicate, which moves with the rows and with gamma: "centre" names what that takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.joint.solution import JointSolution
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.replicates import BlockwiseWeights, replicate_blocks
from causalrisk.propensity.weights import ImportanceWeights


@dataclass(frozen=True)
class KnownScoreSums:
    """What the equations of theta need at known propensity scores; rows in the order of the sample.

    Parameters
    ----------
    w_times_slope : ndarray, shape (n, K p)
        sum_b sqrt(lambda_b) w_ib times the whitened slope of the contrast of the row's arm.
    w_times_u : ndarray, shape (n,)
        sum_b lambda_b w_ib u_b of the row's arm.
    centre_risk : ndarray, shape (n, K p)
        sum_b sqrt(lambda_b) measure_ib u_b times the whitened slope.
    centre_loss : ndarray, shape (n, K p)
        Mean of the measure times the gradient of the losses.
    centre_variance : ndarray, shape (n, K p)
        2 mean_b of tilt or measure times the gradient of V / 2 from replicate b.
    moved_M, moved_R : ndarray, shape (n, K)
        mean_b t_ib M_ab and mean_b measure_ib R_ab, the centres of psi under each replicate.
    moved_M_slope, moved_R_slope : ndarray, shape (n, K, p)
        The same for their derivatives.
    """

    w_times_slope: Array
    w_times_u: Array
    centre_risk: Array
    centre_loss: Array
    centre_variance: Array
    moved_M: Array
    moved_R: Array
    moved_M_slope: Array
    moved_R_slope: Array


def weight_products(solutions: Sequence[JointSolution], replicated: BlockwiseWeights) -> list[Array]:
    """Go through the replicates once for several solutions of the same sample.

    Parameters
    ----------
    solutions : sequence of JointSolution
        The solutions.
    replicated : BlockwiseWeights
        Importance weights of the full sample under its replicates.

    Returns
    -------
    list of ndarray, shape (n, K p + 1)
        `w_times_slope` and `w_times_u` of `KnownScoreSums`, side by side, of each solution.
    """
    sample, pulls = solutions[0].sample, []
    for solution in solutions:
        slopes = solution.root[:, None] * solution.u_whitened
        columns = np.concatenate([slopes, (solution.penalties * solution.u)[..., None]], axis=2)
        pulls.append(np.tensordot(solution.criterion.contrasts.T, columns, axes=1))
    pull = np.concatenate(pulls, axis=2)
    total = np.zeros((sample.n, pull.shape[2]))
    for replicates, at in with_fitted(solutions[0].weight_fit.as_resample(), replicated):
        w = at.w
        for a, rows in enumerate(sample.slices):
            total[rows] += w[rows] @ pull[a, replicates]
    return np.split(total, len(solutions), axis=1)


def known_score_sums(
    solution: JointSolution, replicated: BlockwiseWeights, products: Array | None = None
) -> KnownScoreSums:
    """Collect what is needed where the propensity scores are known; the `weight_products` may be given."""
    sample, criterion, n_rep = solution.sample, solution.criterion, solution.replicates.count
    n, size = sample.n, solution.theta.size
    products = weight_products([solution], replicated)[0] if products is None else products
    risk = (solution.u[..., None] * solution.root[:, None] * solution.u_whitened).sum(axis=0)
    moved = _MovedCentres.zeros(sample.n, sample.n_arms, solution.q.shape[1])
    fitted, fixed_tilt = solution.weight_fit.as_resample(), replicated.model.target.separable
    if fixed_tilt and criterion.full_risk:  # nothing but w varies over the replicates
        centre_risk, centre_loss = fitted.measure * risk.sum(axis=0), fitted.measure * solution.loss_gradient
        centre_variance = 2 * fitted.tilt * solution.variance_gradient
        moved.add(solution, solution.resampled.moments.mean, 1)
    else:
        centre_risk = over_replicates(fitted.measure, risk[:1])
        centre_loss, centre_variance = np.zeros((2, n, size))
        for _, replicates, at in replicated.blocks():
            centre_risk += over_replicates(at.measure, risk[1:][replicates])
            if not criterion.full_risk:
                centre_loss += over_replicates(at.measure, loss_gradients(solution, at)) / n_rep
                continue
            of_tilt, of_measure = variance_gradients(solution, at)
            centre_variance += 2 * over_replicates(at.tilt, of_tilt) / n_rep
            centre_variance += 2 * over_replicates(at.measure, of_measure) / n_rep
            moved.add(solution, at, n_rep)
        if criterion.full_risk:
            centre_loss = fitted.measure * solution.loss_gradient
    return KnownScoreSums(
        w_times_slope=products[:, :-1],
        w_times_u=products[:, -1],
        centre_risk=centre_risk,
        centre_loss=centre_loss,
        centre_variance=centre_variance,
        moved_M=moved.M,
        moved_R=moved.R,
        moved_M_slope=moved.M_slope,
        moved_R_slope=moved.R_slope,
    )


def with_fitted(fitted: ImportanceWeights, replicated: BlockwiseWeights) -> Iterator[tuple[slice, ImportanceWeights]]:
    """Yield the fitted score as number 0, then blocks of the replicates."""
    yield slice(0, 1), fitted
    for _, columns, at in replicated.blocks():
        yield slice(columns.start + 1, columns.stop + 1), at


def over_replicates(measure: Array, values: Array) -> Array:
    """Sum over replicates of a measure, (n, b) or the same (n, 1) for all, times values (b, k); shape (n, k)."""
    return measure * values.sum(axis=0) if measure.shape[1] == 1 else measure @ values


def loss_gradients(solution: JointSolution, at: ImportanceWeights) -> Array:
    """Gradient of the losses under each replicate, shape (b, K p)."""
    rows = -(solution.criterion.alpha_sigma2 * solution.share * solution.score)[:, None] * solution.q
    w = at.w
    return np.concatenate([w[members].T @ rows[members] for members in solution.sample.slices], axis=1)


def variance_gradients(solution: JointSolution, at: ImportanceWeights) -> tuple[Array, Array]:
    """Gradient of V / 2 from each replicate: of the rows of a target frame, and of the others, shape (b, K p)."""
    variance, sample, q = solution.variance, solution.sample, solution.q
    share, w = variance.share, at.w
    psi, factors = [], []
    for a, rows in enumerate(sample.slices):
        value = at.tilt * (solution.predicted[a][:, None] - variance.M[a]) - at.measure * variance.R[a]
        value = value * np.ones_like(w)
        value[rows] -= w[rows] * solution.error[rows, None]
        factor = at.tilt * solution.deriv[a][:, None] * np.ones_like(w)
        factor[rows] = -at.excess[rows] * solution.deriv[a][rows, None]
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


def _objective_gradients(solution: JointSolution, fixed_tilt: bool) -> Callable[[ImportanceWeights], Array]:
    """How the gradient of the losses or of V / 2 under each replicate, shape (b, K p), follows from its weights."""
    if not solution.criterion.full_risk:
        return lambda at: loss_gradients(solution, at)
    if not fixed_tilt:
        return lambda at: np.add(*variance_gradients(solution, at))
    return _fixed_tilt_gradients(solution)


def _fixed_tilt_gradients(solution: JointSolution) -> Callable[[ImportanceWeights], Array]:
    """`variance_gradients` where only w varies over the replicates: a quadratic in w, so that its terms are products.

    With k the arm of a row, psi_a = base_a + 1{a = k} w e and psi'_a = (t - 1{a = k} w) m_a' q - t C_a.
    """
    variance, sample, q = solution.variance, solution.sample, solution.q
    tilt, share, error = variance.moments.mean.tilt[:, 0], solution.share, -solution.error
    base = tilt * (solution.predicted - variance.M - variance.R)
    pulled, (_, centres) = variance.D @ base, variance.centring(variance.moments.mean)[0]
    constant, linear, square = [], [], np.empty(q.shape)
    for a, rows in enumerate(sample.slices):
        centre, factor = centres[a, :, 0], tilt * solution.deriv[a]
        own = variance.D[a, sample.arm] * error  # what w adds to D psi
        constant.append((share * pulled[a] * factor) @ q - (share * pulled[a] * tilt).sum() * centre)
        by_column, by_centre = share * own * factor, share * own * tilt
        by_column[rows] -= (share * solution.deriv[a] * pulled[a])[rows]
        linear.append(by_column[:, None] * q - by_centre[:, None] * centre)
        square[rows] = -(share * own * solution.deriv[a])[rows, None] * q[rows]
    of_w = np.concatenate(linear, axis=1)

    def gradients(at: ImportanceWeights) -> Array:
        w = at.w
        squares = [(w[rows] ** 2).T @ square[rows] for rows in sample.slices]
        return np.asarray(np.concatenate(constant) + w.T @ of_w + np.concatenate(squares, axis=1))

    return gradients


@dataclass
class _MovedCentres:
    """Sums over the replicates of tilt or measure times the centres of psi under each; as in `KnownScoreSums`."""

    M: Array
    R: Array
    M_slope: Array
    R_slope: Array

    @classmethod
    def zeros(cls, n: int, n_arms: int, p: int) -> _MovedCentres:
        return cls(*np.zeros((2, n, n_arms)), *np.zeros((2, n, n_arms, p)))

    def add(self, solution: JointSolution, at: ImportanceWeights, n_rep: int) -> None:
        """Add a block of `n_rep` replicates in all."""
        share, q, w = solution.share[:, None], solution.q, at.w
        tilted, weighted = share * at.tilt / n_rep, share * w / n_rep
        for a, rows in enumerate(solution.sample.slices):
            self.M[:, [a]] += over_replicates(at.tilt, (tilted.T @ solution.predicted[a])[:, None])
            self.R[:, [a]] -= over_replicates(at.measure, (weighted[rows].T @ solution.error[rows])[:, None])
            self.M_slope[:, a] += over_replicates(at.tilt, (tilted * solution.deriv[a][:, None]).T @ q)
            own = weighted[rows] * solution.deriv[a][rows, None]
            self.R_slope[:, a] -= over_replicates(at.measure, own.T @ q[rows])


@dataclass(frozen=True)
class ReplicateSums:
    """What the influence function needs where the propensity model is estimated, and the Monte Carlo error.

    Parameters
    ----------
    known : KnownScoreSums
        What is needed at known scores.
    centre_bias : ndarray, shape (n, K)
        Mean of the measure times the biases.
    gradients : ndarray, shape (B, K p)
        Part of each replicate in the gradient of the objective: of its loss or V / 2.
    u_by_gamma : ndarray, shape (C, 1 + B, Q)
        Derivative of the net biases under a common shift of gamma.
    mean_w_by_gamma : ndarray, shape (n, Q)
        Mean of the derivative of w.
    u_times_w_by_gamma : ndarray, shape (n, Q)
        sum_b lambda_b u_b of the row's arm times the derivative of w.
    t_times_w_by_gamma, w_times_w_by_gamma : ndarray, shape (n, Q)
        Means of tilt (or measure, for a target frame) and of w, times the derivative of w.
    t_times_t_by_gamma, w_times_t_by_gamma, mean_t_by_gamma : ndarray, shape (n, Q)
        The same for the derivative of the tilt (or measure), and its mean.
    """

    known: KnownScoreSums
    centre_bias: Array
    gradients: Array
    u_by_gamma: Array
    mean_w_by_gamma: Array
    u_times_w_by_gamma: Array
    t_times_w_by_gamma: Array
    w_times_w_by_gamma: Array
    t_times_t_by_gamma: Array
    w_times_t_by_gamma: Array
    mean_t_by_gamma: Array


def replicate_sums(solution: JointSolution, replicated: BlockwiseWeights) -> ReplicateSums:
    """Go through the replicates once more, with the derivatives of the weights by gamma."""
    sample, criterion, fit = solution.sample, solution.criterion, solution.weight_fit
    model, n_rep, contrasts = fit.model, solution.replicates.count, criterion.contrasts
    n, width = sample.n, model.n_coefficients
    centre_bias, gradients = np.zeros((n, sample.n_arms)), np.zeros((n_rep, solution.theta.size))
    by_gamma = np.zeros((7, n, width))
    pull_u = contrasts.T @ (solution.penalties * solution.u)
    u_by_gamma = np.zeros((len(contrasts), 1 + n_rep, width))
    weighted = solution.share * solution.error
    u_by_gamma[:, 0] = contrasts @ np.stack([weighted[rows] @ fit.w_by_gamma[rows] for rows in sample.slices])
    by_gamma[1] = pull_u[sample.arm, 0][:, None] * fit.w_by_gamma
    moved = weighted[:, None] * model.columns
    gradients_of = _objective_gradients(solution, model.target.separable)
    for columns, eta, at in replicate_blocks(model, solution.replicates.gamma, sample.s):
        slopes, w, later = model.slopes(eta, sample.s[:, None]), at.w, slice(columns.start + 1, columns.stop + 1)
        t = np.broadcast_to(at.tilt if at.measure is at.tilt else at.tilt + at.measure, w.shape)
        biases = np.stack([w[rows].T @ weighted[rows] for rows in sample.slices], axis=1)
        centre_bias += over_replicates(at.measure, biases) / n_rep
        gradients[columns] = gradients_of(at)
        for a, rows in enumerate(sample.slices):
            of_arm = (slopes.w[:, rows].transpose(0, 2, 1) @ moved[rows]).transpose(1, 0, 2)
            u_by_gamma[:, later] += contrasts[:, a, None, None] * of_arm.reshape(w.shape[1], width)
        if slopes.log_mean is not None:
            u_by_gamma[:, later] -= solution.u[:, later, None] * slopes.log_mean.T
        share = np.full(w.shape, 1 / n_rep)
        by_gamma[0] += slopes.of_w(model.columns, w, share)
        by_gamma[1] += slopes.of_w(model.columns, w, pull_u[:, later][sample.arm])
        by_gamma[2] += slopes.of_w(model.columns, w, share * t)
        by_gamma[3] += slopes.of_w(model.columns, w, share * w)
        for k, factor in enumerate((share * t, share * w, share), start=4):
            by_gamma[k] += slopes.of_measure(model.columns, at.measure, factor)
    known = known_score_sums(solution, replicated)
    return ReplicateSums(known, centre_bias, gradients, u_by_gamma, *by_gamma)
