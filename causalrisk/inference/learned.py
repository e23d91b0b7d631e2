"""Fits with learners: predictions, their fit outside of their folds, stacks, and repeats with other folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from causalrisk.design import ScannedDesign
from causalrisk.design.design import by_rows
from causalrisk.errors import UnavailableError
from causalrisk.estimators.learned import Learned
from causalrisk.estimators.record import FitRecord, Repeats, Stack


def used_learned(record: FitRecord) -> Learned:
    """Return the learners of a fit; one without them raises an UnavailableError."""
    if record.learned is None:
        raise UnavailableError(
            'this fit has no learner.\nType  from_formula(..., learner="smooth").fit()  for one that has.'
        )
    return record.learned


def used_stack(record: FitRecord) -> Stack:
    """Return the fits that a fit is an average of; one that is none raises an UnavailableError."""
    if record.stack is None:
        raise UnavailableError(
            "this fit is no average of several.\n"
            'Type  JRE.from_formula(..., learner="smooth", learner_use="stack").fit()  for one that is.'
        )
    return record.stack


def outcome_predictions(record: FitRecord) -> pd.DataFrame:
    """Return the cross-fitted predictions of the mean outcome of each row of the sample in each arm.

    Returns
    -------
    DataFrame
        A row a row of the sample; a column an arm, of several learners under the name of each. Those of a row are by
        models that were fitted to rows of other folds.

    Raises
    ------
    UnavailableError
        If the fit has no learner.
    """
    learned, labels = used_learned(record), list(record.design.labels)
    if isinstance(record.design, ScannedDesign):
        raise by_rows("the prediction of each row", "res.learner_fit  has the fit outside of the folds. ")
    values = np.concatenate([fit.kept_predictions() for fit in learned.fits]).T
    columns = pd.Index(labels)
    if len(learned.fits) > 1:
        columns = pd.MultiIndex.from_product([learned.names, labels], names=["learner", "arm"])
    return pd.DataFrame(values.copy(), index=record.design.index, columns=columns)


def learner_fit(record: FitRecord) -> pd.DataFrame:
    """Return how well the learners predict rows that they were not fitted to.

    Returns
    -------
    DataFrame
        A row a learner and arm: "r squared", one less the squared errors over those of the arm's mean; "intercept" and
        "slope" of the outcomes on the predictions, which are 0 and 1 where these are calibrated.

    Raises
    ------
    UnavailableError
        If the fit has no learner.
    """
    learned = used_learned(record)
    index = pd.MultiIndex.from_product([learned.names, record.design.labels], names=["learner", "arm"])
    return pd.DataFrame(learned.quality.reshape(-1, 3), index=index, columns=["r squared", "intercept", "slope"])


def stack_table(record: FitRecord) -> pd.DataFrame:
    """Return the fits that the estimate is an average of.

    Returns
    -------
    DataFrame
        A row a fit: its effects, for two arms their robust standard error, of JRE with the factor for the choice of its
        anchor, and its weight.

    Raises
    ------
    UnavailableError
        If the fit is no average.
    """
    stack, names = used_stack(record), record.effect_names
    effects = np.stack([of.estimate.params[: len(names)] for of in stack.records])
    frame = pd.DataFrame(effects, index=pd.Index(stack.names, name="fit"), columns=names)
    if len(names) == 1:
        choice = np.array([of.choice_variance for of in stack.records])
        frame["std err"] = np.sqrt(choice * np.diag(stack.covariances))
    frame["weight"] = stack.weights
    return frame


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
