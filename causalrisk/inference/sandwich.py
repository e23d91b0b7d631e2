"""Covariance from influence functions: the sandwich of stacked estimating equations."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.record import BlockInfluence
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, weighted_gram


def sandwich(
    influence: Array,
    weights: Array,
    *,
    frequency: bool = False,
    cluster: NDArray[np.intp] | None = None,
    n_coefficients: int = 0,
    total: float | None = None,
) -> Array:
    """Covariance of estimates from their influence function.

    Parameters
    ----------
    influence : ndarray, shape (n, d)
        Influence function; its weighted mean is zero.
    weights : ndarray, shape (n,)
        Observation weights s.
    frequency : bool, default False
        Whether a weight counts repeated rows.
    cluster : ndarray of int, shape (n,), optional
        Cluster codes 0 .. G-1; contributions are summed within clusters first.
    n_coefficients : int, default 0
        k of the small-sample factor n / (n - k) (clusters: G / (G - 1) (n - 1) / (n - k)); 0 applies none.

    total : float, optional
        N, what the influence function is relative to; by default the sum of the weights.

    Returns
    -------
    ndarray, shape (d, d)
        sum_i (s_i IF_i)(s_i IF_i)' / N^2; with frequency weights sum_i s_i IF_i IF_i' / N^2.

    References
    ----------
    .. [1] Stefanski, L. A. and Boos, D. D. (2002). The calculus of M-estimation. The American Statistician 56, 29-38.
    """
    total = float(weights.sum()) if total is None else total
    return sandwich_of_blocks(
        [BlockInfluence(influence, weights, cluster)],
        n=total if frequency else len(weights),
        total=total,
        frequency=frequency,
        n_clusters=None if cluster is None else int(cluster.max()) + 1,
        n_coefficients=n_coefficients,
    )


def sandwich_of_blocks(
    blocks: Iterable[BlockInfluence],
    *,
    n: float,
    total: float,
    frequency: bool,
    n_clusters: int | None,
    n_coefficients: int,
) -> Array:
    """As `sandwich`, of rows that come in blocks.

    Parameters
    ----------
    blocks : iterable of BlockInfluence
        The rows, at least one block.
    n : float
        Observations: rows, or the sum of frequency weights.
    total, frequency, n_coefficients
        As in `sandwich`.
    n_clusters : int or None
        G; None without clusters.

    Returns
    -------
    ndarray, shape (d, d)
        The covariance.
    """
    factor = n / (n - n_coefficients) if n_coefficients else 1.0
    if n_clusters is None:
        meat = add_up(weighted_gram(rows.influence, rows.weights if frequency else rows.weights**2) for rows in blocks)
    else:
        groups = _cluster_sums(blocks, n_clusters)
        meat = groups.T @ groups
        if n_coefficients:
            factor *= n_clusters / (n_clusters - 1) * (n - 1) / n
    return np.asarray(factor * meat / total**2)


def _cluster_sums(blocks: Iterable[BlockInfluence], n_clusters: int) -> Array:
    """Weighted sums of the influence function over the rows of each cluster, shape (G, d)."""
    sums: list[Array] = []
    for rows in blocks:
        sums = sums or [np.zeros(n_clusters) for _ in rows.influence.T]
        for total, column in zip(sums, rows.influence.T, strict=True):
            total += np.bincount(rows.cluster, rows.weights * column, minlength=n_clusters)  # type: ignore[arg-type]
    return np.stack(sums, axis=1)
