"""Confidence intervals."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from causalrisk.errors import OptionError
from causalrisk.linalg import Array


def check_alpha(alpha: float) -> None:
    """Raise an OptionError unless alpha is a significance level between 0 and 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.number)) or not 0 < alpha < 1:
        hint = 1 - alpha / 100 if isinstance(alpha, (int, float)) and 1 < alpha < 100 else 0.05
        raise OptionError(
            f"alpha={alpha!r}; expected a significance level between 0 and 1 (0.05 gives 95% intervals)."
            f"\nType  alpha={hint:.3g}."
        )


def normal_interval(estimate: Array, se: Array, alpha: float) -> Array:
    """Estimate -+ z(1 - alpha / 2) standard errors, shape (d, 2)."""
    half = ndtri(1 - alpha / 2) * se
    return np.column_stack([estimate - half, estimate + half])


def percentile_interval(values: Array, alpha: float) -> Array:
    """Quantiles alpha / 2 and 1 - alpha / 2 of the bootstrap distribution, linearly interpolated.

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
    return np.quantile(values, [alpha / 2, 1 - alpha / 2], axis=0).T
