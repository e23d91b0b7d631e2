"""The sandwich: covariances of estimates from their influence functions, by rows or by clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.record import BlockInfluence, FitRecord
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, weighted_gram


def influence_covariance(record: FitRecord, influence: Array) -> Array:
    """Covariance of estimates on the data of a fit from their influence function, clustered where a cluster was given.

    Parameters
    ----------
    record : FitRecord
        The fit.
    influence : ndarray, shape (n, d)
        Influence function, rows in the order of the sample.

    Returns
    -------
    ndarray, shape (d, d)
        The sandwich.
    """
    return covariance_of_parts(record, [(slice(0, len(influence)), influence)], 0)


def covariance_of_parts(record: FitRecord, parts: Iterable[tuple[slice, Array]], n_coefficients: int) -> Array:
    """Return the covariance of `influence_covariance` from parts of the rows of the sample.

    Parameters
    ----------
    record : FitRecord
        The fit.
    parts : iterable of (slice, ndarray)
        Rows of the sample and their influence function.
    n_coefficients : int
        As in `sandwich`.
    """
    sample = record.sample
    cluster = sample.clusters(record.design.cluster)
    blocks = (
        BlockInfluence(values, sample.s[rows], None if cluster is None else cluster[rows]) for rows, values in parts
    )
    return sandwich(
        lambda function: map(function, blocks),
        n=sample.total + sample.n_frame if record.frequency else sample.n,
        total=sample.total,
        frequency=record.frequency,
        n_clusters=None if cluster is None else int(cluster.max()) + 1,
        n_coefficients=n_coefficients,
    )


def sandwich(
    over: Callable[[Callable[[BlockInfluence], Any]], Iterable[Any]],
    *,
    n: float,
    total: float,
    frequency: bool,
    n_clusters: int | None,
    n_coefficients: int,
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

    Returns
    -------
    ndarray, shape (d, d)
        sum_i (s_i IF_i)(s_i IF_i)' / N^2; with frequency weights sum_i s_i IF_i IF_i' / N^2.

    References
    ----------
    .. [1] Stefanski, L. A. and Boos, D. D. (2002). The calculus of M-estimation. The American Statistician 56, 29-38.
    """
    factor = n / (n - n_coefficients) if n_coefficients else 1.0
    if n_clusters is None:
        meat = add_up(over(partial(_products, frequency)))
    else:
        groups = _cluster_sums(over(_sums_of_clusters), n_clusters)
        meat = groups.T @ groups
        if n_coefficients:
            factor *= n_clusters / (n_clusters - 1) * (n - 1) / n
    return np.asarray(factor * meat / total**2)


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
