"""The distribution of the propensity score: replicated importance weights, and sums over them, also within resamples.

Flows in: a weight fit, multiplicities of B replicates; those of the rows in m resamples, and their own propensity fits.
Flows out: gamma_b, and the sums over the rows that training needs of the importance weights w[i, b, j] of row i under
replicate b within resample j, which are never all held. Within resample j, whose own fit is gamma_j, replicate b is at
gamma_j + delta_b, with delta_b = gamma_b - gamma of the full sample.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure
from causalrisk.numerics.blocks import KEPT, add_up
from causalrisk.numerics.linalg import Array, Triangle, column_blocks, row_blocks, symmetric_root, triangular_factor
from causalrisk.propensity.weights import ImportanceWeights, TargetSums, WeightFit, WeightModel, some_columns

# A pass over the rows block by block: maps a function of the weight model and the multiplicities, (n, 1), of a block.
OverModels: TypeAlias = Callable[[Callable[[WeightModel, Array], Any]], Iterator[Any]]
BLOCK = 32  # replicates worked on at a time
NEGLIGIBLE = 1e-8  # share of a sum of squares left out of the objective: moves a resample by 1e-9 standard errors


@dataclass(frozen=True)
class Replicates:
    """The distribution of the propensity score.

    Parameters
    ----------
    gamma : ndarray, shape (S, B)
        Coefficients of the usable replicates.
    failures : ndarray of int8, shape (B_drawn,)
        A `Failure` for each replicate drawn.
    cubature : bool
        Whether they are the points of `of_normal`; else they are random.
    """

    gamma: Array
    failures: NDArray[np.int8]
    cubature: bool = False

    @property
    def count(self) -> int:
        """Number of usable replicates, B."""
        return self.gamma.shape[1]

    def shifts(self, gamma: Array) -> Array:
        """Distances of the replicates from a score, shape (S, B)."""
        return self.gamma - gamma[:, None]

    @classmethod
    def single(cls, gamma: Array) -> Replicates:
        """Return the distribution that has one value."""
        return cls(gamma[:, None], np.full(1, Failure.OK, dtype=np.int8))

    @classmethod
    def of_normal(cls, gamma: Array, covariance: Array) -> Replicates:
        """Return 2 S points that stand for a normal distribution about gamma, (S,), with a covariance, (S, S).

        Means over them of polynomials of third degree are those of the distribution: the spherical-radial rule [1]_.

        References
        ----------
        .. [1] Arasaratnam, I. and Haykin, S. (2009). Cubature Kalman filters. IEEE Transactions on Automatic Control
           54, 1254-1269.
        """
        root = symmetric_root(covariance)
        away = np.sqrt(len(gamma)) * np.hstack([root, -root])
        return cls(gamma[:, None] + away, np.full(2 * len(gamma), Failure.OK, dtype=np.int8), cubature=True)


def draw_replicates(weight_fit: WeightFit, draws: Iterable[Array]) -> Replicates:
    """Fit the propensity replicates under multiplicities, shape (n, m), some columns at a time."""
    fits = [weight_fit.refit(counts) for counts in draws]
    failures = np.concatenate([f.failures for f in fits])
    gamma = np.concatenate([f.coefficients for f in fits], axis=1)
    return Replicates(gamma[:, failures == Failure.OK], failures)


@dataclass(frozen=True)
class ReplicateTotals:
    """Sums over all rows that the importance weights of some rows under B replicates are divided by.

    Parameters
    ----------
    target : TargetSums
        Divisors of the weights, shape (B,) each.
    log_mean : ndarray, shape (Q, B), or None
        As in `WeightSlopes`.
    """

    target: TargetSums
    log_mean: Array | None

    def some(self, columns: slice) -> ReplicateTotals:
        """Return the sums of some of the replicates."""
        log_mean = None if self.log_mean is None else self.log_mean[:, columns]
        return ReplicateTotals(self.target.some(columns), log_mean)


def replicate_totals(over: OverModels, gamma: Array) -> ReplicateTotals:
    """Sum over all rows, in two passes, the divisors of weights under replicates and their slopes by gamma.

    Parameters
    ----------
    gamma : ndarray, shape (S, B)
        Coefficients of the replicates.
    """
    target = add_up(over(partial(_target_sums, gamma)))
    return ReplicateTotals(target, add_up(over(partial(_log_mean, gamma, target))))


def _target_sums(gamma: Array, model: WeightModel, counts: Array) -> TargetSums:
    return model.target_sums(model.predictors(gamma), counts)


def _log_mean(gamma: Array, target: TargetSums, model: WeightModel, counts: Array) -> Array | None:
    return model.log_mean(model.predictors(gamma), counts, target)


def replicate_blocks(
    model: WeightModel, gamma: Array, counts: Array, totals: ReplicateTotals | None = None
) -> Iterator[tuple[slice, Array, ImportanceWeights]]:
    """Yield the importance weights under the replicates, a block of replicates at a time.

    Parameters
    ----------
    gamma : ndarray, shape (S, B)
        Coefficients of the replicates.
    counts : ndarray, shape (n,)
        Multiplicities of the rows.
    totals : ReplicateTotals, optional
        Sums over all rows, where these are a block of them.

    Yields
    ------
    columns : slice
        The replicates of this block.
    eta : ndarray, shape (L, n, b)
        Linear predictors.
    at : ImportanceWeights
        Importance weights.
    """
    for first in range(0, gamma.shape[1], BLOCK):
        columns = slice(first, min(first + BLOCK, gamma.shape[1]))
        eta = model.predictors(gamma[:, columns])
        whole = None if totals is None else totals.some(columns).target
        yield columns, eta, model.weights_at(eta, counts[:, None], whole)


# --- sums over the replicates ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightMoments:
    """First two moments, over the replicates, of the importance weight w and the tilt t of each row.

    Over the replicates (t_b, w_b) = mean + xi_b common + eta_b (0, own_sd), with xi and eta of mean zero and variance
    one, uncorrelated. So a mean over b of a product of two weights is a sum over these three parts.

    Parameters
    ----------
    mean : ImportanceWeights
        Mean weights and tilts.
    common : ImportanceWeights or None
        The standard deviation of the tilt (of a target frame, of the measure), and the part of w that varies along
        with it; None where the tilt is the same under all replicates.
    own_sd : ndarray, shape (n, m)
        Standard deviation of the rest of w, uncorrelated with the tilt.
    """

    mean: ImportanceWeights
    common: ImportanceWeights | None
    own_sd: Array

    @classmethod
    def single(cls, at: ImportanceWeights) -> WeightMoments:
        """Return the moments of a distribution that has one value."""
        return cls(at, None, np.zeros_like(at.excess))

    @property
    def parts(self) -> list[ImportanceWeights]:
        """Return the parts of the moments, mean and common, in which the tilt has a share."""
        return [self.mean] if self.common is None else [self.mean, self.common]

    def subset(self, resamples: NDArray[np.bool_]) -> WeightMoments:
        """Return the moments of some of the resamples."""
        common = None if self.common is None else self.common.subset(resamples)
        return WeightMoments(self.mean.subset(resamples), common, self.own_sd[:, resamples])


class ReplicateWeights(Protocol):
    """Importance weights under B replicates within m resamples.

    Attributes
    ----------
    failures : ndarray of int8, shape (m,)
        NO_REPLICATES where none was usable, else OK.
    count : int
        B.
    """

    failures: NDArray[np.int8]
    count: int

    def sums(self, share: Array, rows: Array) -> Array:
        """Sum w times share (n, m) times rows (n, m, d) or (n, 1, d) over each arm, shape (K, B, m, d)."""

    def adjoint(self, values: Array) -> Array:
        """Sum w times values, shape (K, B, m), of a row's arm over the replicates, shape (n, m)."""

    def moments(self, at: ImportanceWeights) -> WeightMoments:
        """Moments over the replicates; `at` are the importance weights of the resamples' own fits."""

    def subset(self, resamples: NDArray[np.bool_]) -> ReplicateWeights:
        """Return the weights of some of the resamples."""


@dataclass(frozen=True)
class ShiftFactors:
    """Factors by which shifts of gamma multiply the terms of the excess.

    Parameters
    ----------
    K_b : ndarray, shape (T, n, r)
        Factor of each term, row and replicate; or of r orthogonal combinations of the replicates.
    ones : ndarray, shape (r,)
        The same combinations of a one under each replicate.
    mean : ndarray, shape (T, n, 1)
        Its mean over the replicates.
    covariance : ndarray, shape (T, T, n, 1)
        Its covariance over the replicates, divisor B.
    """

    K_b: Array
    ones: Array
    mean: Array
    covariance: Array

    @classmethod
    def of(cls, K_b: Array) -> ShiftFactors:
        """Return the factors with their moments."""
        count, mean = K_b.shape[2], K_b.mean(axis=2, keepdims=True)
        centred = K_b - mean
        covariance = np.einsum("snb,tnb->stn", centred, centred)[..., None] / count
        return cls(K_b, np.ones(count), mean, covariance)

    @property
    def count(self) -> int:
        """Number of replicates, or of their combinations."""
        return len(self.ones)

    def combined(self, combinations: Array) -> ShiftFactors:
        """Return the factors of combinations of the replicates, shape (B, r), as by `orthogonal_combinations`."""
        return replace(self, K_b=self.K_b @ combinations, ones=combinations.sum(axis=0))


def orthogonal_combinations(factors: Iterable[Array], n: int, tolerance: float) -> Array:
    """Few orthogonal combinations of the replicates with the same means of squares and products.

    Parameters
    ----------
    factors : iterable of ndarray, shape (T, r, B)
        `ShiftFactors.K_b` of the replicates, a block of rows after the other.

    Returns
    -------
    ndarray, shape (B, r)
        A column a combination.
    """
    every = add_up(Triangle(np.concatenate(of_rows)) for of_rows in factors).factor
    # The tilt is the same under all replicates: a row of ones, of the weight of n rows, keeps it among them.
    always = np.full((1, every.shape[1]), np.sqrt(n))
    _, values, directions = np.linalg.svd(triangular_factor(np.concatenate([always, every])))
    kept = np.ascontiguousarray(directions[: int((values > tolerance * values[0]).sum())].T)
    return kept * np.sqrt(kept.shape[1] / len(kept))  # means over fewer


class ShiftedLogitWeights:
    """Shifted replicates: their excess is the resample's excess times one matrix for all resamples.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    terms : ndarray, shape (T, n, m)
        Terms of the resamples' excess.
    tilt : ndarray, shape (n, m) or (n, 1)
        Tilt of the resamples.
    shifts : ShiftFactors
        Factor of the terms under each replicate.

    Notes
    -----
    An odds term is the exponential of a linear predictor, so with eta_jb = eta_j + (eta_b - eta) it is the
    term of resample j times K_b = exp(eta_b - eta), which all resamples share. Its moments follow from those of K.
    """

    def __init__(self, slices: tuple[slice, ...], terms: Array, tilt: Array, shifts: ShiftFactors) -> None:
        self.slices, self.terms, self.tilt, self.shifts = slices, terms, tilt, shifts
        self.failures, self.count = np.zeros(terms.shape[2], dtype=np.int8), shifts.count

    def sums(self, share: Array, rows: Array) -> Array:
        """One matrix product an arm and term, of some resamples or columns of rows at a time."""
        m, d, ones = self.terms.shape[2], rows.shape[2], self.shifts.ones
        total = np.empty((len(self.slices), d, m, len(ones)))
        weights, of_tilt = [term * share for term in self.terms], self.tilt * share
        few = rows.shape[1] == 1 and len(ones) <= 2 * m
        for arm, members in enumerate(self.slices):
            own = rows[members]
            total[arm] = weighted_sums(of_tilt[members], own).T[..., None] * ones
            for weight, K_b in zip(weights, self.shifts.K_b, strict=True):
                if few:
                    _add_products_of_shared(total[arm], own[:, 0], weight[members], K_b[members])
                else:
                    _add_products(total[arm], own, weight[members], K_b[members])
        return total.transpose(0, 3, 2, 1)

    def adjoint(self, values: Array) -> Array:
        """One matrix product an arm and term."""
        total = np.empty(self.terms.shape[1:])
        for arm, members in enumerate(self.slices):
            total[members] = self.tilt[members] * (self.shifts.ones @ values[arm])
            for term, K_b in zip(self.terms, self.shifts.K_b, strict=True):
                total[members] += term[members] * (K_b[members] @ values[arm])
        return total

    def moments(self, at: ImportanceWeights) -> WeightMoments:
        """Moments over the replicates, from the moments of the factors."""
        variance = np.zeros(self.terms.shape[1:])
        for term, row in zip(self.terms, self.shifts.covariance, strict=True):
            for other, covariance in zip(self.terms, row, strict=True):
                variance += term * other * covariance
        excess = (self.terms * self.shifts.mean).sum(axis=0)
        mean = ImportanceWeights(excess, self.tilt, self.tilt)
        return WeightMoments(mean, None, np.sqrt(np.maximum(variance, 0.0)))

    def subset(self, resamples: NDArray[np.bool_]) -> ShiftedLogitWeights:
        """Return the weights of some of the resamples."""
        tilt = some_columns(self.tilt, resamples)
        return ShiftedLogitWeights(self.slices, self.terms[:, :, resamples], tilt, self.shifts)


def _add_products(total: Array, rows: Array, weights: Array, K_b: Array) -> None:
    """Add sums of weights (n, m) times rows (n, m, d) or (n, 1, d) times K_b (n, r) to a total, shape (d, m, r)."""
    (n, _, d), (m, r) = rows.shape, (weights.shape[1], K_b.shape[1])
    by_column = np.ascontiguousarray(rows.transpose(0, 2, 1))  # resamples last: what is multiplied runs along them
    for some in column_blocks(m, n * d):
        own = by_column if by_column.shape[2] == 1 else by_column[:, :, some]
        scaled = own * weights[:, None, some]
        total[:, some] += (scaled.reshape(n, d * scaled.shape[2]).T @ K_b).reshape(d, -1, r)


def _add_products_of_shared(total: Array, rows: Array, weights: Array, K_b: Array) -> None:
    """As `_add_products`, for rows (n, d) of all resamples: K_b is scaled in place of the weights."""
    (n, d), (m, r) = rows.shape, (weights.shape[1], K_b.shape[1])
    for some in column_blocks(d, n * r):
        scaled = rows[:, some, None] * K_b[:, None]
        products = weights.T @ scaled.reshape(n, scaled.shape[1] * r)
        total[some] += products.reshape(m, -1, r).swapaxes(0, 1)


def weighted_sums(weights: Array, rows: Array) -> Array:
    """Sum over n weights (n, m) times rows (n, m, d) or (n, 1, d), shape (m, d)."""
    return weights.T @ rows[:, 0] if rows.shape[1] == 1 else np.einsum("nm,nmd->md", weights, rows)


def kept_bytes(model: WeightModel, n_rows: int, count: int) -> int:
    """Bytes of the importance weights of some rows under `count` replicates: excess, and the tilt where it varies."""
    return 8 * (1 if model.target.fixed_tilt else 2) * n_rows * count


class BatchedWeights:
    """Replicates of any model and target: one resample at a time.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    model : WeightModel
        Propensity model and target.
    counts : ndarray, shape (n, m)
        Multiplicities of the rows in each resample.
    gammas : sequence of ndarray, shape (S, B_j)
        Coefficients of the replicates of each resample.
    count : int
        B; where fewer are usable, sums are scaled so that mean squares over B are those over the usable ones.
    totals : sequence of ReplicateTotals, optional
        Sums over all rows for each resample, where these are a block of them.
    """

    def __init__(
        self,
        slices: tuple[slice, ...],
        model: WeightModel,
        counts: Array,
        gammas: list[Array],
        count: int,
        totals: list[ReplicateTotals] | None = None,
    ) -> None:
        self.slices, self.model, self.counts, self.gammas, self.count = slices, model, counts, gammas, count
        self.totals = totals
        self.scale = np.array([np.sqrt(count / max(g.shape[1], 1)) for g in gammas])
        self._kept: list[tuple[int, slice, ImportanceWeights]] | None = None
        empty = np.array([g.shape[1] == 0 for g in gammas])
        self.failures = np.where(empty, Failure.NO_REPLICATES, Failure.OK).astype(np.int8)

    def whole(self, resample: int) -> ReplicateTotals | None:
        """Return a resample's sums over all rows, where the rows here are a block of them."""
        return None if self.totals is None else self.totals[resample]

    def blocks(self) -> Iterator[tuple[int, slice, ImportanceWeights]]:
        """Yield resample, replicates and their importance weights; kept for the next pass where they are few."""
        if self._kept is not None:
            yield from self._kept
            return
        keep = kept_bytes(self.model, self.counts.size, self.count) <= KEPT
        kept = []
        for j, gamma in enumerate(self.gammas):
            for columns, _, at in replicate_blocks(self.model, gamma, self.counts[:, j], self.whole(j)):
                block = j, columns, at
                if keep:
                    kept.append(block)
                yield block
        self._kept = kept if keep else None

    def subset(self, resamples: NDArray[np.bool_]) -> BatchedWeights:
        """Return the weights of some of the resamples."""
        some = np.flatnonzero(resamples)
        return BatchedWeights(
            slices=self.slices,
            model=self.model,
            counts=self.counts[:, some],
            gammas=[self.gammas[j] for j in some],
            count=self.count,
            totals=None if self.totals is None else [self.totals[j] for j in some],
        )

    def sums(self, share: Array, rows: Array) -> Array:
        """Products within each block of replicates; rows of unusable ones stay zero."""
        total = np.zeros((len(self.slices), self.count, len(self.gammas), rows.shape[2]))
        shared = rows.shape[1] == 1
        for j, columns, at in self.blocks():
            own, w = share[:, j, None] * rows[:, 0 if shared else j], at.w
            for arm, members in enumerate(self.slices):
                total[arm, columns, j] = w[members].T @ own[members]
        return total * self.scale[:, None]

    def adjoint(self, values: Array) -> Array:
        """Products within each block of replicates."""
        total = np.zeros(self.counts.shape)
        for j, columns, at in self.blocks():
            w = at.w
            for arm, members in enumerate(self.slices):
                total[members, j] += w[members] @ values[arm, columns, j]
        return total * self.scale

    def moments(self, at: ImportanceWeights) -> WeightMoments:
        """Sum deviations from the weights of the resamples' own fits, which lose no digits, and their squares."""
        of_excess, of_measure, products = np.zeros((3, *self.counts.shape))
        excess_squares, measure_squares = np.zeros((2, *self.counts.shape))
        measure = np.broadcast_to(at.measure, self.counts.shape)
        varying = not self.model.target.fixed_tilt
        for j, _, block in self.blocks():
            # A variance as mean square less squared mean loses no digits about the resample's own weights, which are
            # near the mean.
            x, n_rep = block.excess - at.excess[:, [j]], max(self.gammas[j].shape[1], 1)
            of_each = np.full(x.shape[1], 1 / n_rep)
            of_excess[:, j] += x @ of_each
            excess_squares[:, j] += np.einsum("nb,nb->n", x, x) / n_rep
            if varying:
                t = block.measure - measure[:, [j]]
                of_measure[:, j] += t @ of_each
                measure_squares[:, j] += np.einsum("nb,nb->n", t, t) / n_rep
                products[:, j] += np.einsum("nb,nb->n", x, t) / n_rep
        variance = np.maximum(excess_squares - of_excess**2, 0.0)
        if not varying:
            mean = ImportanceWeights(at.excess + of_excess, at.tilt, at.measure)
            return WeightMoments(mean, None, np.sqrt(variance))
        sd = np.sqrt(np.maximum(measure_squares - of_measure**2, 0.0))
        along = np.divide(products - of_excess * of_measure, sd, out=np.zeros_like(sd), where=sd > 0)
        of_tilt = at.measure is at.tilt
        mean_measure = at.measure + of_measure
        mean_tilt, common_tilt = (mean_measure, sd) if of_tilt else (at.tilt, np.zeros_like(sd))
        mean = ImportanceWeights(at.excess + of_excess, mean_tilt, mean_measure)
        common = ImportanceWeights(along, common_tilt, sd)
        return WeightMoments(mean, common, np.sqrt(np.maximum(variance - along**2, 0.0)))


@dataclass(frozen=True)
class ModelRows:
    """Rows to be weighed.

    Parameters
    ----------
    model : WeightModel
        Propensity model and target, on the rows.
    slices : tuple of slice
        Rows of each arm.
    place : slice, optional
        Where they are in a sample in memory; None of rows that come from elsewhere.
    """

    model: WeightModel
    slices: tuple[slice, ...]
    place: slice | None = None


class ResampleReplicates(ABC):
    """The distribution of the propensity score within resamples.

    Attributes
    ----------
    count : int
        Number of replicates, B, or of their combinations.
    at_once : int or None
        Number of resamples worked on at a time, whose importance weights are kept between passes; None for any.
    in_blocks : bool
        Whether rows in memory are weighed block by block, each of which stays in the cache.
    """

    count: int
    at_once: int | None = None
    in_blocks = False

    @abstractmethod
    def weigh(
        self, rows: ModelRows, counts: Array, gamma: Array, numbers: NDArray[np.intp], whole: TargetSums
    ) -> tuple[ImportanceWeights, ReplicateWeights]:
        """Weigh some rows in resamples, and under the replicates of each.

        Parameters
        ----------
        counts : ndarray, shape (n, m)
            Multiplicities.
        gamma : ndarray, shape (S, m)
            Propensity coefficients fitted under those of all rows.
        numbers : ndarray of int, shape (m,)
            Which resamples these are.
        """


class ShiftedLogitReplicates(ResampleReplicates):
    """Shifted replicates of a log-linear model: their excess is the resample's times one matrix for all resamples.

    Parameters
    ----------
    shifts : ndarray, shape (S, B)
        Distances of the replicates from the score.
    combinations : ndarray, shape (B, r), optional
        Orthogonal combinations of the replicates in the place of these, as by `orthogonal_combinations`.
    n_kept : int, default 0
        Rows in memory whose factors are kept, if these are few.
    """

    in_blocks = True

    def __init__(self, shifts: Array, combinations: Array | None = None, n_kept: int = 0) -> None:
        self.shifts, self.combinations = shifts, combinations
        self.count = shifts.shape[1] if combinations is None else combinations.shape[1]
        self._keeps, self._known = 8 * n_kept * self.count <= KEPT, dict[int, ShiftFactors]()

    @classmethod
    def of(cls, weight_fit: WeightFit, replicates: Replicates, penalty: float | None = None) -> ShiftedLogitReplicates:
        """Return those of rows in memory.

        Parameters
        ----------
        penalty : float, optional
            Weight of the sums of squares over replicates in the objective. Orthogonal combinations of the replicates
            have the same sums, and few suffice; by default the replicates are kept.
        """
        model, n, shifts = weight_fit.model, len(weight_fit.excess), replicates.shifts(weight_fit.gamma)
        if penalty is None:
            return cls(shifts, n_kept=n)
        blocks, tolerance = row_blocks(n) if model.by_rows else [slice(0, n)], np.sqrt(NEGLIGIBLE / penalty)
        factors = (_shift_factors(model.part(rows) if model.by_rows else model, shifts) for rows in blocks)
        first = next(factors)
        if fewest_combinations(shifts, len(first), tolerance) >= replicates.count:
            return cls(shifts, n_kept=n)
        return cls(shifts, orthogonal_combinations(itertools.chain([first], factors), n, tolerance), n)

    def factors(self, rows: ModelRows) -> ShiftFactors:
        """Return the factors of rows, those of rows in memory from the first time where they are kept."""
        known = None if rows.place is None else self._known.get(rows.place.start)
        if known is None:
            known = ShiftFactors.of(_shift_factors(rows.model, self.shifts))
            known = known if self.combinations is None else known.combined(self.combinations)
            if self._keeps and rows.place is not None:
                self._known[rows.place.start] = known
        return known

    def weigh(
        self, rows: ModelRows, counts: Array, gamma: Array, numbers: NDArray[np.intp], whole: TargetSums
    ) -> tuple[ImportanceWeights, ReplicateWeights]:
        """As in `ResampleReplicates`."""
        terms, at = rows.model.terms(rows.model.predictors(gamma), counts, whole)
        return at, ShiftedLogitWeights(rows.slices, terms, at.tilt, self.factors(rows))


def _shift_factors(model: WeightModel, shifts: Array) -> Array:
    """Factors of the terms of the excess under each shift of gamma, shape (T, n, B)."""
    return model.odds(model.predictors(shifts))


@dataclass(frozen=True)
class BatchedReplicates(ResampleReplicates):
    """Replicates of any model and target: one resample at a time.

    Parameters
    ----------
    count : int
        Number of replicates, B.
    gamma_of : callable
        Multiplicities (n,) of a resample and its own propensity coefficients (S,) -> coefficients of its usable
        replicates, shape (S, B_j).
    at_once : int or None
        As in `ResampleReplicates`.
    totals : list of ReplicateTotals, optional
        Sums over all rows for each resample, where rows come in blocks.
    """

    count: int
    gamma_of: Callable[[Array, Array], Array]
    at_once: int | None = None
    totals: list[ReplicateTotals] | None = None

    @classmethod
    def of(cls, weight_fit: WeightFit, count: int, gamma_of: Callable[[Array, Array], Array]) -> BatchedReplicates:
        """Return those of rows in memory; parameters as of the class, and the full-sample fit."""
        bytes_of_one = kept_bytes(weight_fit.model, len(weight_fit.excess), count)
        return cls(count, gamma_of, max(KEPT // bytes_of_one, 1))

    def weigh(
        self, rows: ModelRows, counts: Array, gamma: Array, numbers: NDArray[np.intp], whole: TargetSums
    ) -> tuple[ImportanceWeights, ReplicateWeights]:
        """As in `ResampleReplicates`."""
        at = rows.model.weights_at(rows.model.predictors(gamma), counts, whole)
        gammas = [self.gamma_of(counts[:, j], gamma[:, j]) for j in range(len(numbers))]
        totals = None if self.totals is None else [self.totals[number] for number in numbers]
        return at, BatchedWeights(rows.slices, rows.model, counts, gammas, self.count, totals)


def shifted_gamma(shifts: Array, counts: Array, gamma: Array) -> Array:
    """Replicates of the full sample, moved along with the resample's own fit; `shifts` as in `Replicates`."""
    return gamma[:, None] + shifts


def fewest_combinations(delta: Array, n_terms: int, tolerance: float) -> int:
    """Bound from below how many combinations of exp(columns @ delta) matter, with delta of shape (S, B).

    Their number is about that of the monomials of the Taylor series, in as many variables as there are columns without
    the constant; of the last degree that is not negligible some may be.
    """
    size, variables = float(np.sqrt((delta**2).sum(axis=0).mean())), max(len(delta) - n_terms, 1)
    degree = 0
    while size ** (degree + 1) > tolerance * math.sqrt(math.factorial(degree + 1)):
        degree += 1
    return math.comb(variables + max(degree - 1, 0), variables)
