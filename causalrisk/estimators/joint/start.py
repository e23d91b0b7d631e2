"""The IPWRA fit that the joint estimator starts from, and the share of its effect heterogeneity that is real.

Flows in: rows with their importance weights, the coefficients of the start. Flows out: sums that the objective holds
fixed, the influence function of the start, and the share c that V leaves out of the risk. With m_a the means at the
start, tau = C m the contrasts of the arms and averages over the target,

    c = max(0, 1 - 2 N / S),    S = mean (tau - mean tau)^2,    N = mean Var(tau - mean tau)

The variance N is a sandwich of the arms' weighted fits; residuals are divided by 1 - h, h the leverage of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure
from causalrisk.estimators.outcome import ThetaSums, influence_of_theta, theta_sums, trained_rows
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.estimators.specification import IPWRA, EffectScale
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, solve_or_nan
from causalrisk.propensity.weights import WeightFit

LARGEST_LEVERAGE = 0.9  # of a row: beyond, its residual says nothing of the others


# --- independent units ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOutUnits:
    """What is left out at once: rows, clusters, or one of the equal rows that a frequency weight counts.

    Parameters
    ----------
    weights : ndarray, shape (n,)
        Weight of each row within its unit.
    counts : ndarray, shape (G,)
        Number of equal units.
    codes : ndarray of int, shape (n,)
        Unit of each row.
    numbers : ndarray of int, shape (G,), optional
        Which of all clusters the units are.
    """

    weights: Array
    counts: Array
    codes: NDArray[np.intp]
    numbers: NDArray[np.intp] | None = None

    def sums(self, rows: Array) -> Array:
        """Weighted sums of rows, shape (n, d), within units, shape (G, d)."""
        if self.numbers is None:  # a unit each
            return self.weights[:, None] * rows
        total = np.zeros((len(self.counts), rows.shape[1]))
        np.add.at(total, self.codes, self.weights[:, None] * rows)
        return total

    @property
    def cluster_numbers(self) -> NDArray[np.intp]:
        """Which of all clusters the units are."""
        return np.arange(len(self.counts)) if self.numbers is None else self.numbers


UnitsOf = Callable[[slice, Sample], HeldOutUnits]  # of a block of rows, and where it is


def clusters_held_out(place: slice, sample: Sample) -> HeldOutUnits:
    """Leave out the clusters that rows of a block are of."""
    if sample.cluster is None:
        raise TypeError("the rows have no clusters")
    numbers, codes = np.unique(sample.cluster, return_inverse=True)
    return HeldOutUnits(sample.s, np.ones(len(numbers)), codes, numbers)


def rows_alone(frequency: bool, place: slice, sample: Sample) -> HeldOutUnits:
    """Leave out each row of a block, or one of the equal rows that a frequency weight counts."""
    ones, rows = np.ones(sample.n), np.arange(sample.n)
    return HeldOutUnits(ones, sample.s, rows) if frequency else HeldOutUnits(sample.s, ones, rows)


@dataclass(frozen=True)
class ByCluster:
    """Sums over the rows of clusters.

    Parameters
    ----------
    numbers : ndarray of int, shape (g,)
        The clusters, ascending.
    sums : tuple of ndarray, shape (g, ...)
        Their sums.
    """

    numbers: NDArray[np.intp]
    sums: tuple[Array, ...]

    def among(self, numbers: NDArray[np.intp]) -> ByCluster:
        """Return the sums of these clusters and others, zero for the others."""
        every = tuple(np.zeros((len(numbers), *own.shape[1:])) for own in self.sums)
        at = np.searchsorted(numbers, self.numbers)
        for whole, own in zip(every, self.sums, strict=True):
            whole[at] = own
        return ByCluster(numbers, every)


def added(parts: Iterable[ByCluster], numbers: NDArray[np.intp] | None = None) -> ByCluster:
    """Add up the sums of rows in several parts.

    Parameters
    ----------
    parts : iterable of ByCluster
        One at least.
    numbers : ndarray of int, optional
        All clusters, where they are known.
    """
    every = iter(parts)
    first = next(every)
    total = first.among(first.numbers if numbers is None else numbers)
    for part in every:
        together = np.union1d(total.numbers, part.numbers) if numbers is None else numbers
        if len(together) > len(total.numbers):
            total = total.among(together)
        at = np.searchsorted(total.numbers, part.numbers)
        for whole, own in zip(total.sums, part.sums, strict=True):
            whole[at] += own
    return total


# --- the start -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """The outcome models of IPWRA.

    Parameters
    ----------
    theta : ndarray, shape (K, p)
        Coefficients.
    sums : ThetaSums
        What their influence function is made of.
    frequency : bool
        Whether weights count repeated rows, each of which is an observation.
    """

    theta: Array
    sums: ThetaSums
    frequency: bool

    @property
    def inverse(self) -> Array:
        """Inverse of the bread of each arm, shape (K, p, p)."""
        return np.stack([solve_or_nan(bread, np.eye(len(bread))) for bread in self.sums.bread])

    def influence(self, sample: Sample, weight_fit: WeightFit) -> Array:
        """Influence function of the coefficients on rows, shape (n, K p)."""
        found = np.empty((sample.n, *self.theta.shape))
        influence_of_theta(trained_rows(sample, IPWRA, weight_fit, self.theta), self.sums, found)
        return found.reshape(sample.n, -1)

    def scores(self, sample: Sample, weight_fit: WeightFit) -> Array:
        """Scores of observations held out, in the place of their arm: residuals over 1 - h; shape (n, K, p)."""
        observation = np.ones(sample.n) if self.frequency else sample.s
        rows, found = trained_rows(sample, IPWRA, weight_fit, self.theta), np.zeros((sample.n, *self.theta.shape))
        for a, (members, inverse) in enumerate(zip(sample.slices, self.inverse, strict=True)):
            q, w = rows.q[members], weight_fit.w[members]
            weights = observation[members] / sample.total * w * rows.curvature[members]
            leverage = weights * ((q @ inverse) * q).sum(axis=1)
            kept = 1 - np.minimum(leverage, LARGEST_LEVERAGE)
            found[members, a] = (w * rows.score[members] / kept)[:, None] * q
        return found

    def held_out(self, sample: Sample, weight_fit: WeightFit) -> Array:
        """How the coefficients move without rows at known scores, over minus the share of a row; shape (n, K p)."""
        scores = self.scores(sample, weight_fit)
        return np.einsum("nap,apq->naq", scores, self.inverse).reshape(sample.n, -1)


@dataclass(frozen=True)
class Starts:
    """IPWRA under m resamples.

    Parameters
    ----------
    theta : ndarray, shape (K, p, m)
        Coefficients; where the fit failed those of the full sample.
    means : ndarray, shape (K, m)
        Arm means.
    failures : ndarray of int8, shape (m,)
        What failed.
    """

    theta: Array
    means: Array
    failures: NDArray[np.int8]

    def part(self, some: slice | NDArray[np.intp]) -> Starts:
        """Return those of some of the resamples."""
        return Starts(self.theta[..., some], self.means[:, some], self.failures[some])

    def params(self, scale: EffectScale) -> Array:
        """Effects and arm means, shape (2 K - 1, m); NaN where the fit failed."""
        with np.errstate(all="ignore"):
            return np.where(self.failures == Failure.OK, scale.params(self.means), np.nan)


@dataclass(frozen=True)
class StartSums:
    """Sums over rows of the start; those of blocks add up.

    Parameters
    ----------
    weight, variance : float
        Importance weights of the rows, and their products with the variance function.
    squares : float
        Squared residuals over N.
    theta : ThetaSums
        What the influence function of the coefficients is made of.
    means, slopes : ndarray, shape (K,) and (K, p)
        Averages of the means over the target, and their derivatives by the coefficients of the arm.
    """

    weight: float
    variance: float
    squares: float
    theta: ThetaSums
    means: Array
    slopes: Array

    @classmethod
    def of(cls, theta: Array, place: slice, sample: Sample, weight_fit: WeightFit) -> StartSums:
        """Sum over rows."""
        eta = shifted(theta @ sample.X.columns.T, sample.offset)
        own, mean = sample.own(eta), sample.family.mean(eta)
        predicted = sample.family.mean(own)
        weights, tilted = sample.s * weight_fit.w, sample.s * weight_fit.tilt / sample.total
        return cls(
            weight=float(weights.sum()),
            variance=float(weights @ sample.family.variance(predicted)),
            squares=float(sample.mean(sample.with_outcome * (sample.y - predicted) ** 2)),
            theta=theta_sums(trained_rows(sample, IPWRA, weight_fit, theta)),
            means=mean @ tilted,
            slopes=(tilted * sample.family.mean_deriv(eta)) @ sample.X.columns,
        )


@dataclass(frozen=True)
class _Spread:
    """S and the covariance over the target of the derivatives of the means, (K p, K p); sums over rows."""

    squares: float
    slopes: Array


def real_share(
    over: Callable[..., Iterator[Any]], start: Start, sums: StartSums, contrasts: Array, units: UnitsOf, clusters: int
) -> float:
    """Share c of the effect heterogeneity at the start that is not sampling error.

    Parameters
    ----------
    over : callable
        Begins a pass over the rows with their importance weights, as `train.JointProblem.over_fits`.
    start : Start
        The start.
    sums : StartSums
        Sums over the rows.
    contrasts : ndarray, shape (C, K)
        Contrasts of the arms.
    units : callable
        Independent units of a block of rows: rows, clusters, or one of the equal rows that a weight counts.
    clusters : int
        Number of clusters; 0 where the units are rows.

    Returns
    -------
    float
        c, from 0 to 1.
    """
    theta = start.theta
    spread = add_up(over(partial(_spread, theta, sums, contrasts)))
    if clusters:  # whose rows may be in several blocks
        parts = over(partial(_cluster_scores, start, units))
        (scores,) = added(parts, np.arange(clusters)).sums
        meat = scores.T @ scores
    else:
        meat = add_up(over(partial(_meat, start, units)))
    n_arms, p = theta.shape
    inverse = np.zeros((n_arms, p, n_arms, p))
    inverse[range(n_arms), :, range(n_arms)] = start.inverse
    bread = inverse.reshape(theta.size, theta.size)
    products = np.kron(contrasts.T @ contrasts, np.ones((p, p))) * spread.slopes
    error = float((products * (bread @ meat @ bread.T)).sum())
    share = 1 - 2 * error / spread.squares if spread.squares > 0 else 0.0
    return max(share, 0.0) if np.isfinite(share) else 0.0


def _spread(
    theta: Array, sums: StartSums, contrasts: Array, place: slice, sample: Sample, weight_fit: WeightFit
) -> _Spread:
    q, family, tilted = sample.X.columns, sample.family, sample.s * weight_fit.tilt / sample.total
    eta = shifted(theta @ q.T, sample.offset)
    tau = contrasts @ (family.mean(eta) - sums.means[:, None])
    slopes = np.concatenate(
        [of[:, None] * q - mean for of, mean in zip(family.mean_deriv(eta), sums.slopes, strict=True)], axis=1
    )
    return _Spread(float((tau**2).sum(axis=0) @ tilted), (slopes.T * tilted) @ slopes)


def _unit_scores(start: Start, own: HeldOutUnits, sample: Sample, weight_fit: WeightFit) -> Array:
    """Scores held out, over the total of the weights, summed within units; shape (G, K p)."""
    scores = start.scores(sample, weight_fit)
    return own.sums(scores.reshape(sample.n, -1)) / sample.total


def _meat(start: Start, units: UnitsOf, place: slice, sample: Sample, weight_fit: WeightFit) -> Array:
    own = units(place, sample)
    scores = _unit_scores(start, own, sample, weight_fit)
    return (scores.T * own.counts) @ scores


def _cluster_scores(start: Start, units: UnitsOf, place: slice, sample: Sample, weight_fit: WeightFit) -> ByCluster:
    own = units(place, sample)
    return ByCluster(own.cluster_numbers, (_unit_scores(start, own, sample, weight_fit),))
