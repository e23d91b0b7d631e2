"""Confidence intervals from a standard error or from a bootstrap distribution.

Quantiles are interpolated linearly between order statistics (numpy's and scipy's convention, Hyndman and Fan's type 7);
R's `boot.ci` interpolates on the normal scale instead.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from causalrisk.errors import OptionError, ResampleWarning, warn_user
from causalrisk.linalg import Array

TAIL = 5  # order statistics wanted beyond a limit


def check_alpha(alpha: float) -> None:
    """Raise an OptionError unless alpha is a significance level between 0 and 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.number)) or not 0 < alpha < 1:
        percent = isinstance(alpha, (int, float)) and 1 < alpha < 100
        hint = min(alpha, 100 - alpha) / 100 if percent else 0.05  # 95 and 5 both mean 95% intervals
        raise OptionError(
            f"alpha={alpha!r}; expected a significance level between 0 and 1 (0.05 gives 95% intervals)."
            f"\nType  alpha={hint:.3g}."
        )


def normal_interval(estimate: Array, se: Array, alpha: float) -> Array:
    """Estimate -+ z(1 - alpha / 2) standard errors, shape (d, 2)."""
    half = ndtri(1 - alpha / 2) * se
    return np.column_stack([estimate - half, estimate + half])


def percentile_interval(values: Array, alpha: float) -> Array:
    """Quantiles alpha / 2 and 1 - alpha / 2 of the bootstrap distribution.

    Parameters
    ----------
    values : ndarray, shape (m, d)
        Estimates over the resamples that worked.
    alpha : float
        Significance level.

    Returns
    -------
    ndarray, shape (d, 2)
        Lower and upper limits.
    """
    _check_tail(len(values), alpha / 2)
    return np.quantile(values, [alpha / 2, 1 - alpha / 2], axis=0).T


def basic_interval(estimate: Array, values: Array, alpha: float) -> Array:
    """Percentile interval reflected about the estimate, shape (d, 2)."""
    return 2 * estimate[:, None] - percentile_interval(values, alpha)[:, ::-1]


def studentized_interval(estimate: Array, se: Array, values: Array, value_se: Array, alpha: float) -> Array:
    """Interval from the quantiles of (value - estimate) / its own standard error, shape (d, 2).

    Parameters
    ----------
    estimate, se : ndarray, shape (d,)
        Estimates and their robust standard errors.
    values, value_se : ndarray, shape (m, d)
        Estimates over the resamples and the robust standard error of each.
    alpha : float
        Significance level.

    Returns
    -------
    ndarray, shape (d, 2)
        Lower and upper limits.
    """
    _check_tail(len(values), alpha / 2)
    t = np.quantile((values - estimate) / value_se, [1 - alpha / 2, alpha / 2], axis=0)
    return estimate[:, None] - (t * se).T


def bias_corrected_interval(estimate: Array, values: Array, acceleration: Array, alpha: float) -> Array:
    """Bias-corrected interval, accelerated unless the accelerations are zero.

    Parameters
    ----------
    estimate : ndarray, shape (d,)
        Estimates.
    values : ndarray, shape (m, d)
        Estimates over the resamples that worked.
    acceleration : ndarray, shape (d,)
        Skewness of the influence function over six; zeros for the "bc" interval.
    alpha : float
        Significance level.

    Returns
    -------
    ndarray, shape (d, 2)
        Lower and upper limits; NaN, with a warning, where the estimate lies outside the bootstrap distribution.

    References
    ----------
    .. [1] Efron, B. (1987). Better bootstrap confidence intervals. JASA 82, 171-185.
    """
    share = ((values < estimate).mean(axis=0) + (values <= estimate).mean(axis=0)) / 2
    z0 = ndtri(share)[:, None]
    z = ndtri([alpha / 2, 1 - alpha / 2])
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = ndtr(z0 + (z0 + z) / (1 - acceleration[:, None] * (z0 + z)))
    defined = np.isfinite(z0[:, 0]) & np.isfinite(levels).all(axis=1)
    if not defined.all():
        warn_user(
            "a bias-corrected interval is undefined where the estimate lies outside the bootstrap distribution; it is "
            'NaN.\nType  conf_int(method="percentile"), or raise n_boot.',
            ResampleWarning,
        )
    limits = np.full((len(estimate), 2), np.nan)
    for k in np.flatnonzero(defined):
        limits[k] = np.quantile(values[:, k], levels[k])
    if defined.any():
        _check_tail(len(values), float(np.minimum(levels, 1 - levels)[defined].min()))
    return limits


def acceleration_of(contributions: Array) -> Array:
    """Return the acceleration of each estimate, shape (d,).

    Parameters
    ----------
    contributions : ndarray, shape (n, d)
        Influence of each unit (row or cluster), or n - 1 times the jackknife deviations.

    Returns
    -------
    ndarray, shape (d,)
        sum L^3 / (6 (sum L^2)^(3/2)); zero where there is no variation.
    """
    squares = (contributions**2).sum(axis=0)
    return (contributions**3).sum(axis=0) / np.where(squares > 0, 6 * squares**1.5, 1.0)


def _check_tail(count: int, level: float) -> None:
    """Warn where a limit rests on fewer than five order statistics."""
    if count * level < TAIL:
        needed = int(np.ceil(TAIL / max(level, 1e-6) / 100) * 100)
        warn_user(
            f"{count} resamples leave {count * level:.1f} beyond a limit of the interval, fewer than {TAIL}: it rests "
            f"on extreme order statistics.\nType  fit(n_boot={needed}).",
            ResampleWarning,
        )
