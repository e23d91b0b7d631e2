"""Covariates and scores measured for a table of balance, on rows in memory or block by block in passes over a scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np

from causalrisk.design.covariates import Covariate, renamed, with_products
from causalrisk.diagnostics.column_sums import ColumnSums, WeightedRows
from causalrisk.estimators.fitted_rows import FittedRows
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.distribution_functions import Cells, Steps
from causalrisk.numerics.linalg import Array

SCORE_DECIMALS = 10  # scores that differ by less are the same: rounding differs between equal rows


@dataclass(frozen=True)
class Measured:
    """Columns measured: the scores of all arms but the reference, then the covariates.

    Parameters
    ----------
    names : tuple of str
        Names of the q - K + 1 covariates.
    sums : ColumnSums
        Their sums.
    distances : ndarray, shape (q, K - 1, 2)
        Kolmogorov-Smirnov distances of each arm from the reference, before and after weighting.
    short : float, default 0.0
        By how much these may be too small, at the most.
    """

    names: tuple[str, ...]
    sums: ColumnSums
    distances: Array
    short: float = 0.0


def columns_of(scores: Array, covariates: Sequence[Covariate]) -> Array:
    """Scores of all arms but the reference, then covariates, shape (n, q)."""
    return np.column_stack([*scores[1:], *(c.values for c in covariates)])


def ordered(columns: Array, n_arms: int) -> Iterator[Array]:
    """Yield the columns as their values are ordered: scores that differ by rounding alone are the same."""
    for j, x in enumerate(columns.T):
        yield np.round(x, SCORE_DECIMALS) if j < n_arms - 1 else x


def measured(covariates: Sequence[Covariate], scores: Array, rows: WeightedRows) -> Measured:
    """Measure covariates of shape (n,) and scores of shape (K, n) of rows in memory."""
    columns, n_arms = columns_of(scores, covariates), len(scores)
    steps = (Steps.of(x, rows.arm, rows.weights, n_arms) for x in ordered(columns, n_arms))
    return Measured(
        names=tuple(c.name for c in covariates),
        sums=ColumnSums.of(columns, rows, n_arms),
        distances=np.stack([found.distances() for found in steps]),
    )


@dataclass(frozen=True)
class Columns:
    """Columns that are made of the covariates of a block: these, and maybe squares and products.

    Parameters
    ----------
    names : mapping of str to str
        Names for the reader.
    base, squared : frozenset of str, optional
        Names of the covariates to multiply with one another, and of the covariates to square; by default there
        are no products.
    """

    names: Mapping[str, str]
    base: frozenset[str] | None = None
    squared: frozenset[str] = frozenset()

    def of(self, rows: FittedRows) -> list[Covariate]:
        """Return the columns of a block."""
        found = rows.covariates()
        if self.base is not None:
            found = with_products([c for c in found if c.name in self.base], self.squared)
        return renamed(found, self.names)


@dataclass(frozen=True)
class BlockMeasured:
    """Measures of the columns of a block, or of all rows, from one pass.

    Parameters
    ----------
    names, sums
        As in `Measured`.
    steps : tuple of Steps
        Distribution functions of the q columns in all arms, before and after weighting; neighbours may be joined.
    """

    names: tuple[str, ...]
    sums: ColumnSums
    steps: tuple[Steps, ...]

    @classmethod
    def of(cls, columns: Columns, with_steps: bool, rows: FittedRows) -> BlockMeasured:
        """Measure the columns of a block."""
        covariates, weighted, n_arms = columns.of(rows), WeightedRows.of(rows), len(rows.scores)
        values = columns_of(rows.scores, covariates)
        steps = (Steps.of(x, rows.arm, weighted.weights, n_arms).joined() for x in ordered(values, n_arms))
        return cls(
            names=tuple(c.name for c in covariates),
            sums=ColumnSums.of(values, weighted, n_arms),
            steps=tuple(steps) if with_steps else (),
        )

    def beside(self, other: BlockMeasured) -> BlockMeasured:
        """Merge with the measures of other rows."""
        pairs = zip(self.steps, other.steps, strict=True)
        return replace(
            self, sums=self.sums.beside(other.sums), steps=tuple(one.beside(two).joined() for one, two in pairs)
        )


def measured_by_block(record: FitRecord, names: Mapping[str, str], interactions: bool) -> Measured:
    """Measure the columns of a scan, in one pass; one more for products, and one where a column has many values.

    Parameters
    ----------
    record : FitRecord
        A fit to a scan.
    names : mapping of str to str
        Names for the reader.
    interactions : bool
        Whether to add squares and products.

    Returns
    -------
    Measured
        The measures as in memory, but distances of columns with more distinct values than `CUTS` are looked
        for at so many cuts.
    """
    columns = Columns(names)
    if interactions:
        columns = _with_products(names, _pass(record, Columns({}), False))
    found = _pass(record, columns, True)
    cuts = {j: steps.values for j, steps in enumerate(found.steps) if not steps.exact}
    distances, short = [steps.distances() for steps in found.steps], 0.0
    if cuts:
        cells = add_up(record.over(partial(_cells, columns, cuts), covariates=True))
        for j, cell in zip(cuts, cells, strict=True):
            distances[j], more = cell.distances()
            short = max(short, float(more.max()))
    return Measured(found.names, found.sums, np.stack(distances), short)


def _pass(record: FitRecord, columns: Columns, with_steps: bool) -> BlockMeasured:
    return reduce(BlockMeasured.beside, record.over(partial(BlockMeasured.of, columns, with_steps), covariates=True))


def _with_products(names: Mapping[str, str], found: BlockMeasured) -> Columns:
    """Return the columns with products of those covariates that vary."""
    first = len(found.sums.low) - len(found.names)
    kinds = zip(found.names, found.sums.varying[first:], found.sums.binary[first:], strict=True)
    base = {name: bool(binary) for name, varying, binary in kinds if varying}
    return Columns(names, frozenset(base), frozenset(name for name, binary in base.items() if not binary))


def _cells(columns: Columns, cuts: Mapping[int, Array], rows: FittedRows) -> tuple[Cells, ...]:
    """Return the weights between the cuts of some columns of a block, in the order of `cuts`."""
    weighted, n_arms = WeightedRows.of(rows), len(rows.scores)
    values = enumerate(ordered(columns_of(rows.scores, columns.of(rows)), n_arms))
    return tuple(
        Cells.of(x, rows.arm, weighted.weights, cuts=cuts[j], n_samples=n_arms) for j, x in values if j in cuts
    )
