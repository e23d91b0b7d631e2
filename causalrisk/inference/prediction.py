"""Predicted outcomes of rows, in the sample or new, with their standard errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.design import ScannedDesign, new_offset
from causalrisk.design.columns.tables import as_pandas
from causalrisk.errors import DesignWarning, UnavailableError, check_alpha, warn_user
from causalrisk.estimators.record import FitRecord, of_means
from causalrisk.estimators.training import LINEAR
from causalrisk.inference.wald import wald_interval
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array

STATISTICS = ("te", "ps", "psxb", "xb", "cmean", "pomean", "lnsigma", "response", "link", "probs")  # in other packages
BY_CHANCE = 0.01  # probability above which new rows may well be of one arm
OF_THE_SAMPLE = "Type  res.potential_outcomes  for the means of the sample in each arm, or  res.propensity_scores."


class Predictions:
    """Predicted mean outcomes with standard errors, a row a row of the new data and arm.

    Parameters
    ----------
    predicted_mean, se_mean : Series
        Predictions and their standard errors.
    predictor, se_predictor : ndarray, shape (m,)
        The same on the scale of the linear predictor, where intervals are symmetric.
    mean : callable
        From the linear predictor to the mean.
    df : float
        Degrees of freedom of the intervals; infinite for the normal distribution.
    """

    def __init__(
        self,
        predicted_mean: pd.Series,
        se_mean: pd.Series,
        predictor: Array,
        se_predictor: Array,
        mean: Callable[[Array], Array],
        df: float = np.inf,
    ) -> None:
        self.predicted_mean, self.se_mean = predicted_mean, se_mean
        self._predictor, self._se_predictor, self._mean, self._df = predictor, se_predictor, mean, df

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return intervals of the mean, columns 0 and 1: those of the linear predictor, transformed."""
        check_alpha(alpha)
        limits = self._mean(wald_interval(self._predictor, self._se_predictor, alpha, self._df))
        return pd.DataFrame(limits, index=self.predicted_mean.index)

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Predictions, standard errors and intervals under statsmodels' names."""
        limits = self.conf_int(alpha).set_axis(["mean_ci_lower", "mean_ci_upper"], axis=1)
        return pd.concat([self.predicted_mean.rename("mean"), self.se_mean.rename("mean_se"), limits], axis=1)

    def __repr__(self) -> str:
        return repr(self.summary_frame())


def check_unit_level(record: FitRecord, what: str) -> None:
    """Raise an UnavailableError for JRE, whose arm models say nothing of single units."""
    if record.joint is not None:
        raise UnavailableError(
            "JRE debiases one contrast, the average effect: its arm models are bent to serve it, and their "
            "unit-level predictions mean nothing.\n"
            f"Type  res.start.{what}  for those of the IPWRA fit it started from."
        )


def _check_arm(record: FitRecord, arm: Any) -> None:
    """Refuse a statistic, such as other packages take in the place of the arm."""
    if isinstance(arm, str) and arm in STATISTICS and record.design.arm_named(arm) is None:
        raise TypeError(f"arm={arm!r} is a statistic of other packages; expected an arm.\n{OF_THE_SAMPLE}")


def _note_arm(record: FitRecord, data: Any, arm: Any) -> None:
    """Warn of a treatment that is set in all rows, as for predictions elsewhere: here each arm is predicted."""
    design, frame = record.design, as_pandas(data) if arm is None else None
    if not isinstance(frame, pd.DataFrame) or list(frame.columns).count(design.treat_name) != 1:
        return
    treat = frame[design.treat_name]
    levels = treat.unique()
    position = design.arm_named(levels[0]) if len(levels) == 1 else None
    if position is None or isinstance(design, ScannedDesign):  # a scan does not know its rows by labels
        return
    if treat.index.isin(design.index[design.arm == position]).all():
        return
    if (design.counts[position] / design.nobs) ** len(treat) > BY_CHANCE:
        return
    label = design.labels[position]
    warn_user(
        f"the treatment {design.treat_name!r} is {label!r} in all rows of the data, but the means of every arm are "
        f"predicted, whatever it is.\nType  arm={label!r}  for those of that arm.",
        DesignWarning,
    )


@of_means
def predict(record: FitRecord, data: Any = None, arm: Any = None, *, exog: Any = None) -> pd.DataFrame | pd.Series:
    """Predict the mean outcome of new rows in each arm (not for JRE).

    Parameters
    ----------
    data : DataFrame or array_like, optional
        New rows with the covariates of the outcome formula, coded as in the fit; by default the estimation sample.
        A treatment among the columns plays no part, and is warned of if it is set to one arm.
        Predictions are at the exposure that the means are at; if those are the observed ones (or offsets), new rows
        have a column of them.
    arm : level or label, optional
        One arm; by default all.
    exog : DataFrame or array_like, optional
        Another name of `data`.

    Returns
    -------
    DataFrame or Series
        A column an arm, or the one arm.

    Raises
    ------
    DesignError
        If a covariate is missing or has a level that was not in the fit.
    """
    check_unit_level(record, "predict(data)")
    data = exog if data is None else data
    _check_arm(record, arm)
    _note_arm(record, data, arm)
    labels = list(record.design.labels)
    if data is None:
        fitted = record.sample.restore(record.estimate.predicted.T.copy())
        frame = pd.DataFrame(fitted, index=record.design.index, columns=labels)
        return frame if arm is None else frame[record.arm_label(arm)]
    predictors = _predictors(record, _new_rows(record, data), data)
    frame = pd.DataFrame(_family(record).mean(predictors), index=_index_of(data), columns=labels)
    return frame if arm is None else frame[record.arm_label(arm)]


@of_means
def get_prediction(record: FitRecord, data: Any = None, arm: Any = None, *, exog: Any = None) -> Predictions:
    """Predict the mean outcome of new rows, with standard errors (not for JRE).

    Parameters
    ----------
    data, arm, exog
        As in `predict`.

    Returns
    -------
    Predictions
        With `predicted_mean`, `se_mean`, `conf_int` and `summary_frame`, as in statsmodels; rows of several arms
        are indexed by row and arm. Standard errors are of the mean, from the fit's covariance;
        intervals are symmetric on the scale of the linear predictor.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> res.get_prediction(births.head(2), arm=1).summary_frame().round(1)
         mean  mean_se  mean_ci_lower  mean_ci_upper
    0  3140.4     18.9         3103.3         3177.5
    1  3151.9     26.6         3099.8         3203.9
    """
    check_unit_level(record, "get_prediction(data)")
    if record.spec.given:
        raise UnavailableError(
            "predictions of a learner have no standard errors.\nType  res.predict(data)  for the predictions."
        )
    data = exog if data is None else data
    _check_arm(record, arm)
    _note_arm(record, data, arm)
    rows, labels, family = _new_rows(record, data), list(record.design.labels), _family(record)
    predictors = _predictors(record, rows, data)
    index = record.design.index if data is None else _index_of(data)
    blocks = [record.estimate.block("theta", arm) for arm in range(record.design.n_arms)]
    variances = [np.einsum("np,pq,nq->n", rows, record.covariance[block, block], rows) for block in blocks]
    se_predictor = np.sqrt(np.clip(np.column_stack(variances), 0, None))
    se_mean = np.abs(family.mean_deriv(predictors)) * se_predictor
    means, errors = (pd.DataFrame(v, index=index, columns=labels) for v in (family.mean(predictors), se_mean))
    if arm is None:
        return Predictions(
            means.stack(), errors.stack(), predictors.ravel(), se_predictor.ravel(), family.mean, record.df
        )
    label = record.arm_label(arm)
    k = labels.index(label)
    return Predictions(means[label], errors[label], predictors[:, k], se_predictor[:, k], family.mean, record.df)


def _new_rows(record: FitRecord, data: Any) -> Array:
    """Columns of the basis of the outcome models for new rows, shape (m, p)."""
    if isinstance(data, str) and data.isidentifier():
        raise TypeError(f"data={data!r} is text; expected rows of covariates.\n{OF_THE_SAMPLE}")
    if record.spec.constants:
        return record.sample.at_means(np.ones((record.design.n if data is None else len(data), 1)))
    rows = record.design.X if data is None else record.design.outcome_encoder.encode(data)
    return record.sample.at_means(record.sample.X.of_rows(np.asarray(rows)))


def _family(record: FitRecord) -> OutcomeFamily:
    """Family of the outcome models; asks the design for offsets, as a scan's sample has no rows."""
    constants = record.spec.constants and record.design.offset_kind is None
    return LINEAR if constants else record.sample.family


def _predictors(record: FitRecord, rows: Array, data: Any) -> Array:
    """Linear predictors of new rows with the offset at which the means are, an arm a column, shape (m, K)."""
    eta, sample, stated = rows @ record.estimate.theta.T, record.sample, record.stated_exposure
    if record.design.offset_kind is None:
        return eta
    if stated is not None:
        return eta + np.log(stated)
    if data is None and sample.mean_offset is not None:
        return eta + sample.restore(sample.mean_offset)[:, None]
    return eta + new_offset(record.design, data)[:, None]


def _index_of(data: Any) -> pd.Index | None:
    return data.index if isinstance(data, pd.DataFrame) else None
