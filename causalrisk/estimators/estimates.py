"""Rows of a fit with scores and weights, a point estimate with its influence function, refits under resamples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.covariates import Covariate
from causalrisk.design.design import Rowless
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.failures import Failure, first_failure
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.models import Arms
from causalrisk.propensity.weights import WeightFit

T = TypeVar("T")


@dataclass(frozen=True)
class FittedRows:
    """Rows of a fit in the order of the data.

    Parameters
    ----------
    arm : ndarray of int, shape (n,)
        Arm of each row.
    weights, units : ndarray, shape (n,)
        Observation weights, and how many observations each row stands for.
    importance : ndarray, shape (n,)
        Importance weights, not divided by the mean tilt.
    scores : ndarray, shape (K, n)
        Probability of each arm.
    covariates : callable
        Returns the covariates of both models, or if True is passed of the observation model too; of a block of others
        with those that are constant.
    chances : ndarray, shape (n,), optional
        Probability that the outcome is observed, where some are missing.
    recorded : ndarray of bool, shape (n,), optional
        Whether it is.
    """

    arm: Arms
    weights: Array
    units: Array
    importance: Array
    scores: Array
    covariates: Callable[..., list[Covariate]]
    chances: Array | None = None
    recorded: NDArray[np.bool_] | None = None

    @property
    def with_outcome(self) -> NDArray[np.bool_]:
        """Whether the outcome is observed, shape (n,)."""
        return np.ones(len(self.arm), dtype=bool) if self.recorded is None else self.recorded


class FittedBlocks(Protocol):
    """The rows of a fit to a scan, as often as they are asked for; it does not travel with a pickle."""

    def over(self, function: Callable[[FittedRows], T], covariates: bool = False) -> Iterator[T]:
        """Begin a pass: what a function makes of each block; over the files where it asks for covariates."""


class EstimateRows(Protocol):
    """What an estimate has of every row, in the order of the sample."""

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Begin a pass over the influence function: rows, and its values there."""


@dataclass(frozen=True)
class KnownRows:
    """What an estimate has of every row, in memory.

    Parameters
    ----------
    predicted, influence
        As in `EstimateRows`.
    """

    predicted: Array
    influence: Array

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`: one block."""
        yield slice(0, len(self.influence)), self.influence


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its influence function; rows in the order of the sample.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects of the arms against the reference, then the mean of each arm; of J quantiles an arm ((2 K - 1) J,).
    theta : ndarray, shape (K, p)
        Outcome coefficients of the basis columns; none, p = 0, of quantiles.
    gamma : ndarray, shape (Q,)
        Propensity coefficients of the basis columns; empty without a propensity model.
    model_means : ndarray, shape (K,)
        Averages of `predicted` over the target.
    rows : EstimateRows
        Predictions and influence function.
    failed : tuple of int
        For each arm OK, or why its outcome model has no fit; empty for a joint fit.
    """

    params: Array
    theta: Array
    gamma: Array
    model_means: Array
    rows: EstimateRows
    failed: tuple[int, ...] = ()

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""
        return self.rows.predicted

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""
        return self.rows.influence

    def block(self, name: str, arm: int | None = None) -> slice:
        """Columns of `influence`, and entries of `values`, that belong to one kind of estimate.

        Parameters
        ----------
        name : {"effects", "means", "theta", "gamma"}
            Effects, arm means, outcome or propensity coefficients.
        arm : int, optional
            One arm's outcome coefficients; by default those of all arms.
        """
        n_arms, p = self.theta.shape
        first = len(self.params)
        effects = first // (2 * n_arms - 1) * (n_arms - 1)
        if name == "theta" and arm is not None:
            return slice(first + arm * p, first + (arm + 1) * p)
        last = first + self.theta.size
        return {
            "effects": slice(0, effects),
            "means": slice(effects, first),
            "theta": slice(first, last),
            "gamma": slice(last, last + len(self.gamma)),
        }[name]

    @property
    def values(self) -> Array:
        """All estimates in the order of the columns of `influence`."""
        return np.concatenate([self.params, self.theta.ravel(), self.gamma])


class ScannedEstimate(Rowless, Estimate):
    """A point estimate on rows that come in blocks; predictions and influence function are not kept."""

    @classmethod
    def of(cls, estimate: Estimate) -> ScannedEstimate:
        """Return an estimate without what goes by rows."""
        kept = ("params", "theta", "gamma", "model_means", "failed")
        return cls(**{name: getattr(estimate, name) for name in kept})


ROWS_TOGETHER = 4096  # blocks of resamples of fewer rows than that are worked on as one
RELATIVE_ROUNDING = 1e-13  # relative decrease of an objective, or relative size of a mean, that is rounding error


@dataclass(frozen=True)
class Refits:
    """Estimates under m resamples.

    Parameters
    ----------
    values : ndarray, shape (d, m)
        `Estimate.values` for each resample; NaN where it failed.
    failures : ndarray of int8, shape (m,)
        A `Failure` for each resample.
    start : ndarray, shape (2 K - 1, m), optional
        Of a joint fit effects and arm means of IPWRA, where it starts; NaN where this failed.
    """

    values: Array
    failures: NDArray[np.int8]
    start: Array | None = None


class Refitter(Protocol):
    """Estimates an effect again under many resamples at once.

    Attributes
    ----------
    arrays : int
        Arrays with a number for each row and resample that there are at a time.
    rows_together : int
        Rows up to which several blocks of resamples are worked on as one: as many as fit in it.
    """

    @property
    def arrays(self) -> int:
        """Arrays with a number for each row and resample that there are at a time."""

    @property
    def rows_together(self) -> int:
        """Rows up to which several blocks of resamples are worked on as one."""

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """Refit under multiplicities.

        Parameters
        ----------
        counts : ndarray, shape (n, m)
            Multiplicities.
        first : int
            Number of the first resample.
        fits : NewtonFits, optional
            Propensity refits under them, where another estimator already made them.
        """


class Refitters:
    """Several estimators under the same resamples, the propensity model fitted again once for all.

    Parameters
    ----------
    refitters : sequence of Refitter
        One for each estimator.
    weight_fit : WeightFit or None
        The full-sample importance weights, where one of them uses any.
    """

    def __init__(self, refitters: Sequence[Refitter], weight_fit: WeightFit | None) -> None:
        self.refitters, self.weight_fit = refitters, weight_fit

    @property
    def arrays(self) -> int:
        """As in `Refitter`."""
        return max(refitter.arrays for refitter in self.refitters)

    @property
    def rows_together(self) -> int:
        """As in `Refitter`."""
        return min(refitter.rows_together for refitter in self.refitters)

    def refit_each(self, counts: Array, first: int, fits: NewtonFits | None = None) -> list[Refits]:
        """Refit every estimator, arguments as in `Refitter.refit`."""
        if fits is None and self.weight_fit is not None:
            fits = self.weight_fit.refit(counts)
        return [refitter.refit(counts, first, fits) for refitter in self.refitters]


def collect_refits(params: Array, theta: Array, gamma: Array, failures: NDArray[np.int8]) -> Refits:
    """Collect the values; NaN where a resample failed, or where the effect is not defined.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1, m)
        Effects and arm means.
    theta : ndarray, shape (K, p, m)
        Outcome coefficients.
    gamma : ndarray, shape (Q, m)
        Propensity coefficients.
    failures : ndarray of int8, shape (m,)
        What failed so far.
    """
    failures = first_failure(failures, np.where(np.isnan(params).any(axis=0), Failure.NO_EFFECT, Failure.OK))
    values = np.concatenate([params, theta.reshape(-1, params.shape[1]), gamma])
    values[:, failures != Failure.OK] = np.nan
    return Refits(values, failures)


def count_totals(sample: Sample, counts: Array) -> Array:
    """Sum of each column of counts over the sample, shape (m,); 1 for one without rows, recorded as an empty arm."""
    total = counts[sample.n_frame :].sum(axis=0)
    return np.where(total > 0, total, 1.0)


def empty_arms(sample: Sample, counts: Array) -> NDArray[np.int8]:
    """EMPTY_ARM where the counts leave an arm or the target without rows, else OK; shape (m,)."""
    observed = counts * sample.observed[:, None] if sample.n_frame else counts
    present = np.stack([observed[rows].sum(axis=0) > 0 for rows in sample.slices]).all(axis=0)
    if sample.n_frame:
        present &= counts[: sample.n_frame].sum(axis=0) > 0
    return np.where(present, Failure.OK, Failure.EMPTY_ARM).astype(np.int8)
