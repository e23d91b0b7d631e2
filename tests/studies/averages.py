"""Averages over the cells of a study."""

from __future__ import annotations

import numpy as np


def geometric_mean(ratios, errors):
    """Geometric mean of independent ratios, with its Monte Carlo error.

    Parameters
    ----------
    ratios, errors : ndarray, shape (k,)
        Ratios and their Monte Carlo errors.

    Returns
    -------
    mean, mc_error : float
        Mean and its standard error.
    """
    mean = np.exp(np.log(ratios).mean())
    return float(mean), float(mean * np.linalg.norm(errors / ratios) / len(ratios))
