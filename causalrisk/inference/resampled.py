"""Standard errors from the resamples of a bootstrap.

Flows in: a fit, the values of some quantities over its resamples, and their estimates. Flows out: standard errors and
covariances. Those of JRE are root mean squares about the estimate, not about the mean of the resamples: it trades bias
for variance, and what the resamples show of a bias is part of its error. They are larger for the choice of the anchor,
which resamples keep.
"""

from __future__ import annotations

import numpy as np

from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array


def column_sd(columns: Array) -> Array:
    """Return the standard deviation of each column over its values that are not NaN; NaN of fewer than two."""
    kept = [column[~np.isnan(column)] for column in columns.T]
    return np.array([values.std(ddof=1) if len(values) > 1 else np.nan for values in kept])


def resample_errors(record: FitRecord, values: Array, estimates: Array) -> Array:
    """Return the standard errors of d quantities of a fit.

    Parameters
    ----------
    record : FitRecord
        The fit.
    values : ndarray, shape (m, d)
        The quantities over the resamples; NaN where one failed.
    estimates : ndarray, shape (d,)
        The quantities of the fit.

    Returns
    -------
    ndarray, shape (d,)
        NaN for fewer than two resamples.
    """
    if record.joint is None:
        return column_sd(values)
    squares = (values - estimates) ** 2
    count = (~np.isnan(squares)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(record.choice_variance * np.where(count > 1, np.nansum(squares, axis=0) / count, np.nan))


def resample_covariance(record: FitRecord, values: Array, estimates: Array) -> Array:
    """Return the covariance of d quantities of a fit, shape (d, d); as in `resample_errors`, no value is NaN."""
    if len(values) < 2:
        return np.full((values.shape[1],) * 2, np.nan)
    if record.joint is None:
        return np.atleast_2d(np.cov(values, rowvar=False))
    deviations = values - estimates
    return np.asarray(record.choice_variance * (deviations.T @ deviations) / len(values))
