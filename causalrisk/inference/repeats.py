"""Several choices of folds: the fit with the median effect, with standard errors that allow for the folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from causalrisk.estimators.record import FitRecord, Repeats


def median_fit(records: Sequence[FitRecord]) -> FitRecord:
    """Return the fit whose effects are nearest to the medians over the repeats.

    Parameters
    ----------
    records : sequence of FitRecord
        An odd number of fits that differ in the folds of their learners, with standard errors.

    Returns
    -------
    FitRecord
        Of one effect the fit that has the median. The variance of an estimate is the median over the repeats of its
        variance and its squared distance from the estimate that is returned; correlations are those of the fit.

    References
    ----------
    .. [1] Chernozhukov, V., Chetverikov, D., Demirer, M., Duflo, E., Hansen, C., Newey, W. and Robins, J. (2018).
       Double/debiased machine learning for treatment and structural parameters. Econometrics Journal 21, C1-C68,
       definition 3.3.
    """
    params = np.stack([record.estimate.params for record in records])
    errors = np.stack([record.std_errors for record in records])
    count = records[0].design.n_arms - 1
    away = params[:, :count] - np.median(params[:, :count], axis=0)
    chosen = int(np.argmin((away**2).sum(axis=1)))
    best = records[chosen]
    variances = np.diag(best.covariance).copy()  # coefficients are of columns that differ between the repeats
    variances[: params.shape[1]] = np.median(errors**2 + (params - params[chosen]) ** 2, axis=0)
    own = np.diag(best.covariance)
    factor = np.sqrt(np.divide(variances, own, out=np.ones_like(own), where=own > 0))
    notes = dict.fromkeys(note for record in records for note in record.notes)
    return dataclasses.replace(
        best,
        covariance=best.covariance * np.outer(factor, factor),
        repeats=Repeats(params, errors, chosen),
        notes=tuple(notes),
    )
