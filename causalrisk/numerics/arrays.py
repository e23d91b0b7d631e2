"""Linear algebra on stacks of small problems, and work on blocks of rows: chunks of Dask arrays, sums over blocks.

Least squares uses an orthonormal basis of the design, which loses no digits. Coefficients of the original columns are
recovered once, at the end.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.linalg.blas import dtrsm

Array = NDArray[np.float64]
Arms = NDArray[np.signedinteger[Any]]
Numbers = NDArray[np.intp]
IN_CACHE = 4096  # rows of a block that stays in the processor's cache
MANY, WIDE = 8, 50  # fewest columns of weights, and most columns, for which products of pairs of columns are faster
SMALL_PIVOT = 1e-4  # ratio of a Cholesky factor's smallest to largest pivot at which eigenvalues are computed
STEEP = 100.0  # condition number above which one pass does not make columns orthonormal to rounding error


@dataclass(frozen=True)
class Basis:
    """Orthonormal columns spanning a design matrix: X - shift = Q R, with sum_i s_i q_i q_i' = N times the identity.

    `columns` (n, p) is Q. `factor` (p, p) is R, which is upper triangular. N is the sum of the weights s. `shift` (p,)
    has the multiples of the constant column, at position `constant`, that are subtracted from the columns of X.
    """

    columns: Array
    factor: Array
    shift: Array
    constant: int

    def coefficients(self, z: Array) -> Array:
        """Turn coefficients `z` (p, ...) of the basis into coefficients of the original columns, of the same shape."""
        beta = solve_triangular(self.factor, z, check_finite=False)
        beta[self.constant] -= np.tensordot(self.shift, beta, axes=(0, 0))
        return beta

    def of_rows(self, X: Array) -> Array:
        """Return rows Q of the basis, shape (m, p), for rows X of the original columns: X - shift = Q R."""
        columns = np.array(X, order="F")  # most work goes column by column
        columns -= np.multiply.outer(columns[:, self.constant], self.shift)
        return solved_rows(columns, self.factor)


def plain_basis(X: Array) -> Basis:
    """Return the columns, unchanged, as a `Basis`."""
    p = X.shape[1]
    return Basis(np.ascontiguousarray(X), np.eye(p), np.zeros(p), 0)


def triangular_factor(rows: Array, root: Array | None = None) -> Array:
    """Return the upper triangular matrix R with R'R = A'A, computed in blocks. A is diag(`root`) `rows`."""
    factors = []
    for block in row_blocks(len(rows)):
        part = rows[block] if root is None else rows[block] * root[block, None]
        factors.append(np.linalg.qr(part, mode="r"))
    return np.asarray(factors[0] if len(factors) == 1 else np.linalg.qr(np.concatenate(factors), mode="r"))


def orthonormal_basis(X: Array, weights: Array) -> Basis:
    """Return a basis of the columns of full-rank X (n, p), orthonormal under positive row weights."""
    total, columns = float(weights.sum()), np.array(X, order="F")
    steady = np.flatnonzero((X[0] == X).all(axis=0) & (X[0] != 0))
    constant, shift = int(steady[0]) if steady.size else 0, np.zeros(X.shape[1])
    if steady.size:
        shift = weights @ columns / total / X[0, constant]
        shift[constant] = 0.0
        columns -= np.multiply.outer(columns[:, constant], shift)
    columns, factor = _orthonormalised(columns, weights, total)
    # Solving by R loses orthogonality in proportion to the condition number; a second pass begins from columns that are
    # nearly orthonormal.
    if np.linalg.cond(factor) > STEEP:
        columns, again = _orthonormalised(columns, weights, total)
        factor = again @ factor
    return Basis(columns, factor, shift, constant)


def _orthonormalised(columns: Array, weights: Array, total: float) -> tuple[Array, Array]:
    factor = triangular_factor(columns, np.sqrt(weights))
    # With these signs, the first basis column of a design with a constant is the constant itself.
    factor *= (np.where(np.diag(factor) < 0, -1.0, 1.0) / np.sqrt(total))[:, None]
    return solved_rows(columns, factor), factor


def solved_rows(columns: Array, factor: Array) -> Array:
    """Return the rows q with q R = c for each row c of `columns` (n, p), where R is `factor`."""
    return np.asarray(dtrsm(1.0, factor, columns, side=1))


def factored_basis(triangle: Array, origin: Array, constant: int | None) -> Basis:
    """Return the result of `orthonormal_basis`, without `columns`, for rows that are not in memory at once.

    `triangle` (p + 1, p + 1) is the triangular factor of the columns (1, X - origin), each row times the root of its
    weight. `origin` (p,) is near the mean of each column.
    """
    p, unit = len(origin), triangle[0, 0]
    columns, shift = triangle[:, 1:] + triangle[:, [0]] * origin, np.zeros(p)
    if constant is not None:
        # The first row of the triangle belongs to the ones: it has the means times `unit`, and centring removes it
        # from all columns but the constant.
        shift = (origin + triangle[0, 1:] / unit) / origin[constant]
        shift[constant] = 0.0
        columns = np.vstack([np.zeros((1, p)), triangle[1:, 1:]])
        columns[:, constant] = 0.0
        columns[0, constant] = unit * origin[constant]
    r = triangular_factor(columns)
    sign, scale = np.where(np.diag(r) < 0, -1.0, 1.0), abs(unit)
    return Basis(np.empty((0, p)), r * (sign / scale)[:, None], shift, constant or 0)


def weighted_gram(columns: Array, weights: Array) -> Array:
    """Return the weighted sum over rows of x_i x_i', shape (p, p), for `columns` (n, p) with rows x_i."""
    return (columns * weights[:, None]).T @ columns


def weighted_grams(columns: Array, weights: Array) -> Array:
    """Return the Gram matrices sum_i w_im x_i x_i', shape (m, p, p), one for each column of `weights` (n, m)."""
    p, turned = columns.shape[1], columns.T
    if p > WIDE and (weights >= 0).all():  # a symmetric product, at half the time
        return np.stack([root @ root.T for root in (turned * np.sqrt(of) for of in weights.T)])
    if weights.shape[1] < MANY or p > WIDE:
        return np.stack([(turned * of) @ columns for of in weights.T])
    turned = np.ascontiguousarray(turned)
    pairs = np.concatenate([turned[j] * turned[j:] for j in range(p)])
    i, j = np.triu_indices(p)
    full = np.empty((weights.shape[1], p, p))
    full[:, i, j] = full[:, j, i] = (pairs @ weights).T
    return full


def inverse_or_nan(matrix: Array) -> Array:
    """Return the inverse of a matrix, or NaN if the matrix is singular, for example after a fit that diverged."""
    try:
        return np.asarray(np.linalg.inv(matrix))
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)


def solve_definite(matrices: Array, right: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solve positive definite systems (m, p, p). Return the solutions, and a mask (m,) of singular systems."""
    squares = np.where(np.isfinite(matrices).all(axis=(1, 2), keepdims=True), matrices, 0.0)
    try:  # pivots show whether matrices are far from singular, faster than eigenvalues
        pivots = np.diagonal(np.linalg.cholesky(squares), axis1=1, axis2=2)
        if (pivots.min(axis=1) > SMALL_PIVOT * pivots.max(axis=1)).all():
            solutions = np.asarray(np.linalg.solve(squares, right.T[:, :, None])[:, :, 0].T)
            return solutions, np.zeros(len(squares), dtype=np.bool_)
    except np.linalg.LinAlgError:
        pass
    values = np.linalg.eigvalsh(squares)
    # The negated ">" is also true for zeros, which replace a matrix that is not finite.
    singular = ~(values[:, 0] > values[:, -1] * (matrices.shape[1] * 1e-14))
    squares[singular] = np.eye(matrices.shape[1])
    solutions = np.linalg.solve(squares, right.T[:, :, None])[:, :, 0].T
    return np.where(singular, np.nan, solutions), singular


def symmetric_root(matrix: Array) -> Array:
    """Return the symmetric root of a covariance matrix (d, d). It does not depend on the signs of eigenvectors."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


# --- parts of the rows -----------------------------------------------------------------------------------------------

T = TypeVar("T")


def row_blocks(n: int, size: int = IN_CACHE) -> list[slice]:
    """Split n rows into slices of `size` rows, at least one slice. By default, a slice fits in the cache."""
    return [slice(first, min(first + size, n)) for first in range(0, max(n, 1), size)]


def is_dask(array: Any) -> bool:
    """Return whether an array is a Dask array, whose rows may not fit in memory."""
    return hasattr(array, "compute")


def load_all(arrays: Iterable[Any]) -> list[Any]:
    """Return arrays in memory, after computing all Dask arrays together."""
    found = list(arrays)
    if any(map(is_dask, found)):
        import dask

        found = [*dask.compute(*found)]
    return found


def loaded(array: Any) -> Any:
    """Return an array in memory, after computing it if it is a Dask array."""
    return array.compute() if is_dask(array) else array


def chunk_sizes(rows: Any) -> tuple[int, ...]:
    """Return the numbers of rows of the chunks of a Dask array."""
    return tuple(rows.chunks[0])


def chunks_of(rows: Any) -> list[Any]:
    """Return the chunks of rows of a Dask array as delayed objects."""
    return list(rows.rechunk({axis: -1 for axis in range(1, rows.ndim)}).to_delayed().ravel())


def in_chunks(function: Callable[..., T], chunks: Sequence[Any], whole: Any, *given: Any) -> list[T]:
    """Return a list of function(chunk, *given) for delayed chunks or, without chunks, of function(whole, *given)."""
    if not chunks:
        return [function(whole, *given)]
    import dask

    return list(dask.compute(*_delayed(function, chunks, *given)))


def lazy_rows(
    function: Callable[..., Array], chunks: Sequence[Any], shapes: Sequence[tuple[int, ...]], *given: Any
) -> Any:
    """Return a function's values for all rows as a Dask array, evaluated chunk by chunk as in `in_chunks`."""
    import dask.array as da

    parts = _delayed(function, chunks, *given)
    return da.concatenate([da.from_delayed(*each, float) for each in zip(parts, shapes, strict=True)])


def _delayed(function: Callable[..., Any], chunks: Sequence[Any], *given: Any) -> list[Any]:
    import dask

    work = dask.delayed(functools.partial(_quietly, function), pure=False)
    columns = [chunks_of(each) if is_dask(each) else [each] * len(chunks) for each in given]
    return [work(*each) for each in zip(chunks, *columns, strict=True)]


def _quietly(function: Callable[..., T], *given: Any) -> T:
    with np.errstate(all="ignore"):  # threads do not inherit the caller's setting
        return function(*given)


def add_up(parts: Iterable[T]) -> T:
    """Add up results of blocks of rows: arrays, containers of arrays, or objects with a method `merged`."""
    return functools.reduce(_added, parts)


def _added(first: Any, second: Any) -> Any:
    if isinstance(first, tuple | list):
        return type(first)(_added(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict):
        return {key: _added(value, second[key]) for key, value in first.items()}
    return first.merged(second) if hasattr(first, "merged") else first + second


def taken(record: T, which: Any, *names: str) -> T:
    """Return a copy of a dataclass whose named arrays, unless None, are indexed by `which`."""
    found: dict[int, Any] = {id(None): None}
    for name in names:
        array = getattr(record, name)
        if id(array) not in found:
            found[id(array)] = array[which]
    return dataclasses.replace(record, **{name: found[id(getattr(record, name))] for name in names})  # type: ignore[type-var]
