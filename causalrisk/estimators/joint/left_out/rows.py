"""The joint solution without each row in turn, without refitting.

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

from causalrisk.estimators.joint.replicate_sums import KnownScoreSums
from causalrisk.estimators.joint.row_vectors import RowVectors
from causalrisk.estimators.joint.solution import JointSolution, SolutionRows
from causalrisk.estimators.joint.variance import EffectVariance
from causalrisk.numerics.linalg import Array, solve_each

SINGULAR = 1e-12  # determinant below which a row's directions leave nothing to solve


@dataclass(frozen=True)
class RowParts:
    """What each row has in gradient and Hessian, in coordinates where the Hessian is `inner`.

    Parameters
    ----------
    column : ndarray, shape (K p, n)
        The row's outcome column, in the place of its arm.
    deriv : ndarray, shape (n,)
        Its m'.
    fit : ndarray, shape (n,)
        Weight of the column's square in the losses and the part `own_sd` of V.
    pull : ndarray, shape (K p, n)
        sum_b lambda_b w_ib times the slope of the contrast of its arm.
    slopes : list of ndarray, shape (K p, n)
        Derivatives of the contrasts of psi, for each part of the moments.
    gradient : ndarray, shape (K p, n)
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
    slopes: list[Array]
    gradient: Array
    squares: Array
    error: Array

    @classmethod
    def of(cls, rows: SolutionRows, sums: KnownScoreSums, terms: tuple[RowVectors, RowVectors]) -> RowParts:
        """Return the parts of rows at a solution; `terms` are those of its gradient, plain and whitened."""
        sample, criterion, variance = rows.sample, rows.criterion, rows.variance
        columns, whitener = rows.columns, rows.solution.hessian.whitener
        fit, slopes = rows.loss_w * rows.expected, []
        if criterion.full_risk:
            fit = fit + variance.own_terms(rows.own_deriv[:, None])[0][:, 0]
            slopes = [whitener @ of.written(columns) for of in variance_slopes(variance, criterion.contrasts)]
        moments = rows.resampled.moments
        mean_square = sum((part.w[:, 0] ** 2 for part in moments.parts), moments.own_sd[:, 0] ** 2)
        squares = criterion.fitted_penalty * rows.weight_fit.w**2 + criterion.penalty * mean_square
        own = RowVectors.of_columns(sample.indicators.T, len(columns))
        plain, whitened = (of.written(columns) for of in terms)
        return cls(
            column=whitener @ own.written(columns),
            deriv=rows.own_deriv,
            fit=fit,
            pull=sums.w_times_slope,
            slopes=slopes,
            gradient=whitener @ plain + whitened,
            squares=squares * variance.D[sample.arm, sample.arm],
            error=rows.error,
        )


def steps_without_rows(solution: JointSolution, parts: RowParts, shares: Array) -> Array:
    """How theta moves without each row of a share, shape (n,): R times the steps, (K p, n)."""
    inverse = None if solution.hessian.plain else np.linalg.inv(solution.hessian.inner)

    def solved(vectors: Array) -> Array:
        return vectors if inverse is None else inverse @ vectors

    directions = [parts.column, parts.pull, *parts.slopes]
    moved, size = [solved(vectors) for vectors in directions], len(directions)
    products = np.empty((size, size, len(shares)))
    for i in range(size):
        for k in range(i + 1):
            products[i, k] = products[k, i] = dots(moved[i], directions[k])
    right = shares * parts.gradient
    right -= shares**2 * parts.squares * parts.error * parts.deriv * parts.column
    own = shares * parts.fit - shares**2 * parts.squares * parts.deriv**2
    cross = shares * parts.deriv

    def change(values: Array) -> Array:
        """Multiply values (size, ..., n) by what the Hessian loses within U, of U' change U."""
        changed = shares * values
        changed[0] = own * values[0] + cross * values[1]
        changed[1] = cross * values[0]
        return changed

    inner = np.eye(size)[:, :, None] - change(products).swapaxes(0, 1)
    within = solve_each(inner, np.stack([dots(vectors, right) for vectors in moved]), SINGULAR)
    step = solved(right)
    for weight, vectors in zip(change(within), moved, strict=True):
        step = step + weight * vectors
    return step


def dots(one: Array, other: Array) -> Array:
    """Scalar products of columns, shape (n,)."""
    return np.einsum("kn,kn->n", one, other)


def variance_slopes(variance: EffectVariance, contrasts: Array) -> list[RowVectors]:
    """Return the derivatives of the contrasts of psi, for a part of the moments and a contrast each."""
    return [variance.weighted_slopes(part, of[:, None]) for part in variance.parts for of in contrasts]
