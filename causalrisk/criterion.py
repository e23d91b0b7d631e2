"""The weights of the terms of the joint objective."""

from __future__ import annotations

from dataclasses import dataclass

from causalrisk.linalg import Array


@dataclass(frozen=True)
class Criterion:
    """Weights of the terms of the objective.

    Parameters
    ----------
    fit : float
        Weight of the importance-weighted fit (the anchor; 1 for `erm`).
    penalty : float
        lambda, the weight of the expected ATE risk.
    variance : bool
        Whether the variance of the influence function is a term.
    fitted : bool
        Whether fit and risk are those at the fitted propensity score, or averages over its replicates.
    """

    fit: float
    penalty: float
    variance: bool
    fitted: bool = False


@dataclass(frozen=True)
class JointCriterion:
    """A criterion for one sample: with what is held fixed when rows are weighted anew.

    Parameters
    ----------
    fit, penalty, variance, fitted
        As in `Criterion`; `fit` times the mean variance function at the start, so that the loss has the units of the
        squared outcome.
    contrasts : ndarray, shape (K - 1, K)
        Contrasts of the arm biases whose squares make up the risk.
    scale_slopes : ndarray, shape (K,)
        Derivative of the scale of the effect at each arm mean of the start.
    unit : float
        Root mean square of the residuals of the start, for rows free of units.
    """

    fit: float
    penalty: float
    variance: bool
    contrasts: Array
    scale_slopes: Array
    unit: float
    fitted: bool = False
