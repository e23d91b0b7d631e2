"""Coefficients of the outcome and propensity models, from those of the orthonormal bases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from causalrisk.linalg import Array
from causalrisk.record import FitRecord


@dataclass(frozen=True)
class Estimates:
    """Named estimates of one table.

    Parameters
    ----------
    names : tuple of str
        Row names.
    values, se : ndarray, shape (d,)
        Estimates and standard errors.
    null : float or ndarray, shape (d,)
        What they are tested against.
    """

    names: tuple[str, ...]
    values: Array
    se: Array
    null: Array | float = 0.0


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of the two models, for the tables below the effects.

    Parameters
    ----------
    outcome : tuple of Estimates
        Per arm.
    propensity : Estimates or None
        Of the propensity model.
    """

    outcome: tuple[Estimates, ...]
    propensity: Estimates | None


def outcome_names(record: FitRecord) -> tuple[str, ...]:
    """Return the names of the terms of the outcome models."""
    return ("Intercept",) if record.spec.constants else record.design.exog_names


def coefficients_of(record: FitRecord) -> Coefficients:
    """Return the coefficients of the columns of the designs, with standard errors.

    Parameters
    ----------
    record : FitRecord
        The fit.

    Returns
    -------
    Coefficients
        Per arm, and of the propensity model if there is one.
    """
    estimate, names = record.estimate, outcome_names(record)
    first, p = len(estimate.params), estimate.theta.shape[1]
    outcome = []
    for arm, theta in enumerate(estimate.theta):
        block = slice(first + arm * p, first + (arm + 1) * p)
        covariance = record.covariance[block, block]
        if record.spec.constants:
            values, se = theta.copy(), np.sqrt(np.diag(covariance))
        else:
            values, se = _in_columns(record.sample.outcome.coefficients, theta, covariance)
        outcome.append(Estimates(names, values, se))
    if record.propensity is None:
        return Coefficients(tuple(outcome), None)
    block = slice(first + estimate.theta.size, None)
    if not estimate.gamma.size:
        return Coefficients(tuple(outcome), None)
    values, se = _in_columns(partial(_propensity_columns, record), estimate.gamma, record.covariance[block, block])
    return Coefficients(tuple(outcome), Estimates(propensity_terms(record), values, se))


def outcome_covariances(record: FitRecord) -> list[Array]:
    """Return the covariance of the outcome coefficients of each arm, those of the design's columns, shape (p, p)."""
    first, p = len(record.estimate.params), record.estimate.theta.shape[1]
    blocks = []
    for arm in range(len(record.estimate.theta)):
        block = slice(first + arm * p, first + (arm + 1) * p)
        covariance = record.covariance[block, block]
        if not record.spec.constants:
            transform = record.sample.outcome.coefficients
            covariance = transform(transform(covariance).T)
        blocks.append(covariance)
    return blocks


def propensity_terms(record: FitRecord) -> tuple[str, ...]:
    """Return the names of the propensity coefficients; of several predictors with the arm each belongs to."""
    weights, names = record.propensity, record.design.propensity_names
    if weights is None:
        return ()
    labels, model = record.design.labels, weights.weighting.model
    arms = getattr(model, "arms", range(1, len(labels)))
    prefixes = [f"{labels[a]}: " for a in arms] if model.n_predictors > 1 else [""]
    if not model.n_coefficients:
        prefixes = []
    if weights.weighting.membership is not None:
        prefixes.append("membership: ")
    return tuple(f"{prefix}{name}" for prefix in prefixes for name in names)


def _propensity_columns(record: FitRecord, gamma: Array) -> Array:
    """Coefficients of the design's columns, predictor by predictor, from those of the basis, shape (Q, ...)."""
    basis, q = record.sample.propensity, record.sample.propensity.columns.shape[1]
    return np.concatenate([basis.coefficients(gamma[k : k + q]) for k in range(0, len(gamma), q)])


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
    first, p = len(estimate.params), estimate.theta.shape[1]
    parts, names = [estimate.influence[:, :first]], []
    for arm, label in enumerate(record.design.labels):
        block = estimate.influence[:, first + arm * p : first + (arm + 1) * p]
        parts.append(block if record.spec.constants else record.sample.outcome.coefficients(block.T).T)
        names += [f"outcome[{label}]: {term}" for term in terms]
    if estimate.gamma.size:
        parts.append(_propensity_columns(record, estimate.influence[:, first + estimate.theta.size :].T).T)
        names += [f"propensity: {term}" for term in propensity_terms(record)]
    return np.column_stack(parts), names


def _in_columns(transform: Callable[[Array], Array], values: Array, covariance: Array) -> tuple[Array, Array]:
    """Coefficients of the design's columns and their standard errors, from those of its basis."""
    half = transform(covariance)
    variances = np.diag(transform(half.T))
    return transform(values), np.sqrt(variances)
