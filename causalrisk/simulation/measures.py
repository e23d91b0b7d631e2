"""Performance of an estimator over the samples of a study, with Monte Carlo errors; pure arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.linalg import Array


def mse_ratio(error: Array, reference: Array) -> tuple[float, float]:
    """Ratio of the mean squared error to a reference's on the same samples, with its Monte Carlo error.

    Parameters
    ----------
    error, reference : ndarray, shape (m,)
        Estimate less true effect, in each sample; samples in which either is NaN are left out.

    Returns
    -------
    ratio, mc_error : float
        Ratio of the mean squares, and its standard error by the delta method: squared errors of one sample go
        together, so that the ratio is known better than either mean.

    Examples
    --------
    >>> import numpy as np
    >>> mse_ratio(np.array([1.0, -2.0, 3.0]), np.array([2.0, -4.0, 6.0]))
    (0.25, 0.0)
    """
    both = ~(np.isnan(error) | np.isnan(reference))
    ours, theirs = error[both] ** 2, reference[both] ** 2
    if len(ours) < 2 or theirs.mean() == 0:
        return np.nan, np.nan
    ratio = ours.mean() / theirs.mean()
    spread = (ours - ratio * theirs).std(ddof=1) / theirs.mean()
    return float(ratio), float(spread / np.sqrt(len(ours)))


def share(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of true values, with its binomial standard error; NaN without values."""
    if not len(hits):
        return np.nan, np.nan
    p = float(hits.mean())
    return p, float(np.sqrt(p * (1 - p) / len(hits)))


def describe(error: Array, se: Array, reference: Array, critical: float) -> dict[str, float]:
    """Measures of one estimator in one cell.

    Parameters
    ----------
    error : ndarray, shape (m,)
        Estimate less true effect in each sample, NaN where the estimator failed.
    se : ndarray, shape (m,)
        Standard errors.
    reference : ndarray, shape (m,)
        Errors of the estimator to compare with.
    critical : float
        Half width of the interval in standard errors.

    Returns
    -------
    dict
        Numbers by name; those that end in ``_mc`` are Monte Carlo errors of the one before.
    """
    used = ~np.isnan(error)
    kept, own = error[used], se[used]
    known = ~np.isnan(own)
    enough = len(kept) > 1
    sd = float(kept.std(ddof=1)) if enough else np.nan
    ratio, ratio_mc = mse_ratio(error, reference)
    covered, covered_mc = share(np.abs(kept[known]) <= critical * own[known])
    return {
        "samples": len(error),
        "failed": int((~used).sum()),
        "bias": float(kept.mean()) if len(kept) else np.nan,
        "bias_mc": sd / np.sqrt(len(kept)) if enough else np.nan,
        "sd": sd,
        "rmse": float(np.sqrt((kept**2).mean())) if len(kept) else np.nan,
        "mse_ratio": ratio,
        "mse_ratio_mc": ratio_mc,
        "mean_se": float(own[known].mean()) if known.any() else np.nan,
        "median_se": float(np.median(own[known])) if known.any() else np.nan,
        "coverage": covered,
        "coverage_mc": covered_mc,
    }
