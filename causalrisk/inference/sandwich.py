"""Covariance from influence functions: the sandwich of stacked estimating equations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    n = total if frequency else len(weights)
    factor = n / (n - n_coefficients) if n_coefficients else 1.0
    if cluster is None:
        return factor * weighted_gram(influence, weights if frequency else weights**2) / total**2
    groups = np.stack([np.bincount(cluster, weights * column) for column in influence.T], axis=1)
    if n_coefficients:
        factor *= len(groups) / (len(groups) - 1) * (n - 1) / n
    return np.asarray(factor * (groups.T @ groups) / total**2)
