"""The weights of the terms of the joint objective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.numerics.linalg import Array


@dataclass(frozen=True)
class Criterion:
    """Weights of the terms of the objective.

    Parameters
    ----------
    alpha : float
        Weight of the importance-weighted fit (the anchor; 1 for `erm`).
    penalty : float
        lambda, the weight of the expected ATE risk.
    with_variance : bool
        Whether the variance of the influence function is a term.
    at_fitted_score : bool
        Whether fit and risk are those at the fitted propensity score, or averages over its replicates.
    """

    alpha: float
    penalty: float
    with_variance: bool
    at_fitted_score: bool = False


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
    rms_residual : float
        Root mean square of the residuals of the start, for rows free of units.
    """

    alpha_sigma2: float
    penalty: float
    with_variance: bool
    contrasts: Array
    scale_slopes: Array
    rms_residual: float
    at_fitted_score: bool = False


def ate_risk(arm_bias: Array) -> Array:
    """Return the ATE risk under each propensity replicate.

    Parameters
    ----------
    arm_bias : ndarray, shape (K, B)
        Bias of each arm's outcome model, in units of the outcome; row 0 is the reference arm.

    Returns
    -------
    ndarray, shape (B,)
        (2 / K) sum_{k<l} (B_k - B_l)^2, in squared units of the outcome; for two arms the squared net bias.

    Notes
    -----
    Zero when the biases cancel, even if none is zero [1]_. It depends on no reference arm.

    References
    ----------
    .. [1] Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity
       Uncertainty. arXiv:2512.18083.

    Examples
    --------
    >>> import numpy as np
    >>> ate_risk(np.array([[1.0, 0.0], [1.0, 3.0]]))
    array([0., 9.])
    """
    return ((bias_contrasts(len(arm_bias)) @ arm_bias) ** 2).sum(axis=0)


def bias_contrasts(n_arms: int) -> Array:
    """Contrasts whose sum of squares is the ATE risk, shape (K - 1, K): Helmert's, each of squared length two."""
    contrasts = np.zeros((n_arms - 1, n_arms))
    for k in range(1, n_arms):
        contrasts[k - 1, :k], contrasts[k - 1, k] = -1.0, k
        contrasts[k - 1] *= np.sqrt(2 / (k * (k + 1)))
    return contrasts


def unit_slopes(slopes: Array) -> Array:
    """Slopes of the scale of an effect at the arm means, their mean square set to one.

    A risk of biases times these keeps the units of the outcome.
    """
    return slopes / np.sqrt((slopes**2).mean())
