"""What results say of parts of the population and of single rows: subgroup effects, pairs of arms, predictions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.coefficients import outcome_covariances
from causalrisk.design import Moderators, moderators
from causalrisk.effects import DIFFERENCE
from causalrisk.errors import OptionError, UnavailableError
from causalrisk.heterogeneity import joint_group_effects, project_effects
from causalrisk.inference.intervals import check_alpha, normal_interval
from causalrisk.inference.sandwich import sandwich
from causalrisk.linalg import Array
from causalrisk.record import FitRecord
from causalrisk.report.summary import z_and_p

DRAWS = 999  # resamples of a joint fit that has none of its own


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
    """

    def __init__(
        self,
        predicted_mean: pd.Series,
        se_mean: pd.Series,
        predictor: Array,
        se_predictor: Array,
        mean: Callable[[Array], Array],
    ) -> None:
        self.predicted_mean, self.se_mean = predicted_mean, se_mean
        self._predictor, self._se_predictor, self._mean = predictor, se_predictor, mean

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return intervals of the mean, columns 0 and 1: normal ones of the linear predictor, transformed."""
        check_alpha(alpha)
        limits = self._mean(normal_interval(self._predictor, self._se_predictor, alpha))
        return pd.DataFrame(limits, index=self.predicted_mean.index)

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Predictions, standard errors and intervals under statsmodels' names."""
        limits = self.conf_int(alpha).set_axis(["mean_ci_lower", "mean_ci_upper"], axis=1)
        return pd.concat([self.predicted_mean.rename("mean"), self.se_mean.rename("mean_se"), limits], axis=1)

    def __repr__(self) -> str:
        return repr(self.summary_frame())


class UnitAttributes:
    """Effects by group, contrasts of arms, and predictions of new rows."""

    _record: FitRecord

    def _check_unit_level(self, what: str) -> None:
        if self._record.joint is not None:
            raise UnavailableError(
                "JRE debiases one contrast, the average effect: its arm models are bent to serve it, and their "
                "unit-level predictions mean nothing.\n"
                f"Type  res.start.{what}  for those of the IPWRA fit it started from."
            )

    def effects_by(self, by: Any, data: Any = None, alpha: float = 0.05) -> pd.DataFrame:
        """Effects in groups, or how the effect changes along covariates.

        JRE trains its arms anew, with a risk and a variance for each group; it has no projections.

        Parameters
        ----------
        by : str or array_like
            Name of a variable of the model's formulas or of `data`, or one value per row: the effect in each group.
            Text that begins with "~" is a formula: the coefficients of the best linear projection of the unit effects
            on its columns.
        data : DataFrame or mapping, optional
            The data the model was made from, for variables that its formulas do not use.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        DataFrame
            A row a group or column (of several arms a row an effect and group): estimate, std err, z, P>|z| and the
            limits of the interval; for groups also their rows. Standard errors are robust, clustered where the fit is;
            for JRE the bootstrap's.

        Raises
        ------
        DesignError
            If a variable is unknown or misses values.
        UnavailableError
            For a projection by JRE, whose unit effects mean nothing; for the effect over a target frame.

        References
        ----------
        .. [1] Semenova, V. and Chernozhukov, V. (2021). Debiased machine learning of conditional average treatment
           effects and other causal functions. Econometrics Journal 24, 264-289.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> res = cr.AIPW.from_formula("bweight ~ mage + mmarried", births, treat="mbsmoke").fit()
        >>> res.effects_by("mmarried")[["n", "estimate", "std err"]].round(1)
                     n  estimate  std err
        mmarried
        0         1394    -168.6     32.9
        1         3248    -276.5     30.8
        """
        check_alpha(alpha)
        record = self._record
        if record.frame is not None:
            raise UnavailableError(
                "effects_by has no groups of a target frame.\nType  target=  with the rows of one group at a time."
            )
        found = moderators(record.design, by, data)
        scale = record.options.scale
        if not found.groups:
            self._check_unit_level("effects_by(...)")
            if scale is not DIFFERENCE:
                raise OptionError(
                    f'a projection is one of differences, and this fit reports effect="{scale.name}".\n'
                    'Type  model.with_options(effect="difference").fit().effects_by(...).'
                )
        values, se = self._projected(found)
        index: pd.Index = pd.Index(found.names, name=found.name if found.groups else "term")
        if len(values) > 1:
            index = pd.MultiIndex.from_product([record.effect_names, found.names], names=["effect", index.name])
        frame = inference_frame(values.ravel(), se.ravel(), scale.null if found.groups else 0.0, alpha, index)
        if found.groups:
            counts = found.columns.sum(axis=0).astype(int)
            frame.insert(0, "n", np.tile(counts, len(values)))
        return frame

    def _projected(self, found: Moderators) -> tuple[Array, Array]:
        """Effects by the columns found and their standard errors, each of shape (K - 1, k)."""
        record = self._record
        sample, columns = record.sample, found.columns[record.sample.order]
        if record.joint is not None:
            return joint_group_effects(record, columns, DRAWS if record.boot is None else len(record.boot.reasons))
        projection = project_effects(record, columns, record.options.scale, groups=found.groups)
        covariance = sandwich(
            projection.influence.reshape(sample.n, -1),
            sample.weights,
            frequency=record.frequency,
            cluster=sample.clusters(record.design.cluster),
        )
        return projection.values, np.sqrt(np.diag(covariance)).reshape(projection.values.shape)

    def pairwise(self, alpha: float = 0.05) -> pd.DataFrame:
        """Effects of every arm against every other, with the fit's own standard errors.

        Parameters
        ----------
        alpha : float, default 0.05
            Significance level of the intervals; they are not adjusted for the number of pairs.

        Returns
        -------
        DataFrame
            A row a pair, indexed by the arm and the one it is compared with.
        """
        check_alpha(alpha)
        record, n_arms = self._record, self._record.design.n_arms
        first = n_arms - 1
        means = record.estimate.params[first:]
        covariance = record.covariance[first : first + n_arms, first : first + n_arms]
        scale, labels = record.options.scale, record.design.labels
        values, variances, pairs = [], [], []
        for low, high in combinations(range(n_arms), 2):
            both = np.array([low, high])
            slope = scale.jacobian(means[both])[0]
            values.append(scale.effects(means[both])[0])
            variances.append(slope @ covariance[np.ix_(both, both)] @ slope)
            pairs.append((labels[high], labels[low]))
        index = pd.MultiIndex.from_tuples(pairs, names=["arm", "against"])
        return inference_frame(np.array(values), np.sqrt(np.clip(variances, 0, None)), scale.null, alpha, index)

    @property
    def potential_outcomes(self) -> pd.DataFrame:
        """Predicted outcome of every row in every arm, a column an arm (not for JRE)."""
        self._check_unit_level("potential_outcomes")
        fitted = self._record.sample.restore(self._record.estimate.fitted.T.copy())
        return pd.DataFrame(fitted, index=self._record.design.index, columns=list(self._record.design.labels))

    def predict(self, data: Any, arm: Any = None) -> pd.DataFrame | pd.Series:
        """Predict the mean outcome of new rows in each arm (not for JRE).

        Parameters
        ----------
        data : DataFrame or array_like
            New rows with the covariates of the outcome formula, coded as in the fit.
        arm : level or label, optional
            One arm; by default all.

        Returns
        -------
        DataFrame or Series
            A column an arm, or the one arm.

        Raises
        ------
        DesignError
            If a covariate is missing or has a level that was not in the fit.
        """
        self._check_unit_level("predict(data)")
        theta, sample, labels = self._record.estimate.theta, self._record.sample, list(self._record.design.labels)
        predicted = self._new_rows(data) @ self._columns(theta)
        means = predicted if self._record.spec.constants else sample.family.mean(predicted)
        frame = pd.DataFrame(means, index=_index_of(data), columns=labels)
        return frame if arm is None else frame[self._arm_label(arm)]

    def get_prediction(self, data: Any, arm: Any = None) -> Predictions:
        """Predict the mean outcome of new rows, with standard errors (not for JRE).

        Parameters
        ----------
        data, arm
            As in `predict`.

        Returns
        -------
        Predictions
            With `predicted_mean`, `se_mean`, `conf_int` and `summary_frame`, as in statsmodels; rows of several arms
            are indexed by row and arm. Standard errors are those of the mean, from the fit's covariance;
            intervals are symmetric on the scale of the linear predictor.

        Examples
        --------
        >>> import causalrisk as cr
        >>> births = cr.datasets.load_cattaneo2()
        >>> res = cr.IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
        >>> res.get_prediction(births.head(2), arm=1).summary_frame().round(1)
             mean  mean_se  mean_ci_lower  mean_ci_upper
        0  3140.4     18.9         3103.3         3177.5
        1  3151.9     26.6         3099.8         3203.9
        """
        self._check_unit_level("get_prediction(data)")
        record, means = self._record, self.predict(data)
        rows, constants = self._new_rows(data), record.spec.constants
        predictors = rows @ self._columns(record.estimate.theta)
        slope = np.ones_like(predictors) if constants else record.sample.family.slope(predictors)
        spread = [np.einsum("np,pq,nq->n", rows, c, rows) for c in outcome_covariances(record)]
        spread = np.sqrt(np.clip(np.column_stack(spread), 0, None))
        errors = pd.DataFrame(np.abs(slope) * spread, index=means.index, columns=list(record.design.labels))
        mean = _same if constants else record.sample.family.mean
        if arm is not None:
            label = self._arm_label(arm)
            k = list(means.columns).index(label)
            return Predictions(means[label], errors[label], predictors[:, k], spread[:, k], mean)
        return Predictions(means.stack(), errors.stack(), predictors.ravel(), spread.ravel(), mean)

    def _new_rows(self, data: Any) -> Array:
        """Columns of the outcome models for new rows, shape (m, p)."""
        if self._record.spec.constants:
            return np.ones((len(data), 1))
        return np.asarray(self._record.design.outcome_encoder.encode(data))

    def _columns(self, theta: Array) -> Array:
        """Coefficients of these columns, an arm a column, shape (p, K)."""
        return theta.T if self._record.spec.constants else self._record.sample.outcome.coefficients(theta.T)

    def _arm_label(self, arm: Any) -> str:
        design = self._record.design
        for level, label in zip(design.levels, design.labels, strict=True):
            if arm in (label, level):
                return label
        raise OptionError(
            f"arm={arm!r} is not an arm; the arms are {', '.join(map(repr, design.labels))}.\n"
            f"Type  arm={design.labels[-1]!r}."
        )


def inference_frame(values: Array, se: Array, null: float, alpha: float, index: pd.Index) -> pd.DataFrame:
    """Return estimates with standard errors, z tests and normal intervals, under the summary's names."""
    z, p = z_and_p(values, se, null)
    limits = normal_interval(values, se, alpha)
    names = ["estimate", "std err", "z", "P>|z|", f"[{alpha / 2:.4g}", f"{1 - alpha / 2:.4g}]"]
    return pd.DataFrame(np.column_stack([values, se, z, p, limits]), index=index, columns=names)


def _same(values: Array) -> Array:
    return values


def _index_of(data: Any) -> pd.Index | None:
    return data.index if isinstance(data, pd.DataFrame) else None
