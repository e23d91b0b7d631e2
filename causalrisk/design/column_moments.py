"""Moments of a design's columns: their limits, and a triangular factor for each arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.rank import Dependence, check_magnitude, dependences, factor_facts, note_columns
from causalrisk.numerics.linalg import IN_CACHE, Array, Basis, factored_basis, row_blocks, triangular_factor

ROWS_A_COLUMN = 4  # least rows of an arm in a block, for each column: factors are then smaller than the rows


@dataclass(frozen=True)
class ColumnMoments:
    """Columns of a design over rows: a triangular factor for each arm, and their limits.

    Parameters
    ----------
    origin : ndarray, shape (p,)
        Numbers subtracted from the columns, so that columns far from zero lose no digits.
    low, high : ndarray, shape (K, p)
        Limits of the columns in each arm.
    triangles : tuple of ndarray
        For each arm the factor of the columns (1, columns - origin), rows times the root of their weights.
    rows : ndarray of int, shape (K,)
        Rows of each arm.
    nonzero : ndarray of int, shape (K, p)
        Rows in which a column is not zero.
    """

    origin: Array
    low: Array
    high: Array
    triangles: tuple[Array, ...]
    rows: NDArray[np.intp]
    nonzero: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        columns: Array,
        arm: NDArray[np.signedinteger[Any]] | None = None,
        n_arms: int = 1,
        *,
        origin: Array | None = None,
        weights: Array | None = None,
    ) -> ColumnMoments:
        """Return the moments of columns, shape (n, p).

        Parameters
        ----------
        columns : ndarray, shape (n, p)
            All columns, of finite numbers.
        arm : ndarray of int, shape (n,), optional
            Arm of each row; by default there is one.
        n_arms : int, default 1
            K.
        origin : ndarray, shape (p,), optional
            Zero by default.
        weights : ndarray, shape (n,), optional
            Weights of the rows; one by default.
        """
        n, p = columns.shape
        origin = np.zeros(p) if origin is None else origin
        low, high = np.full((n_arms, p), np.inf), np.full((n_arms, p), -np.inf)
        count, nonzero = np.zeros(n_arms, dtype=np.intp), np.zeros((n_arms, p), dtype=np.intp)
        factors: list[list[Array]] = [[np.empty((0, p + 1))] for _ in range(n_arms)]
        for block in row_blocks(n, max(IN_CACHE, ROWS_A_COLUMN * n_arms * (p + 1))):
            for a, found in enumerate(factors):
                members = slice(None) if arm is None else np.flatnonzero(arm[block] == a)
                rows = columns[block][members]
                own = np.ones((p + 1, len(rows)))  # a row of memory for each column
                own[:p] = rows.T
                low[a] = np.minimum(low[a], own[:p].min(axis=1, initial=np.inf))
                high[a] = np.maximum(high[a], own[:p].max(axis=1, initial=-np.inf))
                count[a] += len(rows)
                nonzero[a] += np.count_nonzero(own[:p], axis=1)
                own[:p] -= origin[:, None]
                if weights is not None:
                    own *= np.sqrt(weights[block][members])
                found.append(np.asarray(np.linalg.qr(own.T, mode="r")))
        triangles = tuple(_ones_first(triangular_factor(np.concatenate(f))) for f in factors)
        return cls(origin, low, high, triangles, count, nonzero)

    def beside(self, other: ColumnMoments) -> ColumnMoments:
        """Merge with the moments of other rows."""
        pairs = zip(self.triangles, other.triangles, strict=True)
        return ColumnMoments(
            origin=self.origin,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            triangles=tuple(triangular_factor(np.vstack(pair)) for pair in pairs),
            rows=self.rows + other.rows,
            nonzero=self.nonzero + other.nonzero,
        )

    @property
    def triangle(self) -> Array:
        """Factor over all arms."""
        return self.triangles[0] if len(self.triangles) == 1 else triangular_factor(np.vstack(self.triangles))

    @property
    def limits(self) -> Array:
        """Smallest and largest value of each column, shape (p, 2)."""
        return np.column_stack([self.low.min(axis=0), self.high.max(axis=0)])

    @property
    def steady(self) -> NDArray[np.bool_]:
        """Mask of the constant columns, shape (p,)."""
        return np.asarray(self.limits[:, 0] == self.limits[:, 1])

    def arms(self) -> list[Array]:
        """For each arm, rows that have the inner products of the columns, shape (r, p)."""
        found = [self._plain(triangle) for triangle in self.triangles]
        for rows, low, high in zip(found, self.low, self.high, strict=True):
            rows[:, (low == 0) & (high == 0)] = 0.0  # exactly zero, where adding the origin leaves rounding error
        return found

    def within_arms(
        self, among: NDArray[np.bool_], exempt: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.bool_], list[Dependence]]:
        """Mark the columns that are independent within every arm, constants first, and give the others' dependences."""
        exempt = np.zeros(len(among), dtype=bool) if exempt is None else exempt
        order = [*np.flatnonzero(among & self.steady).tolist(), *np.flatnonzero(among & ~self.steady).tolist()]
        return dependences(self.arms(), order, exempt)

    def _plain(self, triangle: Array) -> Array:
        """Rows that have the inner products of the columns themselves."""
        return triangle[:, 1:] + triangle[:, [0]] * self.origin

    def usable(self, names: Sequence[str], model: str, notes: list[str], collinear: str = "drop") -> NDArray[np.bool_]:
        """Mark the columns that can have a coefficient, and note odd ones.

        Parameters
        ----------
        names : sequence of str
            Their names.
        model : {"outcome", "propensity"}
            For messages.
        notes : list of str
            Lines are appended for dependent columns, a missing constant and near-collinearity.
        collinear : {"drop", "raise"}
            Whether dependent columns are noted or refused.

        Returns
        -------
        ndarray of bool, shape (p,)
            True for the columns to keep: the earlier ones of dependent columns.

        Raises
        ------
        DesignError
            If the square of a value is no number, or columns are dependent and `collinear` is "raise".
        """
        for name, limits in zip(names, self.limits, strict=True):
            check_magnitude(limits, f"column {name!r} of the {model} model")
        triangle = self.triangle
        found = factor_facts(np.column_stack([triangle[:, 0], self._plain(triangle)]), self.steady)
        note_columns(found, names, model, notes, collinear=collinear)
        return found.keep

    def basis(self, keep: NDArray[np.bool_]) -> tuple[Basis, Array]:
        """Basis of the columns that are kept, and the constant's coordinates in it, as nearly as they have it."""
        constant = np.flatnonzero((self.steady & (self.origin != 0))[keep])
        triangle = triangular_factor(self.triangle[:, np.r_[True, keep]])
        basis = factored_basis(triangle, self.origin[keep], int(constant[0]) if constant.size else None)
        means = self.origin[keep] + triangle[0, 1:] / triangle[0, 0]
        return basis, basis.of_rows(means[None])[0]


def _ones_first(factor: Array) -> Array:
    """Put the last column, of ones, before the others.

    Were it first from the start, the rounding error of an equal column would be a direction of its own among all
    rows, and a dependent column would differ from the others by a hundred times the rounding error.
    """
    return triangular_factor(np.roll(factor, 1, axis=1))
