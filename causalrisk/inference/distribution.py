"""Distribution functions of the potential outcomes of each arm, with uniform bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from causalrisk.errors import OptionError, check_alpha
from causalrisk.estimators.effect_scales import DIFFERENCE
from causalrisk.estimators.quantiles import check_indicators, distribution_at
from causalrisk.estimators.record import FitRecord
from causalrisk.estimators.robust import influence_covariance
from causalrisk.estimators.separate import kept_estimate, weighed_in_memory
from causalrisk.inference.simultaneous import FEW_POINTS, LargestModulus
from causalrisk.inference.wald import limit_names, wald_interval
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array

POINTS = 30  # of the default grid, at quantiles of the outcome from LEAST to 1 - LEAST
LEAST = 0.02


def distribution(record: FitRecord, grid: Any = None, alpha: float = 0.05) -> pd.DataFrame:
    """Distribution functions of the potential outcomes (Hajek, AIPW): the share of outcomes up to each value.

    Parameters
    ----------
    grid : array_like, optional
        Values of the outcome; by default up to 30 of its quantiles, from 0.02 to 0.98.
    alpha : float, default 0.05
        Significance level of the intervals and bands.

    Returns
    -------
    DataFrame
        A row an arm and value: estimate, std err, limits of the interval of each value by itself, and limits of the
        band that holds at all values of the grid in all arms at once. Standard errors are robust, clustered or of the
        survey design as those of the fit. There are none (NaN) where an arm has no outcomes on one side of the value,
        and no estimate where AIPW's logit of outcomes up to it has no finite fit.

    Raises
    ------
    UnavailableError
        If the fit is of a scan.
    OptionError
        If the estimator has none, or the grid is no list of numbers.

    Notes
    -----
    The distribution function at q is the arm's mean of the indicator of outcomes up to q, by the estimator of the fit:
    the logit of AIPW is that of the indicator on the terms of the outcome formula. Estimates and limits of an arm are
    put into ascending order and cut at 0 and 1, which brings them nearer to the truth [1]_. Limits are those of the log
    odds of the share, by the delta method, turned back (of AIPW's estimates outside 0 and 1, which have none, those of
    the share). Bands are as many standard errors wide as the largest of the correlated statistics is.

    References
    ----------
    .. [1] Chernozhukov, V., Fernandez-Val, I. and Galichon, A. (2009). Improving point and interval estimators of
       monotone functions by rearrangement. Biometrika 96, 559-575.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> model = AIPW.from_formula("bweight ~ mage + medu", births, treat="mbsmoke")
    >>> model.fit().distribution([2500, 3500])["estimate"].round(3)
    arm  bweight
    0    2500.0     0.050
         3500.0     0.554
    1    2500.0     0.111
         3500.0     0.749
    Name: estimate, dtype: float64
    """
    check_alpha(alpha)
    design = record.design
    check_indicators("distribution()", design, record.spec, record.options)
    values = _grid(record, grid)
    weighed = weighed_in_memory(record.sample, record.spec, record.target, record.weight_fit)
    own = [design.y[design.arm == a] for a in range(design.n_arms)]
    middle = np.array([np.median(y) for y in own])
    heights, known, influence = [], [], []
    for value in values:
        shares = np.array([(y <= value).mean() for y in own])
        open_arms = (shares > 0) & (shares < 1)  # another value stands in for what has no fit
        trained, at = distribution_at(weighed, record.sample, np.where(open_arms, value, middle))
        fitted = open_arms & (np.array(trained.failed) == Failure.OK)
        if not np.array_equal(fitted, open_arms):
            trained, at = distribution_at(weighed, record.sample, np.where(fitted, value, middle))
        estimate = kept_estimate(trained, at, weighed.weights.coefficients, DIFFERENCE)
        means = estimate.block("means")
        heights.append(np.where(fitted, estimate.params[means], np.where(open_arms, np.nan, shares)))
        known.append(fitted)
        influence.append(estimate.influence[:, means])
    flat, tested = np.stack(heights, axis=1).ravel(), np.stack(known, axis=1).ravel()
    of_arms = np.stack(influence, axis=2).reshape(record.sample.n, -1)[:, tested]
    covariance, se = influence_covariance(record, of_arms), np.full(len(flat), np.nan)
    se[tested] = errors = np.sqrt(np.diag(covariance))
    critical = np.nan
    if errors.size:
        critical = LargestModulus(covariance / np.outer(errors, errors), record.df, FEW_POINTS).quantile(alpha)
    limits = _limits(record, flat, se, critical, alpha)
    ordered = _ascending(np.column_stack([flat, limits]).reshape(design.n_arms, len(values), -1))
    index = pd.MultiIndex.from_product([design.labels, values], names=["arm", design.endog_name])
    frame = pd.DataFrame(ordered[:, [0]], index=index, columns=["estimate"])
    frame["std err"] = se
    names = [*limit_names(alpha), "band low", "band high"]
    return frame.join(pd.DataFrame(ordered[:, 1:], index=index, columns=names))


def _limits(record: FitRecord, shares: Array, se: Array, critical: float, alpha: float) -> Array:
    """Return the limits of intervals and bands, shape (m, 4): on the scale of log odds where a share has them."""
    found = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for values, errors in ((shares, se), (logit(shares), se / (shares * (1 - shares)))):
            reach = critical * errors
            interval = wald_interval(values, errors, alpha, record.df)
            found.append(np.column_stack([interval, values - reach, values + reach]))
        return np.where(((shares > 0) & (shares < 1))[:, None], expit(found[1]), found[0])


def _grid(record: FitRecord, given: Any) -> Array:
    """Check the values of the outcome, and sort them."""
    design = record.design
    if given is None:
        order = np.argsort(design.y, kind="stable")
        share = np.cumsum(design.weights[order]) / design.weights.sum()
        places = np.searchsorted(share, np.linspace(LEAST, 1 - LEAST, POINTS))
        return np.unique(design.y[order][places])
    try:
        values = np.unique(np.atleast_1d(np.asarray(given, dtype=float)))
    except (TypeError, ValueError):
        values = np.empty(0)
    if not values.size or not np.isfinite(values).all():
        raise OptionError(
            f"grid={given!r:.80}; expected values of {design.endog_name!r}.\n"
            f"Type  grid=[{float(np.median(design.y)):.4g}], or leave grid= out."
        )
    return values


def _ascending(values: Array) -> Array:
    """Put each column of an arm, shape (K, G, c), into ascending order, between 0 and 1; NaN stays; (K G, c)."""
    for of_arm in values:
        for column in of_arm.T:
            known = ~np.isnan(column)
            column[known] = np.sort(np.clip(column[known], 0.0, 1.0))
    return values.reshape(-1, values.shape[-1])
