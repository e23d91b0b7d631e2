"""Covariance from influence functions: the sandwich of stacked estimating equations."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from causalrisk.estimators.record import BlockInfluence
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, weighted_gram


def sandwich(
    blocks: Iterable[BlockInfluence],
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
    blocks : iterable of BlockInfluence
        Influence function IF_i of d estimates, relative to N, and observation weights s_i; at least one block of rows.
    n : float
        Observations: rows, or the sum of frequency weights.
    total : float
        Sum N of the observation weights of the sample; rows of a target frame, which are not of it, count beside.
    frequency : bool
        Whether a weight says how many equal rows a row stands for.
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
