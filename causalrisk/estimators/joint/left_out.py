"""The joint solution without each unit in turn, without refitting.

Flows in: the solution, sums over its replicates, the units. Flows out: how far theta moves without each unit, at the
fitted propensity scores and replicates. For linear outcome models it is exact; for others a Newton step.

Without the unit, whose rows have the shares eps_i, gradient and Hessian of the objective lose the rows' own parts. The
net biases are means over rows, so that their squares lose more than a sum would: with g_ib the row's part of u_b,

    lambda_b (u_b - sum_i eps_i g_ib)^2 = lambda_b (u_b^2 - 2 u_b sum_i eps_i g_ib + (sum_i eps_i g_ib)^2).

g_ib is a multiple of the row's own column, for every b, so that a row changes the Hessian by few directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.replicate_sums import KnownScoreSums
from causalrisk.estimators.joint.solution import JointSolution
from causalrisk.estimators.joint.variance import EffectVariance
from causalrisk.numerics.linalg import Array

ROWS = 2048  # rows whose outer products are held at a time
SINGULAR = 1e-12  # determinant below which a row's directions leave nothing to solve


@dataclass(frozen=True)
class RowParts:
    """What each row has in gradient and Hessian, in coordinates where the Hessian is `inner`; C contrasts.

    Parameters
    ----------
    column : ndarray, shape (n, K p)
        The row's outcome column, in the place of its arm.
    deriv : ndarray, shape (n,)
        Its m'.
    fit : ndarray, shape (n,)
        Weight of the column's square in the losses and the part `own_sd` of V.
    pull : ndarray, shape (n, K p)
        sum_b lambda_b w_ib times the slope of the contrast of its arm.
    slopes : ndarray, shape (n, J, K p)
        Derivatives of the contrasts of psi, for each part of the moments.
    gradient : ndarray, shape (n, K p)
        Its part in the gradient.
    penalties : ndarray, shape (T,)
        Penalty of each weight of `weights`.
    weights : ndarray, shape (T, n, C)
        Weights whose products, summed with the penalties, are those of g_ib and g_jb over the replicates, i not j.
    alone : ndarray, shape (n,)
        What the square of the row's own adds to that.
    error : ndarray, shape (n,)
        m - y.
    """

    column: Array
    deriv: Array
    fit: Array
    pull: Array
    slopes: Array
    gradient: Array
    penalties: Array
    weights: Array
    alone: Array
    error: Array

    @classmethod
    def of(cls, solution: JointSolution, sums: KnownScoreSums, terms: tuple[Array, Array]) -> RowParts:
        """Return the parts at a solution; `terms` are those of its gradient, plain and whitened."""
        sample, criterion, variance = solution.sample, solution.criterion, solution.variance
        whiten = solution.hessian.whiten
        fit = solution.objective.loss_weights(solution.resampled)[:, 0] / solution.share * solution.expected
        slopes = np.zeros((sample.n, 0, solution.theta.size))
        if criterion.full_risk:
            fit = fit + variance.own_terms(solution.own_deriv[:, None])[0][:, 0]
            rows = variance_slopes(variance, criterion.contrasts)
            slopes = np.stack([whiten(row.T).T for row in rows], axis=1)
        moments, own = solution.resampled.moments, criterion.contrasts[:, sample.arm].T
        weights = np.stack([w[:, None] * own for w in (solution.weight_fit.w, *(p.w[:, 0] for p in moments.parts))])
        own_D = variance.D[sample.arm, sample.arm]
        return cls(
            column=whiten(sample.blocks(solution.q).reshape(sample.n, -1).T).T,
            deriv=solution.own_deriv,
            fit=fit,
            pull=sums.w_times_slope,
            slopes=slopes,
            gradient=whiten(terms[0].T).T + terms[1],
            penalties=np.r_[criterion.fitted_penalty, np.full(len(moments.parts), criterion.penalty)],
            weights=weights,
            alone=criterion.penalty * own_D * moments.own_sd[:, 0] ** 2,
            error=solution.error,
        )


def steps_without_rows(solution: JointSolution, parts: RowParts, shares: Array) -> Array:
    """How theta moves without each row of a share, shapes (n,); (n, K p)."""
    squares = np.einsum("t,tnc->n", parts.penalties, parts.weights**2) + parts.alone
    inverse = np.linalg.inv(solution.hessian.inner)
    directions = np.concatenate([parts.column[:, None], parts.pull[:, None], parts.slopes], axis=1)
    size = directions.shape[1]
    change = np.zeros((len(shares), size, size))  # the Hessian loses U' change U
    change[:, range(size), range(size)] = shares[:, None]
    change[:, 0, 0] = shares * parts.fit - shares**2 * squares * parts.deriv**2
    change[:, 1, 1] = 0.0
    change[:, 0, 1] = change[:, 1, 0] = shares * parts.deriv
    right = shares[:, None] * parts.gradient
    right -= (shares**2 * squares * parts.error * parts.deriv)[:, None] * parts.column
    moved = directions @ inverse
    inner = np.eye(size) - moved @ directions.transpose(0, 2, 1) @ change
    inner[np.abs(np.linalg.det(inner)) < SINGULAR] = np.eye(size)
    inside = change @ np.linalg.solve(inner, moved @ right[:, :, None])
    step = right @ inverse + (moved * inside).sum(axis=1)
    return solution.hessian.unwhiten(step.T).T


def steps_without_clusters(
    solution: JointSolution, parts: RowParts, shares: Array, codes: NDArray[np.intp], count: int
) -> Array:
    """How theta moves without each of `count` clusters of rows, shape (count, K p); shares and codes of shape (n,)."""
    size = parts.column.shape[1]
    own = parts.deriv[:, None] * parts.column

    def summed(rows: Array) -> Array:
        total = np.zeros((count, *rows.shape[1:]))
        np.add.at(total, codes, rows)
        return total

    hessian = np.repeat(solution.hessian.inner[None], count, axis=0)
    right = summed(shares[:, None] * parts.gradient)
    right -= summed((shares**2 * parts.alone * parts.error)[:, None] * own)
    for penalty, weights in zip(parts.penalties, parts.weights, strict=True):
        for weight in weights.T:
            slope, bias = summed((shares * weight)[:, None] * own), summed(shares * weight * parts.error)
            hessian += penalty * slope[:, :, None] * slope[:, None]
            right -= penalty * bias[:, None] * slope
    for first in range(0, len(codes), ROWS):
        rows = slice(first, first + ROWS)
        column, pull, share = parts.column[rows], parts.pull[rows], shares[rows]
        fit = share * parts.fit[rows] - share**2 * parts.alone[rows] * parts.deriv[rows] ** 2
        lost = np.einsum("n,ni,nj->nij", fit, column, column)
        cross = np.einsum("n,ni,nj->nij", share, own[rows], pull)
        lost += cross + cross.transpose(0, 2, 1)
        lost += np.einsum("n,nki,nkj->nij", share, parts.slopes[rows], parts.slopes[rows], optimize=True)
        np.subtract.at(hessian, codes[rows], lost)
    singular = np.abs(np.linalg.det(hessian)) < SINGULAR
    hessian[singular] = np.eye(size)
    step = np.asarray(np.linalg.solve(hessian, right[:, :, None])[:, :, 0], dtype=float)
    return solution.hessian.unwhiten(step.T).T


def variance_slopes(variance: EffectVariance, contrasts: Array) -> list[Array]:
    """Return the derivatives of the contrasts of psi, for a part of the moments and a contrast each, shape (n, K p)."""
    rows = []
    for part in variance.parts:
        slopes = [variance.slopes(part, a) for a in range(len(variance.slices))]
        rows += [np.column_stack([c * s for c, s in zip(contrast, slopes, strict=True)]) for contrast in contrasts]
    return rows
