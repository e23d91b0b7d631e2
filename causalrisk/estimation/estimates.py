"""A point estimate with its influence function, its covariance, and estimates under resamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.covariates import Covariate
from causalrisk.design.survey import Factors
from causalrisk.errors import Failure, first_failure
from causalrisk.numerics.blocks import add_up, chunks_of, in_chunks, is_dask
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
    given = (weights, cluster, stratum, n_clusters, strata, frequency)
    parts = in_chunks(_row_sums, chunks_of(influence), *given) if is_dask(influence) else [_row_sums(influence, *given)]
    squares, of_groups, strata_of = zip(*parts, strict=True)
    meat, sums = add_up(squares), add_up(of_groups)
    if cluster is not None and strata is None:
        meat = sums.T @ sums
    if strata is not None:
        if cluster is not None:
            of_cluster = np.max(strata_of, axis=0)
            meat = weighted_gram(sums, strata.squares[of_cluster])
            sums = group_sums(sums, of_cluster, len(strata.squares))
        meat = meat - weighted_gram(sums, strata.totals)
    return np.asarray(factor * meat / total**2)


def _row_sums(
    influence: Array, weights: Array, cluster: Any, stratum: Any, n_clusters: int, strata: Factors | None,
    frequency: bool,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Return sums of squares, of clusters or else of strata, and the stratum of each cluster, of some rows."""
    if cluster is None and strata is None:
        return weighted_gram(influence, weights if frequency else weights**2), None, None
    values = influence * weights[:, None]
    if cluster is not None:
        of_cluster = None if stratum is None else stratum_of_groups(cluster, stratum, n_clusters)
        return None, group_sums(values, cluster, n_clusters), of_cluster
    factors: Any = strata
    return weighted_gram(values, factors.squares[stratum]), group_sums(values, stratum, len(factors.squares)), None


def stratum_of_groups(cluster: NDArray[np.intp], stratum: NDArray[np.intp], n_clusters: int) -> NDArray[np.intp]:
    """Stratum of each cluster."""
    found = np.zeros(n_clusters, dtype=np.intp)
    found[cluster] = stratum
    return found


def small_sample_factor(n: float, n_coefficients: int, n_clusters: int | None) -> float:
    """Return the factor n / (n - k) of a covariance, with clusters G / (G - 1) (n - 1) / (n - k); k = 0 for none."""
    if not n_coefficients:
        return 1.0
    of_clusters = n_clusters / (n_clusters - 1) * (n - 1) / n if n_clusters else 1.0
    return n / (n - n_coefficients) * of_clusters


def group_sums(values: Array, group: NDArray[np.intp], n_groups: int) -> Array:
    """Add up values of rows, shape (n, d), in each group, shape (G, d)."""
    return np.stack([np.bincount(group, column, minlength=n_groups) for column in values.T], axis=1)
