"""Importance weights of rows and how they depend on the propensity coefficients.

Everything is divided by the mean tilt, so that sums of s times it over N are averages over the target. With the tilt as
t, weights are kept as the *excess* w - t: for the whole population that is the odds (1 - e_a) / e_a, which keeps its
digits where w is close to 1. The *measure* is the divisor's summand: t itself, but for a target frame, whose rows
have no weight, the density ratio of the rows of the sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.linalg import Array, weighted_rows


@dataclass(frozen=True)
class ImportanceWeights:
    """Importance weights under m gammas and m multiplicities of the rows, divided by the mean tilt.

    Parameters
    ----------
    excess : ndarray, shape (n, m)
        Importance weight w less the tilt.
    tilt : ndarray, shape (n, m) or (n, 1)
        Weight of a row in averages over the target.
    measure : ndarray, shape (n, m) or (n, 1)
        The row's summand in the divisor of the importance weights; the tilt itself, but for a target frame.
    """

    excess: Array
    tilt: Array
    measure: Array

    @property
    def w(self) -> Array:
        """Importance weights, shape (n, m)."""
        return self.excess + self.tilt

    def scaled(self, factor: Array) -> ImportanceWeights:
        """Return the weights times a factor of shape (n, m)."""
        tilt = self.tilt * factor
        measure = tilt if self.measure is self.tilt else self.measure * factor
        return ImportanceWeights(self.excess * factor, tilt, measure)

    def part(self, rows: slice) -> ImportanceWeights:
        """Return the weights of some of the rows."""
        tilt = self.tilt[rows]
        # One array stays one: `measure is tilt` says that there is no target frame.
        return ImportanceWeights(self.excess[rows], tilt, tilt if self.measure is self.tilt else self.measure[rows])

    def subset(self, resamples: NDArray[np.bool_]) -> ImportanceWeights:
        """Return the weights of some of the resamples."""
        tilt = some_columns(self.tilt, resamples)
        measure = tilt if self.measure is self.tilt else some_columns(self.measure, resamples)
        return ImportanceWeights(self.excess[:, resamples], tilt, measure)


def some_columns(values: Array, columns: NDArray[np.bool_]) -> Array:
    """Take columns of values of shape (n, m); values of shape (n, 1), shared by all columns, stay as they are."""
    return values if values.shape[1] == 1 else values[:, columns]


@dataclass(frozen=True)
class WeightSlopes:
    """Derivatives of importance weights under m gammas, by each predictor that has coefficients.

    Parameters
    ----------
    w : ndarray, shape (L, n, m)
        Slopes of the importance weight, divided by the mean measure.
    measure : ndarray, shape (L, n, m), or None
        Slopes of the measure, divided by its mean; None where it does not depend on gamma.
    log_mean : ndarray, shape (L q, m), or None
        Derivatives of the logarithm of the mean measure by the coefficients.
    """

    w: Array
    measure: Array | None
    log_mean: Array | None

    def part(self, rows: slice) -> WeightSlopes:
        """Return the derivatives of some of the rows."""
        return WeightSlopes(self.w[:, rows], None if self.measure is None else self.measure[:, rows], self.log_mean)

    def of_w(self, columns: Array, w: Array, factor: Array) -> Array:
        """Sum over the gammas of a factor (n, m) times the derivative of w by the coefficients, shape (n, Q)."""
        return self._summed(self.w, columns, w, factor)

    def of_measure(self, columns: Array, measure: Array, factor: Array) -> Array:
        """Sum over the gammas of a factor times the derivative of the measure, (n, Q); zero where it is fixed."""
        if self.measure is None:
            return np.zeros((len(columns), len(self.w) * columns.shape[1]))
        return self._summed(self.measure, columns, measure, factor)

    def _summed(self, slope: Array, columns: Array, value: Array, factor: Array) -> Array:
        total = _by_coefficients(np.einsum("lnm,nm->ln", slope, factor)[..., None], columns)
        return total if self.log_mean is None else total - (factor * value) @ self.log_mean.T


@dataclass(frozen=True)
class RowWeights(ABC):
    """Importance weights of rows, divided by the mean tilt; arrays of several numbers a row are made when asked for.

    Parameters
    ----------
    excess, tilt, measure : ndarray, shape (n,)
        As in `ImportanceWeights`.
    columns : ndarray, shape (n, q)
        Basis columns of the propensity design.
    inverse : ndarray, shape (L, q, Q)
        Inverse information: times score and basis columns it is the influence function of the coefficients.
    """

    excess: Array
    tilt: Array
    measure: Array
    columns: Array
    inverse: Array

    @property
    @abstractmethod
    def slopes(self) -> WeightSlopes:
        """Derivatives of the importance weights, of shape (L, n, 1)."""

    @property
    @abstractmethod
    def score(self) -> Array:
        """Score of each row in each predictor, shape (L, n)."""

    @property
    def size(self) -> int:
        """Number of propensity coefficients that weights depend on, Q."""
        return self.inverse.shape[2]

    def part(self, rows: slice) -> RowWeights:
        """Return the weights of some of the rows."""
        tilt, measure = self._target_of(rows)
        return KeptWeights(
            excess=self.excess[rows],
            tilt=tilt,
            measure=measure,
            columns=self.columns[rows],
            inverse=self.inverse,
            kept_slopes=self.slopes.part(rows),
            kept_score=self.score[:, rows],
        )

    def _target_of(self, rows: slice) -> tuple[Array, Array]:
        """Tilt and measure of some of the rows: one shared array where they are equal."""
        tilt = self.tilt[rows]
        return tilt, tilt if self.measure is self.tilt else self.measure[rows]

    @cached_property
    def w_by_gamma(self) -> Array:
        """Derivative of the importance weights by the propensity coefficients, shape (n, Q)."""
        return self._by_gamma(self.slopes.w, self.w)

    @cached_property
    def measure_by_gamma(self) -> Array | None:
        """Derivative of the measure by the propensity coefficients, shape (n, Q); None where it is fixed."""
        slopes = self.slopes
        return None if slopes.measure is None else self._by_gamma(slopes.measure, self.measure)

    @property
    def tilt_by_gamma(self) -> Array | None:
        """Derivative of the tilt by the propensity coefficients, shape (n, Q); None where it is fixed."""
        return self.measure_by_gamma if self.measure is self.tilt else None

    def _by_gamma(self, slope: Array, value: Array) -> Array:
        total, log_mean = _by_coefficients(slope, self.columns), self.slopes.log_mean
        return total if log_mean is None else total - value[:, None] @ log_mean.T

    @cached_property
    def influence(self) -> Array:
        """Influence function of the propensity coefficients, shape (n, Q)."""
        found = np.zeros((len(self.tilt), self.size))
        for factor, matrix in zip(self.score, self.inverse, strict=True):
            found += weighted_rows(self.columns, factor, matrix)
        return found

    @property
    def w(self) -> Array:
        """Importance weights, shape (n,)."""
        return self.excess + self.tilt

    @property
    def coefficients(self) -> Array:
        """The propensity coefficients, shape (Q,)."""
        return np.empty(0)

    def as_resample(self) -> ImportanceWeights:
        """Return the weights of the full sample as a single resample's, shape (n, 1)."""
        tilt = self.tilt[:, None]
        measure = tilt if self.measure is self.tilt else self.measure[:, None]
        return ImportanceWeights(self.excess[:, None], tilt, measure)


@dataclass(frozen=True)
class KeptWeights(RowWeights):
    """Importance weights whose derivatives and score are kept.

    Parameters
    ----------
    excess, tilt, measure, columns, inverse
        As in `RowWeights`.
    kept_slopes, kept_score
        The `slopes` and `score`.
    """

    kept_slopes: WeightSlopes
    kept_score: Array

    @classmethod
    def without_scores(cls, tilt: Array) -> KeptWeights:
        """Return weights of one, for estimators that use no propensity score; tilt of shape (n,)."""
        none = np.empty((0, len(tilt)))
        return cls(
            excess=1 - tilt,
            tilt=tilt,
            measure=tilt,
            columns=none.T,
            inverse=np.empty((0, 0, 0)),
            kept_slopes=WeightSlopes(none[..., None], None, None),
            kept_score=none,
        )

    @property
    def slopes(self) -> WeightSlopes:
        """As in `RowWeights`."""
        return self.kept_slopes

    @property
    def score(self) -> Array:
        """As in `RowWeights`."""
        return self.kept_score


def _by_coefficients(slopes: Array, columns: Array) -> Array:
    """Return derivatives by the coefficients, shape (n, L q), from derivatives by the predictors, shape (L, n, 1)."""
    return (slopes * columns).transpose(1, 0, 2).reshape(len(columns), len(slopes) * columns.shape[1])
