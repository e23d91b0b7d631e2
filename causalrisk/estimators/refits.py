"""Re-estimation under many resamples at once, as matrix products over a block of them: what every refitter shares.

Flows in: multiplicities ("counts") of shape (n, m), rows in the order of the sample. Flows out: `Estimate.values` for
each of the m resamples. Nothing loops over rows, and only what does not separate loops over resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.sample import Sample
from causalrisk.numerics.failures import Failure, first_failure
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import NewtonFits

ROWS_TOGETHER = 4096  # blocks of resamples of fewer rows than that are worked on as one
RELATIVE_ROUNDING = 1e-13  # relative decrease of an objective, or relative size of a mean, that is rounding error


@dataclass(frozen=True)
class Refits:
    """Estimates under m resamples.

    Parameters
    ----------
    values : ndarray, shape (d, m)
        `Estimate.values` for each resample; NaN where it failed.
    failures : ndarray of int8, shape (m,)
        A `Failure` for each resample.
    """

    values: Array
    failures: NDArray[np.int8]


class Refitter(Protocol):
    """Estimates an effect again under many resamples at once.

    Attributes
    ----------
    arrays : int
        Arrays with a number for each row and resample that there are at a time.
    rows_together : int
        Rows up to which several blocks of resamples are worked on as one: as many as fit in it.
    """

    @property
    def arrays(self) -> int:
        """Arrays with a number for each row and resample that there are at a time."""

    @property
    def rows_together(self) -> int:
        """Rows up to which several blocks of resamples are worked on as one."""

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """Refit under multiplicities.

        Parameters
        ----------
        counts : ndarray, shape (n, m)
            Multiplicities.
        first : int
            Number of the first resample.
        fits : NewtonFits, optional
            Propensity refits under them, where another estimator already made them.
        """


def collect_refits(params: Array, theta: Array, gamma: Array, failures: NDArray[np.int8]) -> Refits:
    """Collect the values; NaN where a resample failed, or where the effect is not defined.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1, m)
        Effects and arm means.
    theta : ndarray, shape (K, p, m)
        Outcome coefficients.
    gamma : ndarray, shape (Q, m)
        Propensity coefficients.
    failures : ndarray of int8, shape (m,)
        What failed so far.
    """
    failures = first_failure(failures, np.where(np.isnan(params).any(axis=0), Failure.NO_EFFECT, Failure.OK))
    values = np.concatenate([params, theta.reshape(-1, params.shape[1]), gamma])
    values[:, failures != Failure.OK] = np.nan
    return Refits(values, failures)


def count_totals(sample: Sample, counts: Array) -> Array:
    """Sum of each column of counts over the sample, shape (m,); 1 for one without rows, recorded as an empty arm."""
    total = counts[sample.n_frame :].sum(axis=0)
    return np.where(total > 0, total, 1.0)


def empty_arms(sample: Sample, counts: Array) -> NDArray[np.int8]:
    """EMPTY_ARM where the counts leave an arm or the target without rows, else OK; shape (m,)."""
    observed = counts * sample.observed[:, None] if sample.n_frame else counts
    present = np.stack([observed[rows].sum(axis=0) > 0 for rows in sample.slices]).all(axis=0)
    if sample.n_frame:
        present &= counts[: sample.n_frame].sum(axis=0) > 0
    return np.where(present, Failure.OK, Failure.EMPTY_ARM).astype(np.int8)
