"""A point estimate with its influence function, its covariance, and estimates under resamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.covariates import Covariate
from causalrisk.design.survey import Factors
from causalrisk.errors import CausalRiskError, Failure, first_failure
from causalrisk.estimation.engine import in_memory, is_dask
from causalrisk.numerics.linalg import Array, weighted_gram


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

    arm: NDArray[np.signedinteger[Any]]
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


def one_after_another(parts: Sequence[FittedRows]) -> FittedRows:
    """Return the rows of some parts as one, without their covariates."""

    def all_of(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values, axis=-1)

    names = ("arm", "weights", "units", "importance", "scores", "chances", "recorded")
    return FittedRows(**{name: all_of(name) for name in names}, covariates=lambda *_: [])


class EstimateRows(Protocol):
    """What an estimate has of every row, in the order of the sample."""

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""


@dataclass(frozen=True)
class KnownRows:
    """What an estimate has of every row, as arrays."""

    predicted: Array
    influence: Array


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


# --- refits ----------------------------------------------------------------------------------------------------------


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
    """Estimates an effect again under many resamples at once."""

    def refit(self, s: Array, weighed: Any = None) -> Refits:
        """Return the estimates under row weights (n, R); `weighed` is what `WeightFit.refit` found for them."""


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


# --- covariance ------------------------------------------------------------------------------------------------------


def sandwich(
    influence: Array,
    weights: Array,
    *,
    n: float,
    total: float,
    frequency: bool = False,
    cluster: NDArray[np.intp] | None = None,
    n_clusters: int = 0,
    n_coefficients: int = 0,
    stratum: NDArray[np.intp] | None = None,
    strata: Factors | None = None,
) -> Array:
    """Return the covariance of estimates from their influence function.

    Parameters
    ----------
    influence, weights : ndarray, shape (n, d) and (n,)
        Influence function and observation weights of the rows.
    n, total : float
        Number of observations, and sum of the weights of the sample.
    frequency : bool, default False
        Whether a weight counts equal rows: it repeats their squares. Another multiplies the influence.
    cluster, n_clusters : ndarray of int, shape (n,), and int
        Cluster of each row, and how many there are, where rows depend on each other within clusters.
    n_coefficients : int, default 0
        Outcome coefficients k of the small-sample factor; 0 for none.
    stratum, strata : ndarray of int, shape (n,), and Factors
        Stratum of each row in a survey design, and the factors of its variance.

    Notes
    -----
    Clusters: Liang and Zeger (1986). Surveys: Binder (1983). The factor is n / (n - k), with clusters
    G / (G - 1) (n - 1) / (n - k).
    """
    factor = small_sample_factor(n, n_coefficients, n_clusters if cluster is not None and strata is None else None)
    if is_dask(influence):
        return _sandwich_beyond_memory(
            influence, weights, factor / total**2, frequency, cluster, n_clusters, stratum, strata
        )
    if cluster is None and strata is None:
        return np.asarray(factor * weighted_gram(influence, weights if frequency else weights**2) / total**2)
    sums = influence * weights[:, None]
    if cluster is not None:
        if stratum is not None:
            stratum = stratum_of_groups(cluster, stratum, n_clusters)
        sums = group_sums(sums, cluster, n_clusters)
    if strata is None or stratum is None:
        return np.asarray(factor * (sums.T @ sums) / total**2)
    totals = group_sums(sums, stratum, len(strata.squares))
    squares = weighted_gram(sums, strata.squares[stratum]) - weighted_gram(totals, strata.totals)
    return np.asarray(factor * squares / total**2)


def stratum_of_groups(cluster: NDArray[np.intp], stratum: NDArray[np.intp], n_clusters: int) -> NDArray[np.intp]:
    """Stratum of each cluster."""
    found = np.zeros(n_clusters, dtype=np.intp)
    found[cluster] = stratum
    return found


def _sandwich_beyond_memory(
    influence: Any, weights: Any, factor: float, frequency: bool, cluster: Any, n_clusters: int, stratum: Any,
    strata: Factors | None,
) -> Array:  # fmt: skip
    """As `sandwich`: products of rows, or sums of clusters, a chunk of rows at a time."""
    if cluster is None and strata is None:
        root = np.sqrt(weights) if frequency else weights
        drawn = influence * root[:, None]
        return np.asarray(factor * in_memory(drawn.T @ drawn))
    import dask

    groups, count = (cluster, n_clusters) if cluster is not None else (None, 0)
    parts = []
    for k, values in enumerate((influence * weights[:, None]).rechunk({1: -1}).to_delayed().ravel()):
        own = [None if each is None else each.to_delayed().ravel()[k] for each in (groups, stratum)]
        parts.append(dask.delayed(_chunk_sums)(values, *own, count, strata))
    found = dask.compute(*parts)
    if cluster is None:
        squares, totals = (sum(part[k] for part in found) for k in (0, 1))
        return np.asarray(factor * (squares - weighted_gram(totals, strata.totals)))  # type: ignore[union-attr]
    sums = np.asarray(sum(part[0] for part in found))
    if strata is None:
        return np.asarray(factor * (sums.T @ sums))
    of_cluster = np.max([part[1] for part in found], axis=0)
    totals = group_sums(sums, of_cluster, len(strata.squares))
    return np.asarray(factor * (weighted_gram(sums, strata.squares[of_cluster]) - weighted_gram(totals, strata.totals)))


def _chunk_sums(
    values: Array, cluster: Any, stratum: Any, count: int, strata: Factors | None
) -> tuple[Array, NDArray[Any]]:
    """Return sums of clusters and the stratum of each, or squares and totals of strata, of a chunk of rows."""
    if cluster is not None:
        of_cluster = np.zeros(0) if stratum is None else stratum_of_groups(cluster, stratum, count)
        return group_sums(values, cluster, count), of_cluster
    if strata is None:
        raise CausalRiskError("neither clusters nor strata")
    return weighted_gram(values, strata.squares[stratum]), group_sums(values, stratum, len(strata.squares))


def small_sample_factor(n: float, n_coefficients: int, n_clusters: int | None) -> float:
    """Return the factor n / (n - k) of a covariance, with clusters G / (G - 1) (n - 1) / (n - k); k = 0 for none."""
    if not n_coefficients:
        return 1.0
    of_clusters = n_clusters / (n_clusters - 1) * (n - 1) / n if n_clusters else 1.0
    return n / (n - n_coefficients) * of_clusters


def group_sums(values: Array, group: NDArray[np.intp], n_groups: int) -> Array:
    """Add up values of rows, shape (n, d), in each group, shape (G, d)."""
    return np.stack([np.bincount(group, column, minlength=n_groups) for column in values.T], axis=1)
