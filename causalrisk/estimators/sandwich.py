"""The sandwich: the covariance of estimates from their influence functions.

Flows in: influence functions on blocks of rows, their weights and clusters. Flows out: the covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.design.survey import Factors
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, weighted_gram


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
    n : float
        Observations: rows, or the sum of frequency weights.
    total : float
        Sum N of the observation weights of the sample, without rows of a target frame.
    frequency : bool
        Whether weights are counts of equal rows.
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
    factor = n / (n - n_coefficients) if n_coefficients else 1.0
    if strata is not None:
        meat = _stratified(over, strata, n_clusters)
    elif n_clusters is None:
        meat = add_up(over(partial(_products, frequency)))
    else:
        groups = _cluster_sums(over(_sums_of_clusters), n_clusters)
        meat = groups.T @ groups
        if n_coefficients:
            factor *= n_clusters / (n_clusters - 1) * (n - 1) / n
    return np.asarray(factor * meat / total**2)


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
