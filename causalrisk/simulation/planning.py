"""Power of an experiment from a formula, before there are data."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from scipy.special import nctdtr

from causalrisk.errors import OptionError, check_alpha
from causalrisk.inference.intervals import critical_value


def solve_power(
    effect: Any = None,
    n: Any = None,
    power: Any = None,
    *,
    sd: float = 1.0,
    share: float = 0.5,
    r_squared: float = 0.0,
    cluster_size: float | None = None,
    icc: float | None = None,
    alpha: float = 0.05,
) -> float:
    """Return the minimum detectable effect, the number of units, or the power of an experiment.

    Give two of the three to compute the third.

    Parameters
    ----------
    effect : float, optional
        Difference of the means, in units of the outcome.
    n : float, optional
        Number of units in all groups together.
    power : float, optional
        Chance that the two-sided t test rejects.
    sd : float, default 1.0
        Standard deviation of the outcome in a group; sqrt(p (1 - p)) for a 0/1 outcome.
    share : float, default 0.5
        Share of the units, or clusters, that are treated.
    r_squared : float, default 0.0
        Share of the variance, of units and of clusters, that covariates explain.
    cluster_size : float, optional
        Units per cluster, if whole clusters are treated.
    icc : float, optional
        Correlation of the outcomes of two units in a cluster; goes with `cluster_size`.
    alpha : float, default 0.05
        Significance level.

    Returns
    -------
    float
        The missing one of effect, n and power. n is not rounded, and at least three units or clusters.

    Raises
    ------
    OptionError
        If not exactly two of the three are given, or a number is out of range.

    Notes
    -----
    The variance of the difference is sd^2 (1 - r_squared) (1 + (cluster_size - 1) icc) / (n share (1 - share)). The
    degrees of freedom of t are the number of clusters minus two. Without clusters and covariates this is
    `statsmodels.stats.power.TTestIndPower`. For observational data, simulate: `causalrisk.simulation.power`.

    Examples
    --------
    The effect that 40 schools of 25 pupils find with a power of 80%, in standard deviations:

    >>> from causalrisk import simulation
    >>> effect = simulation.solve_power(
    ...     n=1000, power=0.8, cluster_size=25, icc=0.1, r_squared=0.3
    ... )
    >>> round(effect, 3)
    0.281
    """
    check_alpha(alpha)
    if [effect, n, power].count(None) != 1:
        raise OptionError("leave out one of effect, n and power.\nUse `solve_power(n=500, power=0.8)`.")
    if (cluster_size is None) != (icc is None):
        raise OptionError("cluster_size= and icc= go together.\nUse `solve_power(..., cluster_size=25, icc=0.1)`.")
    cluster_size, icc = (1.0, 0.0) if cluster_size is None or icc is None else (cluster_size, icc)
    for name, value in {"effect": effect, "n": n, "power": power, "sd": sd, "cluster_size": cluster_size}.items():
        if value is not None and not isinstance(value, Real):
            raise OptionError(f"{name}={value!r}; expected a number.")
    for name, value, holds, expected in (
        ("effect", effect, effect is None or effect != 0, "another number than 0"),
        ("n", n, n is None or n >= 3 * cluster_size, "three units or clusters, or more"),
        ("power", power, power is None or alpha < power < 1, "a share above alpha and below 1"),
        ("sd", sd, sd > 0, "a positive number"),
        ("share", share, 0 < share < 1, "a share between 0 and 1"),
        ("r_squared", r_squared, 0 <= r_squared < 1, "a share below 1"),
        ("cluster_size", cluster_size, cluster_size >= 1, "1 or more"),
        ("icc", icc, 0 <= icc <= 1, "a correlation from 0 to 1"),
    ):
        if not holds:
            raise OptionError(f"{name}={value!r}; expected {expected}.")
    variance = sd**2 * (1 - r_squared) * (1 + (cluster_size - 1) * icc) / (share * (1 - share))

    def power_of(effect: float, n: float) -> float:
        df, shift = n / cluster_size - 2, abs(effect) * np.sqrt(n / variance)
        critical = critical_value(alpha, df)
        return float(1 - nctdtr(df, shift, critical) + nctdtr(df, shift, -critical))

    if power is None:
        return power_of(effect, n)

    def solved(reached: Callable[[float], float], low: float) -> float:
        """Return the number, `low` or more, whose power is that which is wanted, by bisection."""
        high = low
        while reached(high) < power:
            high *= 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if reached(middle) < power else (low, middle)
        return float(high)

    if effect is None:
        return solved(lambda effect: power_of(effect, n), 1e-9 * np.sqrt(variance / n))
    return solved(lambda n: power_of(effect, n), 3 * cluster_size)
