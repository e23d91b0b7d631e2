"""Rows of a fit with scores and weights, a point estimate with its influence function, refits under resamples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.covariates import Covariate
from causalrisk.design.design import Rowless
from causalrisk.design.survey import Factors
from causalrisk.errors import Failure, first_failure
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, weighted_gram
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
    """What an estimate has of every row, in memory."""

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

    @classmethod
    def joined(cls, parts: Sequence[Refits]) -> Refits:
        """Put estimates under resamples one after the other."""
        starts = [part.start for part in parts if part.start is not None]
        return cls(
            np.concatenate([part.values for part in parts], axis=1),
            np.concatenate([part.failures for part in parts]),
            np.concatenate(starts, axis=1) if starts else None,
        )


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

    def refit(self, counts: Array, fits: NewtonFits | None = None) -> Refits:
        """Refit under multiplicities.

        Parameters
        ----------
        counts : ndarray, shape (n, m)
            Multiplicities times the weights of the rows.
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

    def refit_each(self, counts: Array, fits: NewtonFits | None = None) -> list[Refits]:
        """Refit every estimator, arguments as in `Refitter.refit`."""
        if fits is None and self.weight_fit is not None:
            fits = self.weight_fit.refit(counts)
        return [refitter.refit(counts, fits) for refitter in self.refitters]


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


@dataclass(frozen=True)
class BlockInfluence:
    """Influence function of all estimates on a block of rows.

    Parameters
    ----------
    influence : ndarray, shape (n, d)
        As in `Estimate`.
    weights : ndarray, shape (n,)
        Observation weights.
    cluster : ndarray of int, shape (n,), or None
        Clusters.
    stratum : ndarray of int, shape (n,), optional
        Strata of a survey design.
    number : ndarray of int, shape (n,), optional
        Number of each row among all, those of a target frame last, where something is drawn for it.
    """

    influence: Array
    weights: Array
    cluster: NDArray[np.intp] | None
    stratum: NDArray[np.intp] | None = None
    number: NDArray[np.intp] | None = None


def sandwich(
    over: Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]],
    *,
    n: float,
    total: float,
    frequency: bool,
    n_clusters: int | None,
    n_coefficients: int,
    strata: Factors | None = None,
) -> Array:
    """Return the covariance of estimates from their influence functions.

    Parameters
    ----------
    over : callable
        Maps a function over blocks of rows: influence function IF_i of d estimates, relative to N, and observation
        weights s_i.
    total : float
        Sum N of the observation weights of the sample, without rows of a target frame.
    n_clusters : int or None
        Number of clusters G; their influence functions are summed before they are squared. None without clusters.
    n_coefficients : int
        k of the small-sample factor n / (n - k), as HC1 has it, and with clusters G / (G - 1) (n - 1) / (n - k); 0 for
        no factor.
    strata : Factors, optional
        Weights of the strata of a survey design, whose first-stage units are the clusters, or the rows without these.

    Returns
    -------
    ndarray, shape (d, d)
        sum_i (s_i IF_i)(s_i IF_i)' / N^2; with frequency weights sum_i s_i IF_i IF_i' / N^2. Of a survey design
        sum_h (1 - f_h) n_h / (n_h - 1) sum_j (t_hj - mean_h)(t_hj - mean_h)' / N^2, t_hj the sums of s_i IF_i in the
        units [2]_.

    References
    ----------
    .. [1] Stefanski, L. A. and Boos, D. D. (2002). The calculus of M-estimation. The American Statistician 56, 29-38.
    .. [2] Binder, D. A. (1983). On the variances of asymptotically normal estimators from complex surveys.
       International Statistical Review 51, 279-292.
    """
    factor = small_sample_factor(n, n_coefficients, n_clusters if strata is None else None)
    if strata is not None:
        meat = _stratified(over, strata, n_clusters)
    elif n_clusters is None:
        meat = add_up(over(partial(_products, frequency)))
    else:
        groups = _cluster_sums(over(_sums_of_clusters), n_clusters)
        meat = groups.T @ groups
    return np.asarray(factor * meat / total**2)


def small_sample_factor(n: float, n_coefficients: int, n_clusters: int | None) -> float:
    """Return the factor n / (n - k) of a covariance, with clusters G / (G - 1) (n - 1) / (n - k); k = 0 for none."""
    if not n_coefficients:
        return 1.0
    of_clusters = n_clusters / (n_clusters - 1) * (n - 1) / n if n_clusters else 1.0
    return n / (n - n_coefficients) * of_clusters


def _stratified(
    over: Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]], strata: Factors, n_clusters: int | None
) -> Array:
    """Weighted squares of the totals of the units of a survey design, about the means of their strata."""
    if n_clusters is None:
        squares, totals = add_up(over(partial(_products_of_strata, strata)))
    else:
        parts = list(over(_sums_of_units))
        groups = _cluster_sums(((clusters, sums) for clusters, sums, _ in parts), n_clusters)
        stratum = np.zeros(n_clusters, dtype=np.intp)
        for clusters, _, own in parts:
            stratum[clusters] = own
        squares, totals = weighted_gram(groups, strata.squares[stratum]), _totals(groups, stratum, strata)
    return np.asarray(squares - weighted_gram(totals, strata.totals))


def _products_of_strata(strata: Factors, rows: BlockInfluence) -> tuple[Array, Array]:
    stratum = np.asarray(rows.stratum)
    drawn = rows.weights[:, None] * rows.influence
    return weighted_gram(drawn, strata.squares[stratum]), _totals(drawn, stratum, strata)


def _totals(values: Array, stratum: NDArray[np.intp], strata: Factors) -> Array:
    """Sum values of shape (m, d) in each stratum, shape (H, d)."""
    columns = [np.bincount(stratum, column, minlength=len(strata.squares)) for column in values.T]
    return np.stack(columns, axis=1)


def _sums_of_units(rows: BlockInfluence) -> tuple[NDArray[np.intp], Array, NDArray[np.intp]]:
    """As `_sums_of_clusters`, and the stratum of each."""
    first = np.unique(np.asarray(rows.cluster), return_index=True)[1]
    return *_sums_of_clusters(rows), np.asarray(rows.stratum)[first]


def _products(frequency: bool, rows: BlockInfluence) -> Array:
    # A frequency weight repeats the square of a row; a probability weight multiplies its influence, which is then
    # squared.
    return weighted_gram(rows.influence, rows.weights if frequency else rows.weights**2)


def _sums_of_clusters(rows: BlockInfluence) -> tuple[NDArray[np.intp], Array]:
    """Clusters of a block, shape (g,), and weighted sums of the influence function over their rows, shape (g, d)."""
    clusters, codes = np.unique(np.asarray(rows.cluster), return_inverse=True)
    sums = [np.bincount(codes, rows.weights * column, minlength=len(clusters)) for column in rows.influence.T]
    return clusters, np.stack(sums, axis=1)


def _cluster_sums(parts: Iterable[tuple[NDArray[np.intp], Array]], n_clusters: int) -> Array:
    """Weighted sums of the influence function over the rows of each cluster, shape (G, d)."""
    total = np.empty((0, 0))
    for clusters, sums in parts:
        total = total if total.size else np.zeros((n_clusters, sums.shape[1]))
        total[clusters] += sums
    return total


def influence_of_clusters(over: Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]], n_clusters: int) -> Array:
    """Weighted sums of the influence function over the rows of each cluster, shape (G, d); `over` as in `sandwich`."""
    return _cluster_sums(over(_sums_of_clusters), n_clusters)
