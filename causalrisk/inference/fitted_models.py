"""The fitted models of a record: their coefficients, influence functions and predictions; learners, stacks and repeats.

Coefficients are transformed from the orthonormal bases to the columns of the designs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from causalrisk.design import new_offset
from causalrisk.design.design import rows_not_kept
from causalrisk.errors import DesignWarning, OptionError, UnavailableError, check_alpha, warn_user
from causalrisk.estimation.equations import LINEAR
from causalrisk.estimation.learned import Learned
from causalrisk.estimation.record import FitRecord, Repeats, of_means
from causalrisk.inference.intervals import wald_interval
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array

# --- coefficients ----------------------------------------------------------------------------------------------------


def outcome_names(record: FitRecord) -> tuple[str, ...]:
    """Return the names of the terms of the outcome models; none of quantiles and of matching."""
    if record.options.quantiles or record.spec.matched:
        return ()
    names = ("Intercept",) if record.spec.constants else record.design.exog_names
    periods = record.design.periods
    return names if periods is None else tuple(f"{name} in {period}" for period in periods.names for name in names)


def propensity_terms(record: FitRecord) -> tuple[str, ...]:
    """Return the names of the propensity coefficients; of several predictors with the arm each belongs to."""
    weights, names = record.weight_fit, record.design.propensity_names
    if weights is None:
        return ()
    labels, arms = record.design.labels, weights.arms
    prefixes = [f"{labels[a]}: " for a in arms] if len(arms) > 1 else ["" for _ in arms]
    if "member" in weights.beta:
        prefixes.append("membership: ")
    own = tuple(f"{prefix}{name}" for prefix in prefixes for name in names)
    seen = record.design.observation
    if "observed" not in weights.beta or seen is None:
        return own
    return own + tuple(f"observed: {name}" for name in seen.names)


def _blocks(record: FitRecord) -> Iterator[tuple[int | None, slice, Array, tuple[str, ...]]]:
    """Yield what belongs to the outcome model of each arm, and to the propensity score (None).

    The place among all estimates, the matrix from coefficients of the basis to those of the columns, and names.
    """
    estimate, sample, names, weights = record.estimate, record.sample, outcome_names(record), record.weight_fit
    if names:
        p, size = len(record.design.exog_names), estimate.theta.shape[1]  # p in each period, where there are two
        plain = np.eye(size) if record.spec.constants else sample.X.coefficients(np.eye(p))
        matrix = block_diag(*[plain] * (size // len(plain)))
        for arm in range(record.design.n_arms):
            yield arm, estimate.block("theta", arm), matrix, names
    if estimate.gamma.size:
        observed, parts = np.empty(0), []
        if weights is not None and "observed" in weights.beta and sample.R is not None:
            observed = weights.beta["observed"]
            parts = [sample.R.coefficients(np.eye(observed.size))]
        q = sample.Z.columns.shape[1]
        own = [sample.Z.coefficients(np.eye(q))] * ((estimate.gamma.size - observed.size) // q)
        yield None, estimate.block("gamma"), block_diag(*own, *parts), propensity_terms(record)


def coefficients(record: FitRecord) -> dict[int | None, pd.DataFrame]:
    """Return the coefficients of the blocks by arm, None for the propensity score: columns "values" and "se"."""
    found = {}
    for arm, block, matrix, names in _blocks(record):
        variances = np.diag(matrix @ record.covariance[block, block] @ matrix.T)
        columns = {"values": matrix @ record.estimate.values[block], "se": np.sqrt(variances)}
        found[arm] = pd.DataFrame(columns, index=list(names))
    return found


def influence_of(record: FitRecord) -> tuple[Array, list[str]]:
    """Return the influence function (n, d) of parameters and coefficients, and the names of the coefficients.

    Columns are effects and arm means, outcome coefficients of each arm, propensity coefficients; rows as in the sample.
    """
    influence, names = record.estimate.influence, []
    parts = [influence[:, : len(record.estimate.params)]]
    for arm, block, matrix, terms in _blocks(record):
        parts.append(influence[:, block] @ matrix.T)
        model = "propensity" if arm is None else f"outcome[{record.design.labels[arm]}]"
        names += [f"{model}: {term}" for term in terms]
    return np.column_stack(parts), names


def estimating_equations(record: FitRecord) -> pd.DataFrame:
    """Contribution of each row to the estimates: its influence function, from the estimating equations.

    Returns
    -------
    DataFrame
        One row per row of the sample. Columns are the effect, the arm means, then ``outcome[arm]: term`` and
        ``propensity: term``. If psi are these numbers and s the observation weights, the robust covariance is
        (s psi)'(s psi) / (sum s)^2. With clusters, s psi is first summed within them.

    Examples
    --------
    >>> from causalrisk import AIPW, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = AIPW.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> psi = res.estimating_equations()["ATE"]
    >>> bool(abs((psi @ psi) ** 0.5 / len(psi) - res.effect_se) < 1e-9)
    True
    """
    values, terms = influence_of(record)
    sample, index = record.sample, record.design.index
    if record.frame is not None:
        keys = ["sample"] * record.design.n + ["target"] * sample.n_frame
        index = pd.MultiIndex.from_arrays([keys, [*index, *record.frame.index]])
    rows = np.concatenate([sample.restore(values), values[: sample.n_frame]])
    return pd.DataFrame(rows, index=index, columns=[*record.names, *terms])


def outcome_frame(record: FitRecord, field: str) -> pd.DataFrame:
    """Return the outcome coefficients ("values") or their errors ("se"), a row per term, a column per arm."""
    record.check_means(f"outcome_{'params' if field == 'values' else 'bse'}")
    if record.spec.given:
        what = "models of a learner" if record.design.predictions is None else "given predictions"
        raise UnavailableError(f"{what} have no coefficients.\nUse `res.outcome_predictions`.")
    found, labels = coefficients(record), record.design.labels
    return pd.DataFrame({label: found[arm][field] for arm, label in enumerate(labels)})


def propensity_series(record: FitRecord, field: str, name: str) -> pd.Series:
    """Return the propensity coefficients ("values") or their standard errors ("se")."""
    block = coefficients(record).get(None)
    if block is None and not record.spec.uses_propensity:
        raise record.without_scores()
    if block is None:
        raise UnavailableError("scores given or of a classifier have no coefficients.\nUse `res.propensity_scores`.")
    return block[field].rename(name)


# --- predictions -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Predictions:
    """Predicted mean outcomes with standard errors, one row per row of the new data and arm.

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

    predicted_mean: pd.Series
    se_mean: pd.Series
    predictor: Array
    se_predictor: Array
    mean: Callable[[Array], Array]
    df: float = np.inf

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return intervals of the mean, columns 0 and 1, transformed from the linear predictor."""
        check_alpha(alpha)
        limits = self.mean(wald_interval(self.predictor, self.se_predictor, alpha, self.df))
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
        raise UnavailableError(f"JRE does not predict single units.\nUse `res.start.{what}`.")


BY_CHANCE = 0.01  # probability above which new rows may well be of one arm


def _check_arm(record: FitRecord, data: Any, arm: Any) -> None:
    """Warn of a treatment set in all rows: here each arm is predicted."""
    design, name = record.design, record.design.treat_name
    if arm is not None:
        return
    if not isinstance(data, pd.DataFrame) or list(data.columns).count(name) != 1 or design.on_disk:
        return
    levels = data[name].unique()
    position = design.arm_named(levels[0]) if len(levels) == 1 else None
    if position is None or data.index.isin(design.index[design.arm == position]).all():
        return
    if (design.counts[position] / design.nobs) ** len(data) <= BY_CHANCE:
        typed = f"Use `arm={design.labels[position]!r}` for one arm."
        warn_user(f"{name!r} is {levels[0]} in all rows, but every arm is predicted.\n{typed}", DesignWarning)


@of_means
def predict(record: FitRecord, data: Any = None, arm: Any = None) -> pd.DataFrame | pd.Series:
    """Predict the mean outcome of new rows in each arm (not for JRE).

    Parameters
    ----------
    data : DataFrame or array_like, optional
        New rows with the covariates of the outcome formula, coded as in the fit. By default the estimation sample. A
        treatment column is ignored, with a warning if all its values are one arm. Predictions use the exposure of
        `at_exposure`. If that is "observed", or the model has an offset, new rows need this column.
    arm : level or label, optional
        One arm. By default all.

    Returns
    -------
    DataFrame or Series
        One column per arm, or the one arm.

    Raises
    ------
    DesignError
        If a covariate is missing or has a level that was not in the fit.
    """
    check_unit_level(record, "predict(data)")
    _check_arm(record, data, arm)
    labels = list(record.design.labels)
    if data is None:
        fitted = record.sample.restore(record.estimate.predicted.T.copy())
        frame = pd.DataFrame(fitted, index=record.design.index, columns=labels)
    else:
        predictors = _predictors(record, _new_rows(record, data), data)
        index = data.index if isinstance(data, pd.DataFrame) else None
        frame = pd.DataFrame(_family(record).mean(predictors), index=index, columns=labels)
    return frame if arm is None else frame[record.arm_label(arm)]


@of_means
def get_prediction(record: FitRecord, data: Any = None, arm: Any = None) -> Predictions:
    """Predict the mean outcome of new rows, with standard errors (not for JRE).

    Parameters
    ----------
    data, arm
        As in `predict`.

    Returns
    -------
    Predictions
        With `predicted_mean`, `se_mean`, `conf_int` and `summary_frame`, as in statsmodels. With several arms, rows are
        indexed by row and arm. Standard errors are for the mean, from the covariance of the fit. Intervals are
        symmetric on the scale of the linear predictor.

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
    if record.spec.given:
        what, use = ("given", "") if record.design.predictions is not None else ("of a learner", "data")
        raise UnavailableError(f"predictions {what} have no standard errors.\nUse `res.predict({use})`.")
    check_unit_level(record, "get_prediction(data)")
    _check_arm(record, data, arm)
    rows, labels, family = _new_rows(record, data), list(record.design.labels), _family(record)
    predictors = _predictors(record, rows, data)
    blocks = [record.estimate.block("theta", position) for position in range(len(labels))]
    variances = [np.einsum("np,pq,nq->n", rows, record.covariance[block, block], rows) for block in blocks]
    se_predictor = np.sqrt(np.clip(np.column_stack(variances), 0, None))
    se_mean = np.abs(family.mean_deriv(predictors)) * se_predictor
    index = record.design.index if data is None else data.index if isinstance(data, pd.DataFrame) else None
    frames = [
        pd.DataFrame(values, index=index, columns=labels)
        for values in (family.mean(predictors), se_mean, predictors, se_predictor)
    ]
    means, errors, eta, se_eta = [frame.stack() if arm is None else frame[record.arm_label(arm)] for frame in frames]
    return Predictions(means, errors, eta.to_numpy(), se_eta.to_numpy(), family.mean, record.df)


def _new_rows(record: FitRecord, data: Any) -> Array:
    if isinstance(data, str):
        raise OptionError(
            f"data={data!r} is text; expected rows of covariates.\nUse `res.potential_outcomes` for means."
        )
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


# --- learners, stacks and repeats ------------------------------------------------------------------------------------


def used_learned(record: FitRecord) -> Learned:
    """Return the learners of a fit; one without them raises an UnavailableError."""
    if record.learned is None:
        raise UnavailableError('this fit has no learner.\nUse `from_formula(..., learner="smooth")`.')
    return record.learned


def outcome_predictions(record: FitRecord) -> pd.DataFrame:
    """Return the predictions of the mean outcome of each row in each arm, cross-fitted or given.

    Returns
    -------
    DataFrame
        One row per row of the sample and one column per arm (and learner, if there are several). Each row is predicted
        by models fitted to the other folds.

    Raises
    ------
    UnavailableError
        If the fit has neither a learner nor given predictions.
    """
    if record.design.predictions is not None:
        return pd.DataFrame(record.design.predictions, index=record.design.index, columns=list(record.design.labels))
    learned, labels = used_learned(record), list(record.design.labels)
    if record.design.on_disk:
        raise rows_not_kept("the prediction of each row", "`res.learner_fit` has the fit outside of the folds. ")
    values = np.concatenate([fit.predictions for fit in learned.fits]).T
    columns = pd.Index(labels)
    if len(learned.fits) > 1:
        columns = pd.MultiIndex.from_product([learned.names, labels], names=["learner", "arm"])
    return pd.DataFrame(values.copy(), index=record.design.index, columns=columns)


def learner_fit(record: FitRecord) -> pd.DataFrame:
    """Return how well the learners predict rows outside the folds they were fitted to.

    Returns
    -------
    DataFrame
        One row per learner and arm: "r squared", and "intercept" and "slope" of a regression of the outcomes on the
        predictions. Calibrated predictions have intercept 0 and slope 1.

    Raises
    ------
    UnavailableError
        If the fit has no learner.
    """
    learned = used_learned(record)
    index = pd.MultiIndex.from_product([learned.names, record.design.labels], names=["learner", "arm"])
    return pd.DataFrame(learned.quality.reshape(-1, 3), index=index, columns=["r squared", "intercept", "slope"])


def stack_table(record: FitRecord) -> pd.DataFrame:
    """Return the fits whose weighted average is the estimate.

    Returns
    -------
    DataFrame
        One row per fit: its effects, its weight and, for two arms, its robust standard error. JRE's standard error
        accounts for the choice of the shrinkage.

    Raises
    ------
    UnavailableError
        If the estimate is not an average.
    """
    stack, names = record.stack, record.effect_names
    if stack is None:
        instead = 'Use `JRE` with `learner="smooth", learner_use="ensemble"`.'
        raise UnavailableError(f"this fit is not an average of fits.\n{instead}")
    effects = np.stack([of.estimate.params[: len(names)] for of in stack.records])
    frame = pd.DataFrame(effects, index=pd.Index(stack.names, name="fit"), columns=names)
    if len(names) == 1:
        choice = np.array([of.choice_variance for of in stack.records])
        frame["std err"] = np.sqrt(choice * np.diag(stack.covariances))
    frame["weight"] = stack.weights
    return frame


def median_fit(records: Sequence[FitRecord]) -> FitRecord:
    """Return the fit whose effects are nearest to the medians over an odd number of repeats.

    Its variances are the medians of variance plus squared distance from its estimate; correlations are the fit's own.
    See Chernozhukov, V. et al. (2018). Double/debiased machine learning for treatment and structural parameters.
    Econometrics Journal 21, C1-C68, definition 3.3.
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
