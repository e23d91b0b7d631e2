"""The ATE risk and the objectives of the Joint Robust Estimator, as stacked linear least-squares rows.

Every outcome model is written as a deviation z from a start: m_a(x) = start_a(x) + q(x)' z_a, so that with the start's
residuals r = y - start the objective is a sum of squares of *rows*: a row (c, h) stands for the residual c'z - h, and

    J(z) = 1/2 sum over rows (c'z - h)^2.

Rows come in three kinds: the net bias under each propensity replicate, the influence function of the effect (objective
`mse`), and the importance-weighted fit of each arm. z is stacked arm by arm, shape (K p,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalrisk.criterion import Criterion
from causalrisk.linalg import Array, pairwise_columns, spectral_factors, unpack_symmetric


def ate_risk(arm_bias: Array) -> Array:
    """Return the ATE risk under each propensity replicate.

    Parameters
    ----------
    arm_bias : ndarray, shape (K, B)
        Bias of each arm's outcome model, in units of the outcome; row 0 is the reference arm.

    Returns
    -------
    ndarray, shape (B,)
        (2 / K) sum_{k<l} (B_k - B_l)^2, in squared units of the outcome; for two arms the squared net bias.

    Notes
    -----
    Zero when the biases cancel, even if none is zero [1]_. It depends on no reference arm.

    References
    ----------
    .. [1] Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity
       Uncertainty. arXiv:2512.18083.

    Examples
    --------
    >>> import numpy as np
    >>> ate_risk(np.array([[1.0, 0.0], [1.0, 3.0]]))
    array([0., 9.])
    """
    return ((bias_contrasts(len(arm_bias)) @ arm_bias) ** 2).sum(axis=0)


def bias_contrasts(n_arms: int) -> Array:
    """Contrasts whose sum of squares is the ATE risk, shape (K (K - 1) / 2, K)."""
    first, second = np.triu_indices(n_arms, 1)
    contrasts = np.zeros((len(first), n_arms))
    contrasts[np.arange(len(first)), first] = -1
    contrasts[np.arange(len(first)), second] = 1
    return contrasts * np.sqrt(2 / n_arms)


def net_bias_rows(bias: Array) -> Array:
    """Rows of the net bias from those of the arm biases.

    Parameters
    ----------
    bias : ndarray, shape (K, B, ..., p + 1)
        Linear form of each arm's bias: coefficients of z_a and the right-hand side.

    Returns
    -------
    ndarray, shape (K (K - 1) / 2 * B, ..., K p + 1)
        Rows whose squares sum to the ATE risk under each replicate, the contrasts one after the other.
    """
    contrasts = bias_contrasts(len(bias))
    rows = []
    for contrast in contrasts:
        scaled = contrast.reshape(-1, *([1] * (bias.ndim - 1))) * bias
        rows.append(np.concatenate([*scaled[..., :-1], scaled[..., -1:].sum(axis=0)], axis=-1))
    return np.concatenate(rows)


def arm_bias_values(bias: Array, z: Array) -> Array:
    """Arm biases, shape (K, B), from their linear forms, shape (K, B, p + 1), at z, shape (K, p)."""
    return np.einsum("abp,ap->ab", bias[..., :-1], z) - bias[..., -1]


def variance_rows(columns: Array, residual: Array, tau: Array, arm: NDArray[np.intp], odds: Array) -> Array:
    """Rows of the uncentred influence function of the effect.

    Parameters
    ----------
    columns : ndarray, shape (n, p)
        Basis columns of the outcome design.
    residual, tau : ndarray, shape (n,)
        y - start in the row's own arm, and start_1 - start_0 less its mean.
    arm : ndarray of int, shape (n,)
        0 or 1.
    odds : ndarray, shape (n,)
        Own-arm odds at the fitted propensity score.

    Returns
    -------
    ndarray, shape (n, 2 p + 1)
        Row i gives psi_i = (m_1 - m_0) + sign w (y - m) up to a constant, as coefficients of z and right-hand side.
    """
    sign = np.where(arm > 0, 1.0, -1.0)[:, None]
    own, other = -sign * odds[:, None] * columns, -sign * columns
    first, second = np.where(arm[:, None] > 0, other, own), np.where(arm[:, None] > 0, own, other)
    right = -(tau + sign[:, 0] * (1 + odds) * residual)
    return np.column_stack([first, second, right])


def variance_maps(p: int) -> tuple[Array, Array]:
    """Linear maps from xi = (q, r, tau) of a row to its `variance_rows`.

    Parameters
    ----------
    p : int
        Number of outcome columns.

    Returns
    -------
    plain, with_odds : ndarray, shape (2, 2 p + 1, p + 2)
        For each arm: row = plain xi + odds * with_odds xi.
    """
    plain, with_odds = np.zeros((2, 2 * p + 1, p + 2)), np.zeros((2, 2 * p + 1, p + 2))
    for arm, sign in enumerate((-1.0, 1.0)):
        own, other = slice(arm * p, (arm + 1) * p), slice((1 - arm) * p, (2 - arm) * p)
        with_odds[arm, own, :p] = -sign * np.eye(p)
        plain[arm, other, :p] = -sign * np.eye(p)
        plain[arm, -1, p], with_odds[arm, -1, p] = -sign, -sign
        plain[arm, -1, p + 1] = -1
    return plain, with_odds


def variance_factors(xi: list[Array], weights: list[Array], odds: list[Array], total: Array) -> Array:
    """Factors of the centred `variance_rows` for m weightings of the rows at once.

    Parameters
    ----------
    xi : list of ndarray, shape (n_a, p + 2)
        For each arm the columns (q, r, tau).
    weights, odds : list of ndarray, shape (n_a, m)
        For each arm the resampling weights and the own-arm odds.
    total : ndarray, shape (m,)
        Sum of the weights over all rows.

    Returns
    -------
    ndarray, shape (m, 2 p + 1, 2 p + 1)
        F with F'F the mean of the outer products of the centred rows.
    """
    p = xi[0].shape[1] - 2
    second, first = np.zeros((len(total), 2 * p + 1, 2 * p + 1)), np.zeros((len(total), 2 * p + 1))
    for plain, tilted, columns, c, k in zip(*variance_maps(p), xi, weights, odds, strict=True):
        pairs, scaled = pairwise_columns(columns), c * k
        gram = [unpack_symmetric(pairs.T @ w, p + 2) for w in (c, scaled, scaled * k)]
        cross = plain @ gram[1] @ tilted.T
        second += plain @ gram[0] @ plain.T + cross + cross.transpose(0, 2, 1) + tilted @ gram[2] @ tilted.T
        first += (c.T @ columns) @ plain.T + (scaled.T @ columns) @ tilted.T
    mean = first / total[:, None]
    return spectral_factors(second / total[:, None, None] - mean[:, :, None] * mean[:, None, :])


def stack_rows(criterion: Criterion, net: Array, variance: Array | None, fit: Array) -> Array:
    """Stack the terms of the objective, the largest rows first so that QR keeps their digits.

    Parameters
    ----------
    criterion : Criterion
        Weights of the terms.
    net : ndarray, shape (..., B, K p + 1)
        `net_bias_rows`.
    variance : ndarray, shape (..., v, K p + 1), or None
        Factor of the variance term.
    fit : ndarray, shape (..., K, p + 1, p + 1)
        For each arm a factor of the mean importance-weighted Gram matrix of (q, r).

    Returns
    -------
    ndarray, shape (..., rows, K p + 1)
        The rows of the least-squares problem.
    """
    *lead, n_arms, size, _ = fit.shape
    p = size - 1
    spread = np.zeros((*lead, n_arms * size, n_arms * p + 1))
    for arm in range(n_arms):
        rows = slice(arm * size, (arm + 1) * size)
        spread[..., rows, arm * p : (arm + 1) * p] = fit[..., arm, :, :p]
        spread[..., rows, -1] = fit[..., arm, :, p]
    terms = [np.sqrt(criterion.penalty / net.shape[-2]) * net]
    if criterion.variance and variance is not None:
        terms.append(variance)
    return np.concatenate([*terms, np.sqrt(criterion.fit) * spread], axis=-2)


def objective(rows: Array, z: Array) -> float:
    """Value of the objective at z, shape (K p,), from its rows."""
    residual = rows[:, :-1] @ z - rows[:, -1]
    return 0.5 * float(residual @ residual)


def gradient(rows: Array, z: Array) -> Array:
    """Gradient of the objective at z, shape (K p,)."""
    return rows[:, :-1].T @ (rows[:, :-1] @ z - rows[:, -1])


def hessian(rows: Array) -> Array:
    """Hessian of the objective, shape (K p, K p), the same at every z."""
    return rows[:, :-1].T @ rows[:, :-1]
