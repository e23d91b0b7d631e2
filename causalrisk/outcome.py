"""Outcome models: weighted generalised linear models of one arm, for one weighting or many at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalrisk.families import OutcomeFamily
from causalrisk.ledger import Reason
from causalrisk.linalg import Array, gram_matrices, pairwise_columns, solve_definite, weighted_least_squares
from causalrisk.newton import Batch, Curvature, newton_batch, refit_batch

OUTCOME_REASONS = {
    Reason.SEPARATION: Reason.OUTCOME_SEPARATION,
    Reason.NOT_CONVERGED: Reason.OUTCOME_NOT_CONVERGED,
    Reason.SINGULAR_PROPENSITY: Reason.SINGULAR_OUTCOME,
}


class OutcomeLikelihood:
    """Quasi-likelihood of an outcome family.

    Parameters
    ----------
    family : OutcomeFamily
        Family and link.
    y : ndarray, shape (n,)
        Outcome.
    """

    n_predictors = 1

    def __init__(self, family: OutcomeFamily, y: Array) -> None:
        self.family, self.y = family, y[:, None]
        self.bounded = family.name == "binomial"

    def derivatives(self, eta: Array) -> tuple[Array, Curvature]:
        """As in `newton.Likelihood`."""
        score, information, _ = self.family.score(self.y, eta[0])
        return score[None], {(0, 0): information}

    def value(self, eta: Array) -> Array:
        """As in `newton.Likelihood`."""
        return -self.family.loss(self.y, eta[0])


def fit_outcome(columns: Array, y: Array, weights: Array, family: OutcomeFamily) -> Batch:
    """Fit the outcome model of one arm.

    Parameters
    ----------
    columns : ndarray, shape (n, p)
        Basis columns.
    y, weights : ndarray, shape (n,)
        Outcome and training weights.
    family : OutcomeFamily
        Family and link.

    Returns
    -------
    Batch
        Coefficients, shape (p, 1), and the reason where they did not settle.
    """
    if family.linear:
        return Batch(weighted_least_squares(columns, y, weights)[:, None], np.zeros(1, dtype=np.int8), 0)
    start = weighted_least_squares(columns, family.start(y), weights)
    pairs, likelihood = pairwise_columns(columns), OutcomeLikelihood(family, y)
    batch = newton_batch(columns, pairs, likelihood, weights[:, None], start, damped=True)
    return Batch(batch.gamma, outcome_reasons(batch.reasons), batch.iterations)


class OutcomeRefitter:
    """Refits the outcome model of one arm under many weightings at once.

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
    """

    def __init__(self, columns: Array, y: Array, family: OutcomeFamily, theta: Array) -> None:
        self.columns, self.family, self.theta = columns, family, theta
        self.pairs = pairwise_columns(columns)
        self.likelihood = OutcomeLikelihood(family, y)
        self.weighted_residual = columns * (y - family.mean(columns @ theta))[:, None]

    def __call__(self, weights: Array) -> tuple[Array, NDArray[np.int8]]:
        """Coefficients less the full-sample ones, shape (p, m), and reasons, under weights of shape (n, m)."""
        if not self.family.linear:
            batch = refit_batch(self.columns, self.pairs, self.likelihood, weights, self.theta, self.theta)
            return batch.gamma - self.theta[:, None], outcome_reasons(batch.reasons)
        gram = gram_matrices(self.pairs, weights, len(self.theta))
        z, singular = solve_definite(gram, self.weighted_residual.T @ weights)
        return z, np.where(singular, Reason.SINGULAR_OUTCOME, Reason.OK).astype(np.int8)


def outcome_reasons(reasons: NDArray[np.int8]) -> NDArray[np.int8]:
    """Turn the reasons of Newton's method into those of an outcome model."""
    table = np.array([OUTCOME_REASONS.get(reason, reason) for reason in Reason], dtype=np.int8)
    return table[reasons]
