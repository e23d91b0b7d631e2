"""The joint solution without each unit in turn, without refitting.

Flows in: the solution, sums over its replicates, the units. Flows out: how far theta moves without each unit, at the
fitted propensity scores and replicates. For linear outcome models it is exact; for others a Newton step.

Without the unit, whose rows have the shares eps_i, gradient and Hessian of the objective lose the rows' own parts. The
net biases are means over rows, so that their squares lose more than a sum would: with u_ib the row's part of u_b,

    lambda_b (u_b - sum_i eps_i u_ib)^2 = lambda_b (u_b^2 - 2 u_b sum_i eps_i u_ib + (sum_i eps_i u_ib)^2).

u_ib is a multiple of the row's own column, for every b, so that a row changes the Hessian by few directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.joint.replicate_sums import KnownScoreSums, with_fitted
from causalrisk.estimators.joint.solution import JointSolution, SolutionRows
from causalrisk.estimators.joint.variance import EffectVariance
from causalrisk.numerics.linalg import Array, solve_each

SINGULAR = 1e-12  # determinant below which a row's directions leave nothing to solve


@dataclass(frozen=True)
class RowParts:
    """What each row has in gradient and Hessian, in coordinates where the Hessian is `inner`.

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
    squares : ndarray, shape (n,)
        sum_b lambda_b w_ib^2 times the squared contrasts of its arm.
    error : ndarray, shape (n,)
        m - y.
    """

    column: Array
    deriv: Array
    fit: Array
    pull: Array
    slopes: Array
    gradient: Array
    squares: Array
    error: Array

    @classmethod
    def of(cls, rows: SolutionRows, sums: KnownScoreSums, terms: tuple[Array, Array]) -> RowParts:
        """Return the parts of rows at a solution; `terms` are those of its gradient, plain and whitened."""
        sample, criterion, variance = rows.sample, rows.criterion, rows.variance
        whiten = rows.solution.hessian.whiten
        fit = rows.loss_w * rows.expected
        slopes = np.zeros((sample.n, 0, rows.solution.theta.size))
        if criterion.full_risk:
            fit = fit + variance.own_terms(rows.own_deriv[:, None])[0][:, 0]
            own = variance_slopes(variance, criterion.contrasts)
            slopes = np.stack([whiten(row.T).T for row in own], axis=1)
        moments = rows.resampled.moments
        mean_square = sum((part.w[:, 0] ** 2 for part in moments.parts), moments.own_sd[:, 0] ** 2)
        squares = criterion.fitted_penalty * rows.weight_fit.w**2 + criterion.penalty * mean_square
        return cls(
            column=whiten(sample.blocks(rows.q).reshape(sample.n, -1).T).T,
            deriv=rows.own_deriv,
            fit=fit,
            pull=sums.w_times_slope,
            slopes=slopes,
            gradient=whiten(terms[0].T).T + terms[1],
            squares=squares * variance.D[sample.arm, sample.arm],
            error=rows.error,
        )


def steps_without_rows(solution: JointSolution, parts: RowParts, shares: Array) -> Array:
    """How theta moves without each row of a share, shapes (n,); (n, K p)."""
    inverse = None if solution.hessian.plain else np.linalg.inv(solution.hessian.inner)

    def solved(rows: Array) -> Array:
        return rows if inverse is None else rows @ inverse

    directions = [parts.column, parts.pull, *parts.slopes.transpose(1, 0, 2)]
    moved, size = [solved(rows) for rows in directions], len(directions)
    products = np.empty((size, size, len(shares)))
    for i in range(size):
        for k in range(i + 1):
            products[i, k] = products[k, i] = np.einsum("nk,nk->n", moved[i], directions[k])
    right = shares[:, None] * parts.gradient
    right -= (shares**2 * parts.squares * parts.error * parts.deriv)[:, None] * parts.column
    own = shares * parts.fit - shares**2 * parts.squares * parts.deriv**2
    cross = shares * parts.deriv

    def change(values: Array) -> Array:
        """Multiply values (size, ..., n) by what the Hessian loses within U, of U' change U."""
        changed = shares * values
        changed[0] = own * values[0] + cross * values[1]
        changed[1] = cross * values[0]
        return changed

    inner = np.eye(size)[:, :, None] - change(products).swapaxes(0, 1)
    within = solve_each(inner, np.stack([np.einsum("nk,nk->n", rows, right) for rows in moved]), SINGULAR)
    step = solved(right)
    for weight, rows in zip(change(within), moved, strict=True):
        step = step + weight[:, None] * rows
    return solution.hessian.unwhiten(step.T).T


def steps_without_clusters(rows: SolutionRows, parts: RowParts, shares: Array, codes: NDArray[np.intp]) -> Array:
    """How theta moves without each cluster of all rows, shape (G, K p); shares and codes of the rows, shape (n,)."""
    solution = rows.solution
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    own = (shares * parts.deriv)[:, None] * parts.column
    hessian = np.repeat(solution.hessian.inner[None], len(members), axis=0)
    right = np.stack([shares[group] @ parts.gradient[group] for group in members])
    for g, group in enumerate(members):
        column, slopes = parts.column[group], parts.slopes[group].reshape(-1, hessian.shape[1])
        cross = own[group].T @ parts.pull[group]
        hessian[g] -= (shares * parts.fit)[group] * column.T @ column + cross + cross.T
        hessian[g] -= np.repeat(shares[group], parts.slopes.shape[1]) * slopes.T @ slopes
    contrasts = solution.criterion.contrasts[:, rows.sample.arm]
    bias = shares * parts.error
    for columns, at in with_fitted(rows.resampled.at, rows.rows.replicated):
        w, penalties = at.w, solution.penalties[columns]
        for contrast in contrasts:
            for g, group in enumerate(members):
                of_rows = (contrast[group, None] * w[group]).T
                slope = of_rows @ own[group]
                hessian[g] += penalties * slope.T @ slope
                right[g] -= (penalties * (of_rows @ bias[group])) @ slope
    hessian[np.abs(np.linalg.det(hessian)) < SINGULAR] = np.eye(hessian.shape[1])
    step = np.asarray(np.linalg.solve(hessian, right[:, :, None])[:, :, 0], dtype=float)
    return solution.hessian.unwhiten(step.T).T


def variance_slopes(variance: EffectVariance, contrasts: Array) -> list[Array]:
    """Return the derivatives of the contrasts of psi, for a part of the moments and a contrast each, shape (n, K p)."""
    rows = []
    for part in variance.parts:
        slopes = [variance.slopes(part, a) for a in range(len(variance.slices))]
        rows += [np.column_stack([c * s for c, s in zip(contrast, slopes, strict=True)]) for contrast in contrasts]
    return rows
