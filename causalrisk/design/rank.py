"""Rank: dependent columns, over all rows and within an arm, and conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.columns.dtypes import listing
from causalrisk.errors import DesignError
from causalrisk.numerics.linalg import Array

LARGE_CONDITION = 1e7
# Sine of the angle of a column to the span of those before it, below which it is one of their combinations, for each
# unit of the columns, all of length one, in this combination: rounding leaves their errors of it. Of the indicator of
# 3 rows among 1,600 beside eighty columns it leaves 1e-13, and more the rarer it is; yet x + 1e-12 z is told from x.
ROUNDING = 1e-13
NEAR = 1e-8  # sines above this are no rounding: the least of NIST's Filip, a polynomial of degree ten, is 5e-8
ROUNDED = 1e-8  # share of a column in a combination of unit length that is none
SMALLEST, LARGEST = 1e-152, 1e152  # sizes of the largest value of a column whose squares are numbers


def check_magnitude(values: np.ndarray, what: str) -> None:
    """Raise a DesignError where the largest of the values has a square that no float holds.

    Parameters
    ----------
    values : ndarray, shape (n,)
        A column.
    what : str
        Name of the column, for the message, e.g. ``"outcome 'y'"``.
    """
    largest = float(np.abs(values).max(initial=0))
    if largest and not SMALLEST <= largest <= LARGEST:
        raise DesignError(
            f"{what} has values of the size {largest:.3g}; expected sizes from {SMALLEST:g} to {LARGEST:g}, as their "
            f"squares are needed.\nChange its unit: divide it by {largest:.1g}."
        )


def note_columns(found: ColumnFacts, names: Sequence[str], model: str, notes: list[str], *, collinear: str) -> None:
    """Note dependent columns, a missing constant and near-collinearity.

    Parameters
    ----------
    found : ColumnFacts
        Rank and conditioning of a design.
    names : sequence of str
        Names of its columns.
    model : {"outcome", "propensity"}
        For messages.
    notes : list of str
        Lines are appended.
    collinear : {"drop", "raise"}
        Whether dependent columns are noted or refused.

    Raises
    ------
    DesignError
        If columns are dependent and `collinear` is "raise".
    """
    keep = found.keep
    dropped = [name for name, kept in zip(names, keep, strict=True) if not kept]
    if dropped:
        cause = "linear combinations of the columns before (a constant column is one of the intercept)"
        if collinear == "raise":
            raise DesignError(
                f'{model} model: {listing(dropped)} in it, {cause}, and collinear="raise".\n'
                'Leave them out of the formula, or type  collinear="drop".'
            )
        notes.append(
            f"{model} model: dropped {listing(dropped)}, {cause}. Leave them out of the formula to silence this."
        )
    if not found.constant:
        notes.append(
            f"{model} model: no constant among the columns ({listing(n for n in names if n not in dropped)}). "
            "Add one, unless a model through the origin is meant."
        )
    if found.condition > LARGE_CONDITION:
        notes.append(
            f"{model} model: the columns are nearly dependent (condition number {found.condition:.2g} after centring "
            "and scaling), so coefficients may be imprecise. Leave out one of the near-duplicates."
        )


def check_arm_sizes(size: np.ndarray, labels: Sequence[str], p: int, q: int) -> None:
    """Raise a DesignError where an arm has no more observations than its outcome model has coefficients.

    Parameters
    ----------
    size : ndarray, shape (K,)
        Observations in each arm.
    labels : sequence of str
        Printed arm labels.
    p, q : int
        Coefficients of the outcome model of an arm, and of the propensity model.
    """
    noun = "coefficient" if p == 1 else "coefficients"
    for k, label in enumerate(labels):
        if size[k] <= p:
            raise DesignError(
                f"arm {label!r} has {size[k]:.0f} rows for {p} outcome {noun}; expected more rows than coefficients.\n"
                "Use fewer outcome terms, or more data."
            )
    n = size.sum()
    if n <= q:
        raise DesignError(
            f"{n:.0f} rows for {q} propensity coefficients; expected more rows than coefficients.\n"
            "Use fewer terms in propensity=, or more data."
        )


@dataclass(frozen=True)
class ColumnFacts:
    """Rank and conditioning of a design.

    Parameters
    ----------
    keep : ndarray of bool, shape (p,)
        Columns that are not linear combinations of earlier ones.
    constant : bool
        Whether the constant is a linear combination of the columns kept.
    condition : float
        Condition number of the columns kept after centring, if a constant is among them, and scaling; 1.0 for a
        constant alone.
    """

    keep: NDArray[np.bool_]
    constant: bool
    condition: float


def factor_facts(factor: Array, steady: NDArray[np.bool_]) -> ColumnFacts:
    """Find rank and conditioning from the triangular factor of a design's columns, whose angles are the same.

    Parameters
    ----------
    factor : ndarray, shape (r, 1 + p)
        Triangular factor of a column of ones and the columns of a design.
    steady : ndarray of bool, shape (p,)
        Mask of the constant columns.
    """
    ones, columns = factor[:, :1], factor[:, 1:]
    keep = independent_columns(columns)
    constant = not independent_columns(np.concatenate([columns[:, keep], ones], axis=1))[-1]
    # the first row of the factor is along the constant: without it the columns are centred
    varying = factor[1:, 1:][:, keep & ~steady] if (keep & steady).any() else columns[:, keep]
    return ColumnFacts(keep, constant, condition_number(varying))


@dataclass(frozen=True)
class Dependence:
    """A column that is a linear combination of earlier ones on the rows of an arm.

    Parameters
    ----------
    column, arm : int
        Position of the column, and of the arm.
    direction : ndarray, shape (p,)
        Coefficients of a combination of the columns that is zero on these rows; 1 for the column itself.
    """

    column: int
    arm: int
    direction: Array


def independent_columns(X: Array) -> NDArray[np.bool_]:
    """Mark the columns, shape (n, p), that are not linear combinations of earlier ones."""
    return dependences([X], range(X.shape[1]), np.zeros(X.shape[1], dtype=bool))[0]


def dependences(
    factors: Sequence[Array], order: Sequence[int], exempt: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], list[Dependence]]:
    """Mark the columns that are independent of the earlier ones kept in every arm, and give the others' dependences.

    Parameters
    ----------
    factors : sequence of ndarray, shape (r, p)
        For each arm, rows that have the inner products of its columns.
    order : sequence of int
        The columns to look at, in the order in which they are kept.
    exempt : ndarray of bool, shape (p,)
        Columns that are kept in any case.

    Returns
    -------
    keep : ndarray of bool, shape (p,)
        Columns to keep, the same in all arms.
    found : list of Dependence
        For each other column one for each arm where it depends on the columns before that are kept.
    """
    keep, found, spans = np.zeros(len(exempt), dtype=bool), list[Dependence](), [_Span(factor) for factor in factors]
    for j in order:
        directions = [span.direction(j) for span in spans]
        keep[j] = exempt[j] or all(direction is None for direction in directions)
        for k, (span, direction) in enumerate(zip(spans, directions, strict=True)):
            if direction is None and keep[j]:
                span.add(j)
            elif direction is not None and not keep[j]:
                found.append(Dependence(j, k, direction))
    return keep, found


class _Span:
    """Span of some columns of a matrix, shape (r, p)."""

    def __init__(self, X: Array) -> None:
        self.norms = np.linalg.norm(X, axis=0)
        self.unit = X / np.where(self.norms > 0, self.norms, 1.0)
        self.columns: list[int] = []
        self.basis = np.empty((len(X), min(X.shape)), order="F")

    def direction(self, j: int) -> Array | None:
        """Coefficients of a combination with column j that is zero, shape (p,); None where there is none."""
        direction = np.zeros(len(self.norms))
        direction[j] = 1.0
        if not self.norms[j]:
            return direction
        length, full = np.linalg.norm(self._rest(j)), len(self.columns) == len(self.unit)
        # Clearly independent, without least squares: the residual is longer than any rounding error.
        if length > NEAR and not full:
            return None
        shares = np.linalg.lstsq(self.unit[:, self.columns], self.unit[:, j], rcond=None)[0]
        # Each column of the combination carries its own rounding error, as many times as it is in it.
        if length > ROUNDING * (1 + np.abs(shares).sum()) and not full:
            return None
        shares[np.abs(shares) < ROUNDED] = 0.0
        direction[self.columns] = -shares * self.norms[j] / self.norms[self.columns]
        return direction

    def add(self, j: int) -> None:
        """Add a column that is no combination of those in the span."""
        rest = self._rest(j)
        self.basis[:, len(self.columns)] = rest / np.linalg.norm(rest)
        self.columns.append(j)

    def _rest(self, j: int) -> Array:
        """Return the residual of a column, scaled to length one, on the columns of the span."""
        rest, known = self.unit[:, j], self.basis[:, : len(self.columns)]
        for _ in range(2):  # twice is enough for orthogonality to working precision
            rest = rest - known @ (known.T @ rest)
        return rest


def condition_number(columns: Array) -> float:
    """Ratio of the largest to the smallest singular value of scaled columns, shape (r, p); 1.0 where there is none."""
    if columns.shape[1] == 0:
        return 1.0
    norms = np.linalg.norm(columns, axis=0)
    if not norms.all():
        return np.inf
    singular = np.linalg.svd(columns / norms, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf
