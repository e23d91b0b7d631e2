"""The second pass over a scan: what the designs, the arms and the outcome leave of all rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.design.rank import check_magnitude, factor_facts, independent_columns, note_columns
from causalrisk.design.scan.coder import BlockCoder, Mark
from causalrisk.errors import DesignError
from causalrisk.numerics.linalg import Array, Basis, factored_basis, triangular_factor


class ColumnMoments:
    """Columns of a design over all rows: a triangular factor for each arm, and their limits.

    Parameters
    ----------
    first : ndarray, shape (n, p)
        The columns in the first block, whose medians are what is subtracted from all.
    n_arms : int
        K.

    Attributes
    ----------
    origin : ndarray, shape (p,)
        What was subtracted, so that far columns lose no digits.
    low, high : ndarray, shape (K, p)
        Limits of the columns in each arm.
    triangles : list of ndarray
        For each arm the factor of the columns (1, columns - origin), rows times the root of their weights.
    """

    def __init__(self, first: Array, n_arms: int) -> None:
        self.origin = np.median(first, axis=0)
        self.low, self.high = np.full((n_arms, first.shape[1]), np.inf), np.full((n_arms, first.shape[1]), -np.inf)
        self.triangles = [np.empty((0, first.shape[1] + 1)) for _ in range(n_arms)]

    def add(self, columns: Array, arm: Array, weights: Array) -> None:
        """Add the rows of a block."""
        rows = np.column_stack([np.ones(len(columns)), columns - self.origin]) * np.sqrt(weights)[:, None]
        for a in np.unique(arm):
            members = arm == a
            self.low[a] = np.minimum(self.low[a], columns[members].min(axis=0))
            self.high[a] = np.maximum(self.high[a], columns[members].max(axis=0))
            self.triangles[a] = triangular_factor(np.vstack([self.triangles[a], rows[members]]))

    @property
    def triangle(self) -> Array:
        """Factor over all arms."""
        return triangular_factor(np.vstack(self.triangles))

    @property
    def limits(self) -> Array:
        """Smallest and largest value of each column, shape (p, 2)."""
        return np.column_stack([self.low.min(axis=0), self.high.max(axis=0)])

    @property
    def steady(self) -> np.ndarray:
        """Which columns are constant."""
        return self.limits[:, 0] == self.limits[:, 1]

    def plain(self, triangle: Array) -> Array:
        """Rows that have the inner products of the columns themselves."""
        return triangle[:, 1:] + triangle[:, [0]] * self.origin

    def usable(self, names: tuple[str, ...], model: str, notes: list[str]) -> np.ndarray:
        """As `rank.usable_columns`, from the factor."""
        for name, limits in zip(names, self.limits, strict=True):
            check_magnitude(limits, f"column {name!r} of the {model} model")
        triangle = self.triangle
        found = factor_facts(np.column_stack([triangle[:, 0], self.plain(triangle)]), self.steady)
        note_columns(found, names, model, notes)
        return found.keep

    def basis(self, keep: np.ndarray) -> tuple[Basis, Array]:
        """Basis of the columns that are kept, and what gives the constant in it, as nearly as the columns can."""
        constant = np.flatnonzero((self.steady & (self.origin != 0))[keep])
        triangle = triangular_factor(self.triangle[:, np.r_[True, keep]])
        basis = factored_basis(triangle, self.origin[keep], int(constant[0]) if constant.size else None)
        means = self.origin[keep] + triangle[0, 1:] / triangle[0, 0]
        return basis, basis.of_rows(means[None])[0]


@dataclass
class Moments:
    """What the second pass learns.

    Parameters
    ----------
    X, Z : ColumnMoments
        Of both designs.
    y : ColumnMoments
        Of the outcome, and of the outcome less its offset.
    rows : ndarray of int, shape (K,)
        Rows of each arm.
    totals : ndarray, shape (K,)
        Sum of their weights.
    members : ndarray of bool, shape (G, K)
        Whether a cluster has rows in an arm.
    mark : Mark
        Of all rows.
    """

    X: ColumnMoments
    Z: ColumnMoments
    y: ColumnMoments
    rows: np.ndarray
    totals: Array
    members: np.ndarray
    mark: Mark

    @property
    def outcome_limits(self) -> Array:
        """Smallest and largest outcome of each arm, shape (K, 2)."""
        return np.column_stack([self.y.low[:, 0], self.y.high[:, 0]])

    def outcome(self) -> tuple[float, float]:
        """Mean and standard deviation under the weights of the outcome less its offset."""
        triangle = self.y.triangle
        mean = self.y.origin[1] + triangle[0, 2] / triangle[0, 0]
        return float(mean), float(np.linalg.norm(triangle[1:, 2]) / abs(triangle[0, 0]))

    def check_arms(self, keep: np.ndarray, names: tuple[str, ...], labels: tuple[str, ...]) -> None:
        """Raise a DesignError where the rows of an arm do not tell the terms of its outcome model apart."""
        for label, triangle in zip(labels, self.X.triangles, strict=True):
            dependent = ~independent_columns(self.X.plain(triangle)[:, np.flatnonzero(keep)])
            if dependent.any():
                terms = ", ".join(repr(name) for name, odd in zip(names, dependent, strict=True) if odd)
                raise DesignError(
                    f"the rows of arm {label!r} do not tell {terms} from the terms before, so its outcome model cannot "
                    "be estimated.\nMerge that level with another, leave the term out of the outcome formula, or "
                    "restrict the sample to rows that all arms cover."
                )


def moments(coder: BlockCoder) -> Moments:
    """Make the second pass."""
    found: Moments | None = None
    k, groups = len(coder.arms.labels), 0 if coder.clusters is None else len(coder.clusters)
    for block in coder.blocks():
        y = np.column_stack([block.y, block.y if block.offset is None else block.y - block.offset])
        if found is None:
            found = Moments(
                X=ColumnMoments(block.X, k),
                Z=ColumnMoments(block.Z, k),
                y=ColumnMoments(y, k),
                rows=np.zeros(k, dtype=np.intp),
                totals=np.zeros(k),
                members=np.zeros((groups, k), dtype=bool),
                mark=Mark(),
            )
        for part, columns in ((found.X, block.X), (found.Z, block.Z), (found.y, y)):
            part.add(columns, block.arm, block.weights)
        found.mark = found.mark.beside(block)
        found.rows += np.bincount(block.arm, minlength=k)
        found.totals += np.bincount(block.arm, block.weights, minlength=k)
        if block.cluster is not None:
            found.members[block.cluster, block.arm] = True
    if found is None:
        raise DesignError("the second pass over the data found no rows.\nGive scan a function that begins anew.")
    return found
