"""The fitted models of a `FitRecord`: coefficients, influence functions, predictions, learners, averaged fits.

Coefficients are transformed from the orthonormal bases to the columns of the design matrices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from causalrisk.design.design import new_offset
from causalrisk.errors import OptionError, UnavailableError, check_alpha
from causalrisk.estimation.equations import LINEAR
from causalrisk.estimation.learned import Learned
from causalrisk.estimation.record import FitRecord
from causalrisk.inference.intervals import wald_interval
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.families import OutcomeFamily

# --- coefficients ----------------------------------------------------------------------------------------------------


def _blocks(record: FitRecord) -> Iterator[tuple[int | None, slice, Array, list[str]]]:
    """Describe the outcome coefficients of each arm, then the propensity coefficients (arm None).

    Yields the arm, the slice of `Estimate.values`, the matrix that transforms coefficients of the orthonormal basis to
    coefficients of the original columns, and the names of the coefficients.
    """
    estimate, sample, design, weights = record.estimate, record.sample, record.design, record.weight_fit
    if not (record.options.quantiles or record.spec.matched):
        terms = ("Intercept",) if record.spec.constants else design.exog_names
        matrix = np.eye(1) if record.spec.constants else sample.X.coefficients(np.eye(len(terms)))
        matrix = block_diag(*[matrix] * (estimate.theta.shape[1] // len(matrix)))  # one block per period
        periods = [""] if design.periods is None else [f" in {period}" for period in design.periods.names]
        names = [f"{term}{period}" for period in periods for term in terms]
        for arm in range(design.n_arms):
            yield arm, estimate.block("theta", arm), matrix, names
    if estimate.gamma.size and weights is not None:
        against = weights.equations.target.toward if record.options.propensity_loss == "calibrated" else 0
        others = [label for a, label in enumerate(design.labels) if a != against]
        prefixes = [] if "score" not in weights.beta else [f"{label}: " * (len(others) > 1) for label in others]
        prefixes += ["membership: "] if "member" in weights.beta else []
        names = [f"{prefix}{name}" for prefix in prefixes for name in design.propensity_names]
        matrices = [sample.Z.coefficients(np.eye(sample.Z.columns.shape[1]))] * len(prefixes)
        if "observed" in weights.beta and sample.R is not None and design.observation is not None:
            names += [f"observed: {name}" for name in design.observation.encoder.names]
            matrices.append(sample.R.coefficients(np.eye(weights.beta["observed"].size)))
        yield None, estimate.block("gamma"), block_diag(*matrices), names


def coefficients(record: FitRecord) -> dict[int | None, pd.DataFrame]:
    """Return coefficients ("values") and standard errors ("se") by arm. The key None has the propensity model."""
    found = {}
    for arm, block, matrix, names in _blocks(record):
        variances = np.diag(matrix @ record.covariance_of(block) @ matrix.T)
        columns = {"values": matrix @ record.estimate.values[block], "se": np.sqrt(variances)}
        found[arm] = pd.DataFrame(columns, index=names)
    return found


def estimating_equations(record: FitRecord) -> pd.DataFrame:
    """Return the influence functions of the estimates, one row per row of the sample.

    Returns
    -------
    DataFrame
        Columns are the effects, the group means, then ``outcome[arm]: term`` and ``propensity: term``. With these
        columns psi and observation weights s, the robust covariance is (s psi)'(s psi) / (sum s)^2, or psi'(s psi) /
        (sum s)^2 for frequency weights. With clusters, the first formula holds with s psi summed within clusters.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> psi = res.estimating_equations()["ATE"]
    >>> bool(abs((psi @ psi) ** 0.5 / len(psi) - res.effect_se) < 1e-9)
    True
    """
    sample, index, influence = record.sample, record.design.index, record.estimate.influence
    names, parts = list(record.names), [influence[:, : len(record.estimate.params)]]
    for arm, block, matrix, terms in _blocks(record):
        parts.append(influence[:, block] @ matrix.T)
        model = "propensity" if arm is None else f"outcome[{record.design.labels[arm]}]"
        names += [f"{model}: {term}" for term in terms]
    values = np.column_stack(parts)
    if record.frame is not None:
        keys = ["sample"] * record.design.n + ["target"] * sample.n_frame
        index = pd.MultiIndex.from_arrays([keys, [*index, *record.frame.index]])
    rows = np.concatenate([sample.restore(values), values[: sample.n_frame]])
    return pd.DataFrame(rows, index=index, columns=names)


def outcome_frame(record: FitRecord, field: str, name: str) -> pd.DataFrame:
    """Return outcome coefficients ("values") or standard errors ("se"), one row per term and one column per arm."""
    _check_coefficients(record, name)
    found, labels = coefficients(record), record.design.labels
    return pd.DataFrame({label: found[arm][field] for arm, label in enumerate(labels)})


def _check_coefficients(record: FitRecord, what: str) -> None:
    """Raise an UnavailableError if the outcome models have no coefficients, or one set per quantile."""
    record.check_means(what)
    if record.spec.matched or record.spec.given:
        found = f"{what} is not available for {record.spec.name}: matched, learned or given predictions"
        raise UnavailableError(f"{found} have no coefficients.\nUse `res.predict()`, or `OutcomeRegression`.")


def propensity_series(record: FitRecord, field: str, name: str) -> pd.Series:
    """Return the propensity coefficients ("values") or their standard errors ("se")."""
    block = coefficients(record).get(None)
    if block is None and not record.spec.uses_propensity:
        raise record.without_scores()
    if block is None:
        raise UnavailableError("known scores and classifiers have no coefficients.\nUse `res.propensity_scores`.")
    return block[field].rename(name)


# --- predictions -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Predictions:
    """Predicted mean outcomes with standard errors, one per new row and treatment group.

    Parameters
    ----------
    predicted_mean, se_mean : Series
        Predictions and their standard errors.
    predictor, se_predictor : ndarray, shape (m,)
        Linear predictors and their standard errors. Intervals are symmetric on this scale.
    mean : callable
        Maps the linear predictor to the mean.
    df : float
        Degrees of freedom of the intervals; infinite for the normal distribution.
    """

    predicted_mean: pd.Series
    se_mean: pd.Series
    predictor: Array
    se_predictor: Array
    mean: Callable[[Array], Array]
    df: float = np.inf

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return intervals of the mean, columns 0 and 1, transformed from intervals of the linear predictor."""
        check_alpha(alpha)
        limits = self.mean(wald_interval(self.predictor, self.se_predictor, alpha, self.df))
        return pd.DataFrame(limits, index=self.predicted_mean.index)

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return predictions, standard errors and intervals in columns named as in statsmodels."""
        limits = self.conf_int(alpha).set_axis(["mean_ci_lower", "mean_ci_upper"], axis=1)
        return pd.concat([self.predicted_mean.rename("mean"), self.se_mean.rename("mean_se"), limits], axis=1)

    def __repr__(self) -> str:
        return repr(self.summary_frame())


def check_unit_level(record: FitRecord, what: str) -> None:
    """Raise an UnavailableError for JRE, whose outcome models do not predict single units."""
    if record.joint is not None:
        raise UnavailableError(f"JRE does not predict outcomes of single units.\nUse `res.start.{what}`.")


def predict(record: FitRecord, data: Any = None, arm: Any = None) -> pd.DataFrame | pd.Series:
    """Predict the mean outcome of new rows under each treatment (not for JRE).

    Parameters
    ----------
    data : DataFrame or array_like, optional
        New rows with the covariates of the outcome formula, coded as in the fit. By default the estimation sample. A
        treatment column is ignored. With ``missing="indicator"``, missing covariates are filled in as in the fit. If
        the model has an offset, new rows need its column. If it has an exposure, predictions are at the model's
        `at_exposure`. With ``at_exposure="observed"``, new rows need the exposure column.
    arm : level or label, optional
        Treatment group to predict. By default all groups.

    Returns
    -------
    DataFrame or Series
        One column per treatment group, or a Series for one group.

    Raises
    ------
    DesignError
        If the column of a covariate is absent, or has a level that was not in the fit.
    """
    record.check_means("predict()")
    check_unit_level(record, "predict(data)")
    if data is not None and record.spec.matched:
        _check_coefficients(record, "predict(data)")
    if data is None:
        values, index = record.sample.restore(record.estimate.predicted.T.copy()), record.design.index
    else:
        _, predictors, index, family = _at_rows(record, data)
        values = family.mean(predictors)
    frame = pd.DataFrame(values, index=index, columns=list(record.design.labels))
    return frame if arm is None else frame[record.design.labels[record.arm_position(arm)]]


def get_prediction(record: FitRecord, data: Any = None, arm: Any = None) -> Predictions:
    """Predict the mean outcome of new rows, with standard errors (not for JRE).

    Parameters
    ----------
    data, arm
        As in `predict`.

    Returns
    -------
    Predictions
        Object with `predicted_mean`, `se_mean`, `conf_int` and `summary_frame`, as in statsmodels. The index has the
        row and the treatment group, or only the row if one group is given. Standard errors of the mean use the
        covariance of the fit. Intervals are symmetric on the scale of the linear predictor.

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
    _check_coefficients(record, "get_prediction()")
    check_unit_level(record, "get_prediction(data)")
    (rows, predictors, index, family), labels = _at_rows(record, data), list(record.design.labels)
    blocks = [record.estimate.block("theta", position) for position in range(len(labels))]
    variances = [np.einsum("np,pq,nq->n", rows, record.covariance_of(block), rows) for block in blocks]
    se_predictor = np.sqrt(np.clip(np.column_stack(variances), 0, None))
    se_mean = np.abs(family.mean_and_derivs(predictors)[1]) * se_predictor
    columns, name = (family.mean(predictors), se_mean, predictors, se_predictor), labels[record.arm_position(arm)]
    frames = [pd.DataFrame(values, index=index, columns=labels) for values in columns]
    means, errors, eta, se_eta = [frame.stack() if arm is None else frame[name] for frame in frames]
    return Predictions(means, errors, eta.to_numpy(), se_eta.to_numpy(), family.mean, record.df)


def _at_rows(record: FitRecord, data: Any) -> tuple[Array, Array, pd.Index | None, OutcomeFamily]:
    """Return m new rows in the basis of the outcome models, linear predictors (m, K), the rows' index and the family.

    The predictors include the offset: log(`at_exposure`), or the offset of the row.
    """
    design, sample, stated = record.design, record.sample, record.stated_exposure
    if isinstance(data, str):
        raise OptionError(f"data={data!r}; expected rows with covariates.\nUse `pandas.read_csv` for a file.")
    index = design.index if data is None else data.index if isinstance(data, pd.DataFrame) else None
    if record.spec.constants:
        rows = np.ones((design.n if data is None else len(data), 1))
    else:
        rows = sample.X.of_rows(np.asarray(design.X if data is None else design.outcome_encoder.encode(data)))
    rows = sample.at_means(rows)
    eta = rows @ record.estimate.theta.T
    if design.offset_kind is None:
        return rows, eta, index, LINEAR if record.spec.constants else sample.family
    if stated is not None:
        return rows, eta + np.log(stated), index, sample.family
    kept = sample.mean_offset if data is None else None
    offset = new_offset(design, data) if kept is None else sample.restore(kept)
    return rows, eta + offset[:, None], index, sample.family


# --- learners, averages and repeats ----------------------------------------------------------------------------------


def used_learned(record: FitRecord) -> Learned:
    """Return the learners of a fit. Raise an UnavailableError if the fit has none."""
    if record.learned is None:
        raise UnavailableError('this fit has no learner.\nUse `from_formula(..., learner="smooth")`.')
    return record.learned


def outcome_predictions(record: FitRecord) -> pd.DataFrame:
    """Return each row's predicted mean outcome under each treatment, cross-fitted or given.

    Returns
    -------
    DataFrame
        One row per row of the sample and one column per treatment group (and learner, if there are several).
        Cross-fitted predictions of a row are from models fitted to the other folds.

    Raises
    ------
    UnavailableError
        If the fit has neither a learner nor given predictions.
    """
    if record.design.predictions is not None:
        return pd.DataFrame(record.design.predictions, index=record.design.index, columns=list(record.design.labels))
    learned, labels = used_learned(record), list(record.design.labels)
    instead = "`res.learner_fit` has the quality of the predictions. "
    record.design.check_in_memory("the prediction of each row", instead)
    columns = pd.Index(labels)
    if len(learned.fits) > 1:
        columns = pd.MultiIndex.from_product([learned.names, labels], names=["learner", "arm"])
    return pd.DataFrame(np.concatenate(cast(Any, learned.means)).T, index=record.design.index, columns=columns)


def learner_fit(record: FitRecord) -> pd.DataFrame:
    """Return how well the learners predict the outcomes. With cross-fitting, they predict rows not used to fit them.

    Returns
    -------
    DataFrame
        One row per learner and treatment group. Columns are "r squared", and the "intercept" and "slope" of a
        regression of outcomes on predictions. Calibrated predictions have intercept 0 and slope 1.

    Raises
    ------
    UnavailableError
        If the fit has no learner.
    """
    learned = used_learned(record)
    index = pd.MultiIndex.from_product([learned.names, record.design.labels], names=["learner", "arm"])
    return pd.DataFrame(learned.quality.reshape(-1, 3), index=index, columns=["r squared", "intercept", "slope"])


def stack_table(record: FitRecord) -> pd.DataFrame:
    """Return the fits whose weighted average is the estimate (``learner_use="stack"``).

    Returns
    -------
    DataFrame
        One row per fit: its effects, its weight and, for two groups, its robust standard error. JRE's standard error
        accounts for the choice of the shrinkage.

    Raises
    ------
    UnavailableError
        If the estimate is not an average of fits.
    """
    stack, names = record.stack, record.effect_names
    if stack is None:
        raise UnavailableError('`res.stack` is only for averages of fits.\nUse `JRE` with `learner="smooth"`.')
    effects = np.stack([of.estimate.params[: len(names)] for of in stack.records])
    frame = pd.DataFrame(effects, index=pd.Index(stack.names, name="fit"), columns=names)
    if len(names) == 1:
        factors = np.array([of.choice_variance * of.small_sample_factor for of in stack.records])
        frame["std err"] = np.sqrt(factors * np.diag(stack.covariances))
    frame["weight"] = stack.weights
    return frame


def median_fit(records: Sequence[FitRecord]) -> FitRecord:
    """Return the fit whose effects are nearest to the medians over an odd number of repeats.

    Each repeat's covariance is increased by d d', where d is its estimates minus the chosen estimates. The result has
    the covariance for which the total variance of the effects is the median. See Chernozhukov, V. et al. (2018).
    Double/debiased machine learning for treatment and structural parameters. Econometrics Journal 21, C1-C68,
    definition 3.3.
    """
    params = np.stack([record.estimate.params for record in records])
    count, size = records[0].design.n_arms - 1, params.shape[1]
    away = params[:, :count] - np.median(params[:, :count], axis=0)
    chosen = int(np.argmin((away**2).sum(axis=1)))
    moved = params - params[chosen]
    found = np.stack([record.covariance[:size, :size] for record in records]) + moved[:, :, None] * moved[:, None]
    variances = np.trace(found[:, :count, :count], axis1=1, axis2=2)
    middle = int(np.argsort(variances)[len(records) // 2])
    return dataclasses.replace(records[chosen], covariance=found[middle], repeats=params)
