"""Outcome models: weighted generalised linear models of one arm, for one column of weights or many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.design import Design
from causalrisk.errors import SeparationError
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.numerics.failures import TEXT, Failure
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import (
    Array,
    gram_matrices,
    least_squares_factor,
    pairwise_columns,
    solve_definite,
)
from causalrisk.numerics.newton import Curvature, LikelihoodSums, WeightedRows
from causalrisk.numerics.optimize import separating_direction

OUTCOME_FAILURES = {
    Failure.SEPARATION: Failure.OUTCOME_SEPARATION,
    Failure.NOT_CONVERGED: Failure.OUTCOME_NOT_CONVERGED,
    Failure.SINGULAR_PROPENSITY: Failure.SINGULAR_OUTCOME,
}


BOUNDED = ("binomial", "poisson", "negativebinomial", "tweedie")  # means reach a bound at infinite predictors only
SHOWN = 3  # terms that a message names


class OutcomeLikelihood:
    """Quasi-likelihood of an outcome family.

    Parameters
    ----------
    family : OutcomeFamily
        Family and link.
    y : ndarray, shape (n,)
        Outcome.
    offset : ndarray, shape (n,), optional
        Known part of the linear predictor.
    """

    n_predictors = 1

    def __init__(self, family: OutcomeFamily, y: Array, offset: Array | None = None) -> None:
        self.family, self.y, self.offset = family, y[:, None], offset
        self.bounded = family.name == "binomial"

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        score, information, _ = self.family.score(self.y, shifted(eta[0], self.offset, axis=-2))
        return score[None], {(0, 0): information}

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        return -self.family.loss(self.y, shifted(eta[0], self.offset, axis=-2))


@dataclass(frozen=True)
class ArmTraining:
    """What the outcome model of one arm is trained on: all its rows, or those of a block.

    Parameters
    ----------
    columns : ndarray, shape (n, p)
        Basis columns.
    y, weights : ndarray, shape (n,)
        Outcome and training weights.
    family : OutcomeFamily
        Family and link.
    offset : ndarray, shape (n,), optional
        Known part of the linear predictor.
    """

    columns: Array
    y: Array
    weights: Array
    family: OutcomeFamily
    offset: Array | None

    def start(self) -> Array:
        """`least_squares_factor` of the model, if it is linear, or else of the start of its iterations."""
        known = self.family.linear or not len(self.y)  # a block may have no rows of the arm
        y = self.y if known else self.family.start(self.y)
        return least_squares_factor(self.columns, y if self.offset is None else y - self.offset, self.weights)

    def rows(self) -> WeightedRows:
        """Return the likelihood of the rows."""
        return WeightedRows(
            columns=self.columns,
            pairs=None,
            likelihood=OutcomeLikelihood(self.family, self.y, self.offset),
            weights=self.weights[:, None],
            halving=True,
        )


class OutcomeRefitter:
    """The outcome model of one arm under many columns of weights at once.

    Parameters
    ----------
    columns : ndarray, shape (n, p)
        Basis columns.
    y : ndarray, shape (n,)
        Outcome.
    family : OutcomeFamily
        Family and link.
    theta : ndarray, shape (p,)
        The full-sample coefficients; refits start there, and linear ones are deviations from them.
    offset : ndarray, shape (n,), optional
        Known part of the linear predictor.
    """

    def __init__(
        self, columns: Array, y: Array, family: OutcomeFamily, theta: Array, offset: Array | None = None
    ) -> None:
        self.columns, self.family, self.theta = columns, family, theta
        self.pairs = pairwise_columns(columns)
        self.likelihood = OutcomeLikelihood(family, y, offset)
        self.weighted_residual = columns * (y - family.mean(shifted(columns @ theta, offset)))[:, None]

    def batch(self, weights: Array) -> WeightedRows:
        """Return the likelihoods under many columns of training weights, shape (n, m)."""
        return WeightedRows(columns=self.columns, pairs=self.pairs, likelihood=self.likelihood, weights=weights)

    def equations(self, weights: Array) -> LikelihoodSums:
        """Sum over the rows what the coefficients of a linear model, less the full-sample ones, solve."""
        gram = gram_matrices(self.pairs, weights, len(self.theta))
        return LikelihoodSums(gram, self.weighted_residual.T @ weights)


def solved_change(equations: LikelihoodSums) -> tuple[Array, NDArray[np.int8]]:
    """Solve the equations of linear models: change of the coefficients, shape (p, m), and failures."""
    change, singular = solve_definite(equations.hessian, equations.gradient)
    return change, np.where(singular, Failure.SINGULAR_OUTCOME, Failure.OK).astype(np.int8)


def outcome_failures(failures: NDArray[np.int8]) -> NDArray[np.int8]:
    """Turn the failures of Newton's method into those of an outcome model."""
    table = np.array([OUTCOME_FAILURES.get(failure, failure) for failure in TEXT], dtype=np.int8)
    return table[failures]


def _separating_terms(design: Design, sample: Sample, arm: int) -> list[str]:
    """Names of the columns that tell an arm's outcomes at the bound of their family from the others perfectly."""
    family, rows = sample.family, sample.slices[arm]
    own = sample.with_outcome[rows] > 0
    y, columns = sample.y[rows][own], sample.X.columns[rows][own]
    low, high = y == family.low, y == family.high
    if family.name not in BOUNDED or not (low | high).any():
        return []
    inside = columns[~(low | high)]
    signed = np.vstack([-columns[low], columns[high], inside, -inside])
    direction = separating_direction(lambda function: [function(signed)], columns.shape[1])
    if direction is None:
        return []
    strength = np.abs(sample.X.coefficients(direction)) * design.X[design.arm == arm].std(axis=0)
    order = [j for j in np.argsort(-strength) if strength[j] > 1e-6 * strength.max()]
    return [design.exog_names[j] for j in order[:SHOWN]]


def gaussian_instead(design: Design) -> str:
    """Say how to type a family that has a fit in any case."""
    return 'Type  exposure=None, family="gaussian"' if design.offset_kind == "exposure" else 'Type  family="gaussian"'


def check_bound(design: Design, family: OutcomeFamily, arm: int) -> None:
    """Raise a SeparationError where all outcomes of an arm are at the bound of their family."""
    low, high = design.outcome_limits[arm]
    if low == high and low in (family.low, family.high):
        raise SeparationError(
            f"outcome {design.endog_name!r} is {low:g} in all rows of arm {design.labels[arm]!r}, so its outcome model "
            f"({family.label}) has no finite fit.\n{gaussian_instead(design)}, or merge that arm."
        )


def check_outcome_fits(design: Design, sample: Sample, failed: tuple[int, ...]) -> str:
    """Raise a SeparationError where an arm's outcome model has no finite fit.

    Parameters
    ----------
    design : Design
        The data with their names.
    sample : Sample
        The same data as numbers.
    failed : tuple of int
        How the fit of each arm ended, a `Failure`.

    Returns
    -------
    str
        Labels of the arms whose fits did not converge for another reason; empty where all did.
    """
    name = sample.family.label
    for a in range(sample.n_arms):
        if failed[a] == Failure.OK:
            continue
        check_bound(design, sample.family, a)
        found = _separating_terms(design, sample, a)
        if found or failed[a] == Failure.OUTCOME_SEPARATION:
            terms = ", ".join(map(repr, found)) or "a combination of the terms"
            raise SeparationError(
                f"the outcome model ({name}) predicts {design.endog_name!r} perfectly in rows of arm "
                f"{design.labels[a]!r}: {terms} separate{'s' if len(found) == 1 else ''} its outcomes, so it has no "
                f"finite fit.\nSimplify the outcome formula. {gaussian_instead(design)}  for a fit in any case."
            )
    return ", ".join(label for label, reason in zip(design.labels, failed, strict=True) if reason != Failure.OK)
