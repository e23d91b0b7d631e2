"""What the IPWRA start decides: the share c of its effect heterogeneity that is real, and whether the score is missing.

Both need the variance of coefficients of each arm's weighted fit, a sandwich of residuals over 1 - h, h the leverage,
summed within clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from causalrisk.joint.objective import Rows, Weights
from causalrisk.numerics.linalg import Array, solve_or_nan

LARGEST_LEVERAGE = 0.9  # of a row: beyond, its residual says nothing of the others
LEVEL = 0.01  # of the test that lets the score's linear predictor join the outcome columns


@dataclass(frozen=True)
class StartSums:
    """Sums over rows of which the tests of a start are made; of K arms with P columns.

    Parameters
    ----------
    bread : ndarray, shape (K, P, P)
        Information of the weighted fit of each arm.
    score : ndarray, shape (K, P)
        Its score: zero but in columns that the fit does not have.
    mean, slope : ndarray, shape (K,) and (K, P)
        Average of the predictions over the target, and its derivatives.
    weight, variance, squares : float
        Sum of the weights, of these times the variance function, and mean squared residual.
    size : float
        Mean squared outcome.
    """

    bread: Array
    score: Array
    mean: Array
    slope: Array
    weight: float
    variance: float
    squares: float
    size: float


def start_sums(rows: Rows, weighed: Weights, theta: Array) -> StartSums:
    """Sum over rows at the coefficients theta, shape (K, P)."""
    share, tilt, w = weighed.share[:, 0], weighed.tilt[:, 0], weighed.w[:, 0]
    eta = rows.predictors(theta[..., None])
    score, information, _ = rows.family.score(rows.y[:, None], rows.own(eta))
    weights, tilted = (share * w)[:, None], share[:, None] * rows.averaged * tilt[:, None]
    own = rows.family.mean(rows.own(eta))
    return StartSums(
        bread=rows.own_grams(weights * information)[:, 0],
        score=rows.own_slopes(weights * score)[..., 0],
        mean=(tilted * rows.family.mean(eta)).sum(axis=1)[:, 0],
        slope=rows.slopes(tilted * rows.family.mean_deriv(eta))[..., 0],
        weight=float(weights.sum()),
        variance=float((weights * rows.family.variance(own)).sum()),
        squares=float((share * (w > 0) * (rows.y - own[:, 0]) ** 2).sum()),
        size=float((share * (w > 0) * rows.y**2).sum()),
    )


def held_out_scores(rows: Rows, w: Array, own: Array, theta: Array, inverse: Array) -> Array:
    """Scores of rows over 1 - h, in the place of their arm, shape (n, K P); `own` (n,) is the share of one observation.

    `inverse`, shape (K, P, P), is the inverse of the bread.
    """
    eta = rows.own(rows.predictors(theta[..., None]))[:, 0]
    score, information, _ = rows.family.score(rows.y, eta)
    found = np.zeros((len(rows.y), len(theta), theta.shape[1]))
    for a, members in enumerate(rows.slices):
        x, weight = rows.X[members], w[members]
        leverage = own[members] * weight * information[members] * ((x @ inverse[a]) * x).sum(axis=1)
        kept = 1 - np.minimum(leverage, LARGEST_LEVERAGE)
        found[members, a] = (weight * score[members] / kept)[:, None] * x
    return found.reshape(len(rows.y), -1)


def heterogeneity(rows: Rows, weighed: Weights, theta: Array, sums: StartSums, C: Array) -> tuple[float, Array]:
    """S, the spread of the effects over the target, and the spread of their derivatives, (K P, K P); sums over rows."""
    eta = rows.predictors(theta[..., None])[..., 0]
    tilted = (weighed.share * rows.averaged * weighed.tilt)[:, 0]
    tau = C @ (rows.family.mean(eta) - sums.mean[:, None])
    slopes = [
        deriv[:, None] * rows.X - mean for deriv, mean in zip(rows.family.mean_deriv(eta), sums.slope, strict=True)
    ]
    every = np.concatenate(slopes, axis=1)
    return float((tau**2).sum(axis=0) @ tilted), (every.T * tilted) @ every


def inverse_of(bread: Array) -> Array:
    """Inverse of the bread of each arm, shape (K, P, P)."""
    return np.stack([solve_or_nan(own, np.eye(len(own))) for own in bread])


def real_share(spread: tuple[float, Array], inverse: Array, meat: Array, C: Array) -> float:
    """Share c = max(0, 1 - 2 N / S), N the sampling variance of the effects over the target."""
    squares, slopes = spread
    p = inverse.shape[1]
    products = np.kron(C.T @ C, np.ones((p, p))) * slopes
    error = float((products * sandwich(inverse, meat)).sum())
    share = 1 - 2 * error / squares if squares > 0 else 0.0
    return max(share, 0.0) if np.isfinite(share) else 0.0


def sandwich(inverse: Array, meat: Array) -> Array:
    """Covariance of the coefficients of all arms, shape (K P, K P)."""
    n_arms, p, _ = inverse.shape
    bread = np.zeros((n_arms, p, n_arms, p))
    bread[range(n_arms), :, range(n_arms)] = inverse
    wide = bread.reshape(n_arms * p, n_arms * p)
    return wide @ meat @ wide.T


def rejected(estimates: Array, covariance: Array, level: float = LEVEL) -> bool:
    """Whether Wald's test that all estimates are zero rejects."""
    if not np.isfinite(covariance).all():
        return False
    statistic = float(estimates @ np.linalg.lstsq(covariance, estimates, rcond=None)[0])
    return bool(statistic > chdtri(len(estimates), level))
