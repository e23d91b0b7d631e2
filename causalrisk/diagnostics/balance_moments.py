"""Moments for a table of balance: sums over rows by arm, before and after weighting, in memory or block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.covariates import Covariate, renamed, with_products
from causalrisk.estimators.estimates import FittedRows
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.distributions import Cells, Steps
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.models import Arms

WHEN = ("before", "after")


@dataclass(frozen=True)
class WeightedRows:
    """Arms and weights of rows, before and after weighting.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    weights : ndarray, shape (2, n)
        Weight of a row without and with importance weights.
    counts : ndarray, shape (n,)
        Number of equal rows of each row: its frequency weight, else one.
    """

    arm: Arms
    weights: Array
    counts: Array

    @classmethod
    def of(cls, rows: FittedRows) -> WeightedRows:
        """Return the arms and weights of the rows of a fit."""
        return cls(rows.arm, np.stack([rows.weights, rows.weights * rows.importance]), rows.units)

    def some(self, which: NDArray[np.bool_]) -> WeightedRows:
        """Return some of the rows."""
        return WeightedRows(self.arm[which], self.weights[:, which], self.counts[which])


@dataclass(frozen=True)
class ColumnSums:
    """Moments of q columns in K arms, before and after weighting, of a block of rows or of all.

    Parameters
    ----------
    low, high : ndarray, shape (q,)
        Smallest and largest value.
    further : ndarray of bool, shape (q,)
        Whether there are values between.
    total, squared : ndarray, shape (K, 2)
        Sum of the weights, and of their squares over the counts.
    mean, spread : ndarray, shape (K, 2, q)
        Weighted means, NaN of no weight, and weighted sums of squared differences from them.
    """

    low: Array
    high: Array
    further: NDArray[np.bool_]
    total: Array
    squared: Array
    mean: Array
    spread: Array

    @classmethod
    def of(cls, columns: Array, rows: WeightedRows, n_arms: int) -> ColumnSums:
        """Return the moments of columns of shape (n, q)."""
        low, high = columns.min(axis=0, initial=np.inf), columns.max(axis=0, initial=-np.inf)
        total, squared = np.zeros((n_arms, 2)), np.zeros((n_arms, 2))
        mean, spread = np.full((n_arms, 2, len(low)), np.nan), np.zeros((n_arms, 2, len(low)))
        for a in range(n_arms):
            members = rows.arm == a
            own, counts = columns[members], rows.counts[members]
            for when, weights in enumerate(rows.weights[:, members]):
                total[a, when], squared[a, when] = weights.sum(), (weights**2 / counts).sum()
                if total[a, when] > 0:
                    mean[a, when] = weights @ own / total[a, when]
                    spread[a, when] = weights @ (own - mean[a, when]) ** 2
        further = ((columns != low) & (columns != high)).any(axis=0)
        return cls(low, high, further, total=total, squared=squared, mean=mean, spread=spread)

    @classmethod
    def of_levels(cls, codes: NDArray[np.intp], q: int, rows: WeightedRows, n_arms: int) -> ColumnSums:
        """Return the moments of the indicators of a factor's q levels by counting its codes, shape (n,)."""
        whole = cls.of(np.ones((len(codes), 1)), rows, n_arms)
        mean = np.full((n_arms, 2, q), np.nan)
        for a in range(n_arms):
            members = rows.arm == a
            for when, weights in enumerate(rows.weights[:, members]):
                if whole.total[a, when] > 0:
                    mean[a, when] = np.bincount(codes[members], weights, q) / whole.total[a, when]
        spread = whole.total[:, :, None] * mean * (1 - mean)
        ends = np.zeros(q), np.ones(q)
        return cls(*ends, np.zeros(q, dtype=bool), total=whole.total, squared=whole.squared, mean=mean, spread=spread)

    def beside(self, other: ColumnSums) -> ColumnSums:
        """Merge with the moments of other rows, by the formula of Chan, Golub and LeVeque."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        ends = np.stack([self.low, self.high, other.low, other.high])
        total = self.total + other.total
        share = np.divide(other.total, total, out=np.zeros_like(total), where=total > 0)[:, :, None]
        known, both = self.total[:, :, None] > 0, ((self.total > 0) & (other.total > 0))[:, :, None]
        apart = np.where(both, other.mean - self.mean, 0)
        return ColumnSums(
            low=low,
            high=high,
            further=self.further | other.further | ((ends > low) & (ends < high)).any(axis=0),
            total=total,
            squared=self.squared + other.squared,
            mean=np.where(known, self.mean + apart * share, other.mean),
            spread=self.spread + other.spread + apart**2 * share * self.total[:, :, None],
        )

    @property
    def varying(self) -> NDArray[np.bool_]:
        """Mask of the columns that take more than one value, shape (q,)."""
        return self.low < self.high

    @property
    def binary(self) -> NDArray[np.bool_]:
        """Mask of the columns that take just two values, shape (q,)."""
        return self.varying & ~self.further

    def indicating(self, binary: NDArray[np.bool_]) -> ColumnSums:
        """Return the moments with each binary column turned into the 0/1 indicator of its larger value."""
        shift, width = np.where(binary, self.low, 0), np.where(binary, self.high - self.low, 1)
        return replace(
            self,
            low=(self.low - shift) / width,
            high=(self.high - shift) / width,
            mean=(self.mean - shift) / width,
            spread=self.spread / width**2,
        )

    def some(self, which: NDArray[np.intp]) -> ColumnSums:
        """Return the moments of some of the columns."""
        ends = {name: getattr(self, name)[which] for name in ("low", "high", "further")}
        return replace(self, **ends, mean=self.mean[:, :, which], spread=self.spread[:, :, which])

    def arms_together(self) -> ColumnSums:
        """Return the moments of all arms merged into one."""
        whole = self._arm(0)
        for a in range(1, len(self.total)):
            whole = whole.beside(self._arm(a))
        return whole

    def _arm(self, a: int) -> ColumnSums:
        own = {name: getattr(self, name)[[a]] for name in ("total", "squared", "mean", "spread")}
        return replace(self, **own)

    def variance(self, binary: NDArray[np.bool_]) -> Array:
        """Weighted variances as cobalt defines them.

        Parameters
        ----------
        binary : ndarray of bool, shape (q,)
            Columns of 0 and 1 whose variance is p (1 - p).

        Returns
        -------
        ndarray, shape (K, 2, q)
            sum w (x - m)^2 sum w / ((sum w)^2 - sum w^2), which is the sample variance for equal weights.
        """
        freedom = self.total**2 - self.squared
        factor = np.divide(self.total, freedom, out=np.full_like(freedom, np.nan), where=freedom > 0)
        return np.where(binary, self.mean * (1 - self.mean), self.spread * factor[:, :, None])

    def standard_deviations(self, denominator: str | int, binary: NDArray[np.bool_]) -> Array:
        """Return the denominators of standardized mean differences, shape (q,).

        Parameters
        ----------
        denominator : {"pooled", "weighted"} or int
            Root mean variance of the arms before weighting ("pooled"); standard deviation of one arm before it, or
            of all rows after it ("weighted").
        binary : ndarray of bool, shape (q,)
            Binary columns, of 0 and 1.
        """
        if denominator == "weighted":
            return np.sqrt(self.arms_together().variance(binary)[0, 1])
        variances = self.variance(binary)[:, 0]
        return np.sqrt(variances[denominator] if isinstance(denominator, int) else variances.mean(axis=0))

    def differences(self, arm: int, scale: Array) -> Array:
        """Differences of the means of an arm and of the reference arm over a scale, shape (2, q)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.mean[arm] - self.mean[0]) / scale


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
