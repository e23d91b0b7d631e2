"""The influence function of the joint estimate, and its Monte Carlo error.

Flows in: the solution, rows, sums over its replicates. Flows out: influence functions of (effects, arm means, theta).
The gradient of the objective at the solution is a sum over rows; the part of row i, xi_i, has five terms:

    xi_i = loss_term + risk_term + variance_term + propensity_term + by_start IF_start,      IF_theta,i = -H^-1 xi_i

Held fixed are the distances of the replicates from the fitted propensity model, the penalties and what `JointCriterion`
takes from the start; the fitted propensity model and the coefficients of the start are not. Every influence function is
relative to the sample's weight.
"""

from __future__ import annotations

import numpy as np

from causalrisk.estimators.joint.propensity_derivative import PropensitySums
from causalrisk.estimators.joint.replicate_sums import (
    KnownScoreSums,
    ReplicateCentres,
    known_score_sums,
    over_replicates,
)
from causalrisk.estimators.joint.row_vectors import RowVectors, in_place
from causalrisk.estimators.joint.solution import JointSolution, SolutionRows
from causalrisk.numerics.linalg import Array


def influence_function(rows: SolutionRows, centres: ReplicateCentres, by_gamma: PropensitySums) -> Array:
    """Influence function of (effects, arm means, theta) of rows, shape (n, 2 K - 1 + K p)."""
    solution, sample, fit = rows.solution, rows.sample, rows.weight_fit
    scale, raw = solution.effect_scale, solution.raw_means
    score, whitened = (of.written(rows.columns) for of in known_terms(rows, known_score_sums(rows, centres)))
    of_score, of_whitened = propensity_term(rows, by_gamma)
    if rows.criterion.share:
        of_score = of_score + solution.by_start @ rows.rows.start.influence(sample, fit).T
    theta = -solution.hessian.solve(score + of_score, whitened + of_whitened).T
    by_arm = theta.reshape(sample.n, *solution.theta.shape)
    means = fit.tilt[:, None] * (rows.predicted.T - raw)
    means += np.einsum("ap,nap->na", solution.levels.means_slope, by_arm)
    if by_gamma.means is not None:
        means += fit.influence @ by_gamma.means.T
    common, net = _common_influence(rows, by_gamma, by_arm), solution.net_means()
    influence = (means * scale.g_slope(raw) - common[:, None]) / scale.g_slope(net)
    return np.column_stack([influence @ scale.jacobian(net).T, theta])


def known_terms(rows: SolutionRows, sums: KnownScoreSums) -> tuple[RowVectors, RowVectors]:
    """Terms of xi at known propensity scores, and the part of them that is given as R^-T xi."""
    score, whitened = risk_term(rows, sums)
    score += loss_term(rows, sums)
    return (score + variance_term(rows, sums) if rows.criterion.full_risk else score), whitened


def loss_term(rows: SolutionRows, sums: KnownScoreSums) -> RowVectors:
    """Parts of the rows in the gradient of the losses."""
    return _in_own_arm(rows, -(rows.loss_w * rows.score)) - sums.centre_loss


def risk_term(rows: SolutionRows, sums: KnownScoreSums) -> tuple[RowVectors, RowVectors]:
    """Parts of the rows in sum_b lambda_b u_b u_b': in u_b' as they are, in u_b as R^-T times it."""
    whitened = RowVectors.of_own(rows.error * sums.w_times_slope) - sums.centre_risk - sums.centre_risk
    return _in_own_arm(rows, sums.w_times_u * rows.own_deriv), whitened


def variance_term(rows: SolutionRows, sums: KnownScoreSums) -> RowVectors:
    """Parts of the rows in the gradient of V / 2: directly, and in what centres psi."""
    solution, sample, variance, psi = rows.solution, rows.sample, rows.variance, rows.solution.psi
    mean, p = rows.resampled.moments.mean, rows.q.shape[1]
    tilt, own_w = mean.tilt[:, 0], sample.indicators.T * mean.w[:, 0]
    of_tilt, of_measure = psi.tilt_pulled.sum(axis=0), psi.measure_pulled.sum(axis=0)
    _, scores = variance.own_terms(rows.own_deriv[:, None])
    term = -_in_own_arm(rows, scores[:, 0]) - sums.centre_variance
    term -= RowVectors.of_columns((of_tilt[:, None] * tilt - of_measure[:, None] * own_w) * rows.deriv, p)
    term += RowVectors.of_shared(sample.observed[None], solution.equations.variance_gradient)
    moved_M = variance.D @ (tilt * rows.counted - sums.moved_M)
    moved_R = variance.D @ (-own_w * rows.error - sums.moved_R)
    for moved, slopes in ((moved_M, psi.tilt_slope), (moved_R, psi.measure_slope)):
        term -= RowVectors.of_shared(moved, in_place(slopes.sum(axis=0)))
    term += sums.moved_M_slope.by_place(np.repeat(of_tilt, p))
    term += sums.moved_R_slope.by_place(np.repeat(of_measure, p))
    for part in variance.parts:
        term += variance.weighted_slopes(part, part.D_psi[..., 0])
    return term


def _in_own_arm(rows: SolutionRows, scale: Array) -> RowVectors:
    """Multiples, shape (n,), of the outcome columns in the place of a row's own arm."""
    return RowVectors.of_columns(rows.sample.indicators.T * scale, rows.q.shape[1])


def propensity_term(rows: SolutionRows, by_gamma: PropensitySums) -> tuple[Array, Array]:
    """Return the derivative of the gradient by gamma times IF_gamma, (K p, n), in parts as `known_terms` has them."""
    solution, influence = rows.solution, rows.weight_fit.influence.T
    of_u = np.einsum("cbk,cbq->kq", solution.root[:, None] * solution.u_whitened, by_gamma.u)
    return by_gamma.gradient @ influence, of_u @ influence


def _common_influence(rows: SolutionRows, by_gamma: PropensitySums, by_arm: Array) -> Array:
    """Influence function of the common bias on the scale of the effect, shape (n,)."""
    solution, sample = rows.solution, rows.sample
    slopes = rows.criterion.scale_slopes / sample.n_arms
    own = sample.indicators * (rows.resampled.moments.mean.w[:, 0] * rows.error)[:, None] - _centre_of_bias(rows)
    influence = own @ slopes + np.einsum("a,ap,nap->n", slopes, solution.levels.bias_slope, by_arm)
    return influence + rows.weight_fit.influence @ by_gamma.common_bias


def _centre_of_bias(rows: SolutionRows) -> Array:
    """Mean over the replicates of the measure times the biases, shape (n, K)."""
    biases, replicated = rows.solution.equations.forms[:, 1:, -1].T, rows.rows.replicated
    if replicated.model.target.separable:
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
    contrast = (jacobian[:, :, None] * solution.levels.means_slope).reshape(n_arms - 1, -1)
    penalised = solution.criterion.penalty * np.einsum("cb,cbk->bk", solution.u[:, 1:], solution.u_slope[:, 1:])
    gradient = gradients + penalised
    change = (gradient - gradient.mean(axis=0)) @ solution.hessian.solve(contrast.T)
    half, inner = solution.u_whitened[:, 1:], solution.hessian.inner
    leverage = (half * np.linalg.solve(inner, half[..., None])[..., 0]).sum(axis=(0, 2))
    return np.linalg.norm(change / (1 - np.minimum(leverage, 1 - 1e-9))[:, None], axis=0) / n_rep
