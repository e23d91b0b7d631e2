"""Linear algebra on stacks of small problems: bases, weighted Gram matrices, stacked least squares.

Least-squares problems are stated for the columns of an orthonormal basis of the design, where a Gram matrix is close to
a multiple of the identity and loses no digits; coefficients of the columns themselves are recovered once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """Orthonormal columns spanning a design matrix.

    Parameters
    ----------
    columns : ndarray, shape (n, p)
        Q with sum_i s_i q_i q_i' = N times the identity, N the sum of the weights s.
    factor : ndarray, shape (p, p)
        Upper triangular R with X - shift = Q R.
    shift : ndarray, shape (p,)
        What was subtracted from each column of X, in multiples of the constant column; zeros where there is none.
    constant : int
        Position of the constant column; of no meaning where `shift` is zero.
    """

    columns: Array
    factor: Array
    shift: Array
    constant: int

    def of(self, X: Array) -> Basis:
        """Return the same basis on other rows of the design, shape (m, p)."""
        centred = _centred(X, self.shift, self.constant)
        columns = solve_triangular(self.factor, centred.T, trans="T", check_finite=False).T
        return replace(self, columns=np.ascontiguousarray(columns))

    def coefficients(self, z: Array) -> Array:
        """Coefficients of the original columns, shape (p, ...), from those of the basis, shape (p, ...)."""
        beta = solve_triangular(self.factor, z, check_finite=False)
        beta[self.constant] -= np.tensordot(self.shift, beta, axes=(0, 0))
        return beta


def orthonormal_basis(X: Array, weights: Array) -> Basis:
    """Return an orthonormal basis of the columns of X under the observation weights.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Design of full column rank.
    weights : ndarray, shape (n,)
        Positive observation weights.

    Returns
    -------
    Basis
        Columns scaled so that their weighted mean square is one.

    Notes
    -----
    Where X has a constant column the others are centred first, so that a covariate shifted far from zero loses no
    digits.
    """
    steady = np.flatnonzero((X[0] == X).all(axis=0) & (X[0] != 0))
    constant = int(steady[0]) if steady.size else 0
    shift = np.zeros(X.shape[1])
    if steady.size:
        shift = weights @ X / weights.sum() / X[0, constant]
        shift[constant] = 0.0
    root = np.sqrt(weights)[:, None]
    q, r = np.linalg.qr(_centred(X, shift, constant) * root)
    # Signs chosen so that the first basis column of a design with a constant is the constant itself.
    sign = np.where(np.diag(r) < 0, -1.0, 1.0)
    scale = np.sqrt(weights.sum())
    return Basis(q * (sign * scale) / root, r * (sign / scale)[:, None], shift, constant)


def _centred(X: Array, shift: Array, constant: int) -> Array:
    """Subtract multiples of the constant column."""
    return X - shift * X[:, [constant]]


def factored_basis(triangle: Array, origin: Array, constant: int | None) -> Basis:
    """Return the basis of `orthonormal_basis` without rows, from what blocks of rows leave of a design.

    Parameters
    ----------
    triangle : ndarray, shape (p + 1, p + 1)
        Triangular factor of the columns (1, X - origin), each row times the root of its weight.
    origin : ndarray, shape (p,)
        What was subtracted from each column, near its mean.
    constant : int or None
        Position of the constant column, where there is one; its value is that of `origin`.

    Returns
    -------
    Basis
        With columns of shape (0, p); its `of` has them for rows.
    """
    p, unit = len(origin), triangle[0, 0]
    columns, shift = triangle[:, 1:] + triangle[:, [0]] * origin, np.zeros(p)
    if constant is not None:
        shift = (origin + triangle[0, 1:] / unit) / origin[constant]
        shift[constant] = 0.0
        columns = np.vstack([np.zeros((1, p)), triangle[1:, 1:]])
        columns[:, constant] = 0.0
        columns[0, constant] = unit * origin[constant]
    r = triangular_factor(columns)
    sign, scale = np.where(np.diag(r) < 0, -1.0, 1.0), abs(unit)
    return Basis(np.empty((0, p)), r * (sign / scale)[:, None], shift, constant or 0)


def pairwise_columns(columns: Array) -> Array:
    """Products of all pairs of columns, shape (n, p (p + 1) / 2), in the order of `numpy.triu_indices`."""
    i, j = np.triu_indices(columns.shape[1])
    return columns[:, i] * columns[:, j]


def unpack_symmetric(packed: Array, p: int) -> Array:
    """Symmetric matrices, shape (m, p, p), from their upper triangles, shape (p (p + 1) / 2, m)."""
    i, j = np.triu_indices(p)
    full = np.empty((packed.shape[1], p, p))
    full[:, i, j] = packed.T
    full[:, j, i] = packed.T
    return full


def weighted_grams(columns: Array, pairs: Array | None, weights: Array) -> Array:
    """As `gram_matrices`; without the pairs of columns, which one column of weights is not worth."""
    if pairs is not None:
        return gram_matrices(pairs, weights, columns.shape[1])
    return np.stack([(columns * w[:, None]).T @ columns for w in weights.T])


def gram_matrices(pairs: Array, weights: Array, p: int) -> Array:
    """Weighted Gram matrices sum_i w_im x_i x_i', shape (m, p, p), one for each column of the weights.

    Parameters
    ----------
    pairs : ndarray, shape (n, p (p + 1) / 2)
        `pairwise_columns` of the n x p matrix.
    weights : ndarray, shape (n, m)
        Non-negative weights.
    p : int
        Number of columns.
    """
    return unpack_symmetric(pairs.T @ weights, p)


def solve(matrix: Array, right: Array) -> Array:
    """Solve one well-conditioned system, shapes (p, p) and (p,) or (p, j)."""
    return np.asarray(np.linalg.solve(matrix, right))


def solve_or_nan(matrix: Array, right: Array) -> Array:
    """As `solve`; NaN where the system is singular, as after a fit that ran away."""
    try:
        return solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)


def spectral_equations(gram: Array) -> Array:
    """Return equations (c, h) with given sums of squares and products.

    Parameters
    ----------
    gram : ndarray, shape (m, p, p + 1)
        Sums of c c', positive semidefinite, and in the last column of c h.

    Returns
    -------
    ndarray, shape (m, p, p + 1)
        Equations that have these sums; NaN where they are not finite.
    """
    finite, p = _finite(gram), gram.shape[1]
    values, vectors = np.linalg.eigh(np.where(finite, gram, 0.0)[:, :, :p])
    roots = np.sqrt(np.clip(values, 0, None))
    left = roots[:, :, None] * vectors.transpose(0, 2, 1)
    products = np.einsum("mij,mi->mj", vectors, gram[:, :, p])
    right = np.divide(products, roots, out=np.zeros_like(products), where=roots > 0)
    return np.where(finite, np.concatenate([left, right[:, :, None]], axis=2), np.nan)


def solve_definite(matrices: Array, right: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solve a stack of symmetric positive definite systems.

    Parameters
    ----------
    matrices : ndarray, shape (m, p, p)
        Symmetric matrices, in a basis where they are near a multiple of the identity.
    right : ndarray, shape (p, m)
        Right-hand sides.

    Returns
    -------
    solutions : ndarray, shape (p, m)
        Solutions; NaN where singular.
    singular : ndarray of bool, shape (m,)
        True where a matrix is not positive definite to working precision.
    """
    values, vectors = np.linalg.eigh(np.where(_finite(matrices), matrices, 0.0))
    singular = ~(values[:, 0] > values[:, -1] * (matrices.shape[1] * 1e-14))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.einsum("mij,im->mj", vectors, right) / values
    solutions = np.einsum("mij,mj->im", vectors, scaled)
    solutions[:, singular] = np.nan
    return solutions, singular


def _finite(stack: Array) -> NDArray[np.bool_]:
    """Which matrices of a stack, shape (m, r, c), are finite throughout, shape (m, 1, 1)."""
    return np.asarray(np.isfinite(stack).all(axis=(1, 2), keepdims=True))


def solve_stacked(equations: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solve a stack of least-squares problems by QR.

    Parameters
    ----------
    equations : ndarray, shape (m, r, p + 1)
        Equation k of problem j says equations[j, k, :p] @ z = equations[j, k, p].

    Returns
    -------
    solutions : ndarray, shape (p, m)
        Least-squares solutions; NaN where singular.
    singular : ndarray of bool, shape (m,)
        True where the triangular factor has a negligible diagonal element.
    """
    left, right, singular = _triangular_systems(equations)
    solutions = solve(left, right[:, :, None])[:, :, 0].T
    solutions[:, singular] = np.nan
    return solutions, singular


def solve_curved(equations: Array, curvature: Array) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return Newton steps of sums of squares with further curvature.

    Parameters
    ----------
    equations : ndarray, shape (m, r, p + 1)
        Equation k of problem j says equations[j, k, :p] @ z = equations[j, k, p].
    curvature : ndarray, shape (m, p, p)
        The part of the Hessian that is not the Gram matrix of the equations.

    Returns
    -------
    steps : ndarray, shape (p, m)
        Newton steps; where the Hessian is not positive definite, Gauss-Newton steps, which lead downwards.
    decrease : ndarray, shape (m,)
        How much they lower the objective, twice, to second order.
    singular : ndarray of bool, shape (m,)
        True where the equations do not determine a step.
    convex : ndarray of bool, shape (m,)
        True where the Hessian is positive definite.
    """
    left, right, singular = _triangular_systems(equations)
    p = left.shape[1]
    half = np.linalg.solve(left.transpose(0, 2, 1), np.where(_finite(curvature), curvature, 0.0))
    inner = np.eye(p) + np.linalg.solve(left.transpose(0, 2, 1), half.transpose(0, 2, 1))
    values, vectors = np.linalg.eigh((inner + inner.transpose(0, 2, 1)) / 2)
    right = np.einsum("mij,mi->mj", vectors, right)
    convex = values[:, 0] > 1e-9
    scaled = right / np.where(convex[:, None], values, 1.0)
    steps = np.linalg.solve(left, np.einsum("mij,mj->mi", vectors, scaled)[:, :, None])[:, :, 0].T
    return steps, (right * scaled).sum(axis=1), singular, convex


def _triangular_systems(equations: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Triangular systems of stacked equations: left sides (m, p, p), right sides (m, p), and which are singular."""
    p = equations.shape[2] - 1
    triangle = np.asarray(np.linalg.qr(np.where(_finite(equations), equations, 0.0), mode="r"))
    diagonal = np.abs(np.diagonal(triangle[:, :p, :p], axis1=1, axis2=2))
    singular = ~(diagonal.min(axis=1) > diagonal.max(axis=1) * 1e-13)
    left = np.where(singular[:, None, None], np.eye(p), triangle[:, :p, :p])
    return left, triangle[:, :p, p], np.asarray(singular)


def triangular_factor(rows: Array) -> Array:
    """Upper triangular R with R'R = rows'rows, shape (p, p); rows, shape (r, p), of full column rank."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def triangular_equations(X: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """At most p equations, shapes (r, p) and (r,), with the least-squares solution of the weighted rows.

    Those of blocks of rows, one below the other, have the solution of all rows.
    """
    root = np.sqrt(weights)
    q, r = np.linalg.qr(X * root[:, None])
    return r, q.T @ (y * root)


def weighted_least_squares(X: Array, y: Array, weights: Array) -> Array:
    """Weighted least-squares coefficients by QR, shape (p,)."""
    return solve_triangular(*triangular_equations(X, y, weights))
