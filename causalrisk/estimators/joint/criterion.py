"""The weights of the terms of the joint objective, and the ATE risk.

Flows in: an anchor alpha, the number of units n, the IPWRA fit that training starts from. Flows out: the weights of

    sigma_0^2 J = alpha sigma_0^2 sum_a L_a + (lambda / 2) mean_b u_b^2 + V / 2 + (lambda_0 / 2) u^2

with L_a the importance-weighted loss of arm a, u_b the net bias under propensity replicate b and u that at the fitted
score, V the sampling variance of the effect averaged over the replicates, less a share c of the effect heterogeneity at
the start (`start`). The objective "risk" has lambda = n, so that the second and third terms are (n / 2) R, R the
expected ATE risk, and lambda_0 = n^2; its L_a are those at the fitted score. The objective "erm" has alpha = 1,
lambda = n^2 and neither V nor u; its L_a are averages over the replicates.
"""

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
        Weight of the importance-weighted loss (the anchor; 1 for "erm").
    penalty : float
        lambda, the weight of the squared net bias averaged over the replicates.
    fitted_penalty : float
        lambda_0, the weight of the squared net bias at the fitted propensity score.
    full_risk : bool
        Whether the risk has the sampling variance V; the loss is then that at the fitted propensity score, else an
        average over the replicates.
    share : float, optional
        c; by default what is real of the effect heterogeneity at the start.
    """

    alpha: float
    penalty: float
    fitted_penalty: float
    full_risk: bool
    share: float | None = None

    @classmethod
    def risk(cls, alpha: float, n_units: float, share: float | None = None) -> Criterion:
        """Return the objective "risk" for n units."""
        return cls(alpha, n_units, n_units**2, True, share)

    @classmethod
    def erm(cls, penalty: float) -> Criterion:
        """Return the objective "erm"."""
        return cls(1.0, penalty, 0.0, False, 0.0)


@dataclass(frozen=True)
class JointCriterion:
    """A criterion for one sample: with what is held fixed when rows are weighted anew.

    Parameters
    ----------
    alpha_sigma2 : float
        alpha times sigma_0^2, the mean variance function at the start: the loss in units of the squared outcome.
    penalty, fitted_penalty, full_risk
        As in `Criterion`.
    share : float
        c.
    contrasts : ndarray, shape (K - 1, K)
        C: contrasts of the arm biases whose squares make up the risk.
    scale_slopes : ndarray, shape (K,)
        Derivative of the scale of the effect at each arm mean of the start.
    rms_residual : float
        Root mean square of the residuals of the start, for equations free of units.
    """

    alpha_sigma2: float
    penalty: float
    fitted_penalty: float
    full_risk: bool
    share: float
    contrasts: Array
    scale_slopes: Array
    rms_residual: float

    @property
    def D(self) -> Array:
        """C'C, shape (K, K)."""
        return self.contrasts.T @ self.contrasts


def ate_risk(arm_bias: Array) -> Array:
    """Return the squared net bias under each propensity replicate.

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
    Zero when the biases are equal, even if none is zero [1]_. It depends on no reference arm.

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
