"""The second pass over a scan: what the designs, the arms and the outcome leave of all rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from causalrisk.design.rank import check_magnitude, factor_facts, independent_columns, note_columns
from causalrisk.design.scan.coder import BlockCoder, CodedBlock, Mark, PassCounter
from causalrisk.errors import DesignError
from causalrisk.numerics.linalg import Array, Basis, factored_basis, triangular_factor


@dataclass(frozen=True)
class ColumnMoments:
    """Columns of a design over rows: a triangular factor for each arm, and their limits.

    Parameters
    ----------
    origin : ndarray, shape (p,)
        What was subtracted, so that far columns lose no digits.
    low, high : ndarray, shape (K, p)
        Limits of the columns in each arm.
    triangles : tuple of ndarray
        For each arm the factor of the columns (1, columns - origin), rows times the root of their weights.
    """

    origin: Array
    low: Array
    high: Array
    triangles: tuple[Array, ...]

    @classmethod
    def of(cls, columns: Array, origin: Array, block: CodedBlock, n_arms: int) -> ColumnMoments:
        """Return those of the rows of a block."""
        rows = np.column_stack([np.ones(len(columns)), columns - origin])
        root, members = np.sqrt(block.weights), [block.arm == a for a in range(n_arms)]
        return cls(
            origin=origin,
            low=np.stack([columns[own].min(axis=0, initial=np.inf) for own in members]),
            high=np.stack([columns[own].max(axis=0, initial=-np.inf) for own in members]),
            triangles=tuple(triangular_factor(rows[own], root[own]) for own in members),
        )

    def beside(self, other: ColumnMoments) -> ColumnMoments:
        """Return those of other rows beside these."""
        pairs = zip(self.triangles, other.triangles, strict=True)
        return ColumnMoments(
            origin=self.origin,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            triangles=tuple(triangular_factor(np.vstack(pair)) for pair in pairs),
        )

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


@dataclass(frozen=True)
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
    members : ndarray of int, shape (m,)
        Cluster times K plus arm, where a cluster has rows in an arm.
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

    def beside(self, other: Moments) -> Moments:
        """Return those of other rows beside these."""
        return Moments(
            X=self.X.beside(other.X),
            Z=self.Z.beside(other.Z),
            y=self.y.beside(other.y),
            rows=self.rows + other.rows,
            totals=self.totals + other.totals,
            members=np.union1d(self.members, other.members),
            mark=self.mark.beside(other.mark),
        )

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


def moments(coder: BlockCoder, workers: int = 1, passes: PassCounter | None = None) -> Moments:
    """Make the second pass; `workers` and `passes` as in `BlockCoder.over`."""
    first = next(coder.blocks(), None)
    if first is None:
        raise DesignError("the second pass over the data found no rows.\nGive scan a function that begins anew.")
    origins = tuple(np.median(columns, axis=0) for columns in (first.X, first.Z, _outcomes(first)))
    return reduce(Moments.beside, coder.over(partial(_moments_of, origins, len(coder.arms.labels)), workers, passes))


def _outcomes(block: CodedBlock) -> Array:
    """Outcome, and outcome less its offset, shape (n, 2)."""
    return np.column_stack([block.y, block.y if block.offset is None else block.y - block.offset])


def _moments_of(origins: tuple[Array, ...], k: int, block: CodedBlock) -> Moments:
    """Return those of the rows of a block."""
    X, Z, y = (
        ColumnMoments.of(columns, origin, block, k)
        for columns, origin in zip((block.X, block.Z, _outcomes(block)), origins, strict=True)
    )
    cluster = np.empty(0, dtype=np.intp) if block.cluster is None else block.cluster
    return Moments(
        X=X,
        Z=Z,
        y=y,
        rows=np.bincount(block.arm, minlength=k),
        totals=np.bincount(block.arm, block.weights, minlength=k).astype(float),
        members=np.unique(cluster * k + block.arm[: len(cluster)]),
        mark=Mark.of(block),
    )
