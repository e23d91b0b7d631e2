"""Coefficients of the outcome and propensity models, transformed from the orthonormal bases to the designs' columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from causalrisk.design import Observation
from causalrisk.errors import UnavailableError
from causalrisk.estimators.record import FitRecord
from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class CoefficientTable:
    """Named estimates of one table.

    Parameters
    ----------
    names : tuple of str
        Row names.
    values, se : ndarray, shape (d,)
        Estimates and standard errors.
    """

    names: tuple[str, ...]
    values: Array
    se: Array


@dataclass(frozen=True)
class ModelCoefficients:
    """Coefficients of the two models, for the tables below the effects.

    Parameters
    ----------
    outcome : tuple of CoefficientTable
        Per arm.
        propensity : CoefficientTable or None
        Coefficients of the propensity model.
    """

    outcome: tuple[CoefficientTable, ...]
    propensity: CoefficientTable | None


def outcome_names(record: FitRecord) -> tuple[str, ...]:
    """Return the names of the terms of the outcome models; none of quantiles, whose models are of their indicators."""
    if record.options.quantiles:
        return ()
    names = ("Intercept",) if record.spec.constants else record.design.exog_names
    periods = record.design.periods
    return names if periods is None else tuple(f"{name} in {period}" for period in periods.names for name in names)


def coefficients_of(record: FitRecord) -> ModelCoefficients:
    """Return the coefficients of the columns of the designs, with standard errors.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    ModelCoefficients
        Per arm, and of the propensity model if there is one.
    """
    estimate, names = record.estimate, outcome_names(record)
    outcome = []
    for arm, theta in enumerate(estimate.theta if names else ()):
        block = estimate.block("theta", arm)
        covariance = record.covariance[block, block]
        values, se = _in_columns(partial(_outcome_columns, record), theta, covariance)
        outcome.append(CoefficientTable(names, values, se))
    block = estimate.block("gamma")
    if not estimate.gamma.size:
        return ModelCoefficients(tuple(outcome), None)
    values, se = _in_columns(partial(_propensity_columns, record), estimate.gamma, record.covariance[block, block])
    return ModelCoefficients(tuple(outcome), CoefficientTable(propensity_terms(record), values, se))


def propensity_terms(record: FitRecord) -> tuple[str, ...]:
    """Return the names of the propensity coefficients; of several predictors with the arm each belongs to."""
    weights, names = record.weight_fit, record.design.propensity_names
    if weights is None:
        return ()
    labels, model = record.design.labels, weights.model.propensity
    prefixes = [f"{labels[a]}: " for a in model.arms] if model.n_predictors > 1 else [""]
    if not model.n_coefficients:
        prefixes = []
    if weights.model.membership is not None:
        prefixes.append("membership: ")
    own = tuple(f"{prefix}{name}" for prefix in prefixes for name in names)
    seen = record.design.observation
    return own if weights.model.observation is None or seen is None else own + observed_names(seen)


def observed_names(observation: Observation) -> tuple[str, ...]:
    """Names of the coefficients of the observation model, among those of the propensity model."""
    return tuple(f"observed: {name}" for name in observation.names)


def _outcome_columns(record: FitRecord, theta: Array) -> Array:
    """Coefficients of the design's columns, in each period where there are two, of those of the basis."""
    if record.spec.constants:
        return theta.copy()
    p = len(record.design.exog_names)
    return np.concatenate([record.sample.X.coefficients(theta[k : k + p]) for k in range(0, len(theta), p)])


def _propensity_columns(record: FitRecord, gamma: Array) -> Array:
    weights, sample, q = record.weight_fit, record.sample, record.sample.Z.columns.shape[1]
    cut, last = len(gamma), []
    if weights is not None and weights.model.observation is not None and sample.R is not None:
        cut -= weights.model.observation.n_coefficients
        last = [sample.R.coefficients(gamma[cut:])]
    return np.concatenate([*(sample.Z.coefficients(gamma[k : k + q]) for k in range(0, cut, q)), *last])


def influence_of(record: FitRecord) -> tuple[Array, list[str]]:
    """Return the influence function of parameters and coefficients, and the names of the coefficients.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    values : ndarray, shape (n, d)
        Columns for the effects and arm means, the outcome coefficients of each arm, the propensity coefficients; rows
        in the order of the sample.
    names : list of str
        Names of the coefficients.
    """
    estimate, terms = record.estimate, outcome_names(record)
    parts, names = [estimate.influence[:, : len(estimate.params)]], []
    for arm, label in enumerate(record.design.labels if terms else ()):
        block = estimate.influence[:, estimate.block("theta", arm)]
        parts.append(_outcome_columns(record, block.T).T)
        names += [f"outcome[{label}]: {term}" for term in terms]
    if estimate.gamma.size:
        parts.append(_propensity_columns(record, estimate.influence[:, estimate.block("gamma")].T).T)
        names += [f"propensity: {term}" for term in propensity_terms(record)]
    return np.column_stack(parts), names


def _in_columns(transform: Callable[[Array], Array], values: Array, covariance: Array) -> tuple[Array, Array]:
    """Transform coefficients of the basis into coefficients of the design's columns, with their standard errors."""
    half = transform(covariance)
    variances = np.diag(transform(half.T))
    return transform(values), np.sqrt(variances)


def estimating_equations(record: FitRecord) -> pd.DataFrame:
    """Contribution of each row to the estimates: the solved estimating equations, or influence function.

    Returns
    -------
    DataFrame
        A row a row of the sample; columns the effect, the arm means, then ``outcome[arm]: term`` and
        ``propensity: term``. With psi these numbers and s the observation weights, the robust covariance is
        (s psi)'(s psi) / (sum s)^2; within clusters s psi is summed first.

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
    sample, names = record.sample, [*record.names, *terms]
    frame = record.frame
    if frame is None:
        return pd.DataFrame(sample.restore(values), index=record.design.index, columns=names)
    rows = np.concatenate([sample.restore(values), values[: sample.n_frame]])
    keys = ["sample"] * record.design.n + ["target"] * sample.n_frame
    labels = [*record.design.index, *frame.index]
    return pd.DataFrame(rows, index=pd.MultiIndex.from_arrays([keys, labels]), columns=names)


def outcome_frame(record: FitRecord, field: str) -> pd.DataFrame:
    """Return the outcome coefficients ("values") or their standard errors ("se"), a row a term and a column an arm."""
    record.check_means(f"outcome_{'params' if field == 'values' else 'bse'}")
    if record.spec.given:
        raise UnavailableError(
            "the outcome models are predictions of a learner, and have no coefficients.\n"
            "Type  res.outcome_predictions  for the predictions."
        )
    blocks = zip(record.design.labels, coefficients_of(record).outcome, strict=True)
    return pd.DataFrame({label: getattr(block, field) for label, block in blocks}, index=list(outcome_names(record)))


def propensity_series(record: FitRecord, field: str, name: str) -> pd.Series:
    """Return the propensity coefficients ("values") or their standard errors ("se")."""
    block = coefficients_of(record).propensity
    if block is None and not record.spec.uses_propensity:
        raise record.without_scores()
    if block is None:
        raise UnavailableError(
            "the propensity scores are given or a classifier's, and have no coefficients.\n"
            "Type  res.propensity_scores  for the scores."
        )
    return pd.Series(getattr(block, field), index=list(block.names), name=name)
